"""What compiled programs send, read off their text."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from s2l_jax.forecast.collectives import Collective, collectives
from s2l_jax.parallel.mesh import make_mesh


def test_a_collective_in_a_loop_counts_as_often_as_the_loop_runs():
    mesh = make_mesh(4, 2, 1)

    def summed(x):
        def add(total, row):
            return total + jax.lax.psum(row, "fsdp"), None

        return jax.lax.scan(add, jnp.zeros(x.shape[1:]), x)[0]

    mapped = jax.jit(
        jax.shard_map(summed, mesh=mesh, in_specs=P(None, "data"), out_specs=P("data"), check_vma=False)
    )
    program = mapped.lower(jax.ShapeDtypeStruct((5, 128), jnp.float32)).compile().as_text()
    [found] = collectives(program, mesh.size)
    assert (found.kind, found.size, found.times) == ("all-reduce", 32 * 4, 5)
    assert found.group == (0, 1)  # neighbours on the axis fsdp
    assert found.sent == 5 * 2 * 128 / 2


def test_what_is_gathered_is_as_large_as_the_whole():
    mesh = make_mesh(1, 8, 1)
    gather = jax.shard_map(
        lambda x: jax.lax.all_gather(x, "fsdp", tiled=True), mesh=mesh, in_specs=P("fsdp"), out_specs=P(),
        check_vma=False,
    )  # fmt: skip
    program = jax.jit(gather).lower(jax.ShapeDtypeStruct((64, 4), jnp.float32)).compile().as_text()
    [found] = collectives(program, mesh.size)
    assert (found.kind, found.size, len(found.group)) == ("all-gather", 64 * 4 * 4, 8)
    assert found.sent == 1024 * 7 / 8


# As libtpu writes them: a loop without a stated length, one exchange in two fusions, a scatter named as one.
TPU = """HloModule jit_step

%part.1 (p.1: bf16[1,8]) -> bf16[4,8] {
  ROOT %all-gather.1 = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%p.1), channel_id=90, replica_groups=mesh['a'=4,'b'=4] {'b'}, dimensions={0}
}

%part.2 (p.2: bf16[1,8]) -> bf16[4,8] {
  ROOT %all-gather.2 = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%p.2), channel_id=90, replica_groups=mesh['a'=4,'b'=4] {'b'}, dimensions={0}
}

%all-reduce-scatter.3 (p.3: f32[16,8]) -> f32[4,8] {
  %all-reduce.3 = f32[16,8]{1,0:T(8,128)} all-reduce(%p.3), channel_id=17, replica_groups={{0,4,8,12},{1,5,9,13}}, to_apply=%add
  ROOT %slice.3 = f32[4,8]{1,0:T(8,128)} slice(%all-reduce.3)
}

%body (p.4: (s32[], bf16[1,8])) -> (s32[], bf16[1,8]) {
  %start = bf16[4,8]{1,0} fusion(%x), kind=kCustom, calls=%part.1
  %done = bf16[4,8]{1,0} fusion(%x), kind=kCustom, calls=%part.2
}

%condition (p.5: (s32[], bf16[1,8])) -> pred[] {
  %constant.5 = s32[]{:T(128)} constant(24)
  %counter = s32[]{:T(128)} get-tuple-element(%p.5), index=0
  ROOT %lt = pred[]{:T(512)} compare(%counter, %constant.5), direction=LT
}

ENTRY %main (p.6: f32[16,8]) -> f32[4,8] {
  %while.6 =   while(%tuple.6), condition=%condition, body=%body
  %permute = (bf16[24,8]{1,0}, bf16[24,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%y), channel_id=1, source_target_pairs={{0,1},{1,2}}
  %pair = (f32[8]{0}, f32[]{:T(128)}) all-reduce(%a, %b), channel_id=5, replica_groups=[4,4]<=[4,4]T(1,0), to_apply=%add
  ROOT %fusion.6 = f32[4,8]{1,0} fusion(%p.6), kind=kCustom, calls=%all-reduce-scatter.3
}
"""


def test_programs_as_libtpu_writes_them():
    found = {each.kind: each for each in collectives(TPU, 16)}
    assert found["all-gather"] == Collective("all-gather", 64, (0, 1, 2, 3), 24)
    assert found["reduce-scatter"] == Collective("reduce-scatter", 512, (0, 4, 8, 12), 1)
    assert found["all-reduce"] == Collective("all-reduce", 36, (0, 4, 8, 12), 1)
    assert found["collective-permute"].group == (0, 1)
    assert found["collective-permute"].size == pytest.approx(24 * 8 * 2, rel=0.02)
    assert len(found) == len(collectives(TPU, 16))


def test_a_loop_of_unknown_length_runs_as_often_as_it_is_told():
    program = TPU.replace("direction=LT", "direction=NE")
    assert {each.times for each in collectives(program, 16, 7) if each.kind == "all-gather"} == {7}
