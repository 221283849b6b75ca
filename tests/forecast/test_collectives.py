"""What compiled programs send, read off their text."""

import pathlib

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


# A loop without a stated length, one exchange in two fusions, and a scatter that is one by its name.
TPU = (pathlib.Path(__file__).parent / "step_as_libtpu_writes_it.txt").read_text()


def test_programs_as_libtpu_writes_them():
    found = {each.kind: each for each in collectives(TPU, 16)}
    assert found["all-gather"] == Collective("all-gather", 64, (0, 1, 2, 3), 24)
    assert found["reduce-scatter"] == Collective("reduce-scatter", 512, (0, 4, 8, 12), 1)
    assert found["all-reduce"] == Collective("all-reduce", 36, (0, 4, 8, 12), 1)
    assert found["collective-permute"].group == (0, 1, 2)  # around a ring
    assert found["collective-permute"].size == pytest.approx(24 * 8 * 2, rel=0.02)
    assert len(found) == len(collectives(TPU, 16))


# A product that takes the parts of a matrix as they come round, two each time: its counter goes by two.
WINDOWED = """
%body.1 (p.1: (bf16[4,8], u32[])) -> (bf16[4,8], u32[]) {
  %constant.2 = u32[]{:T(128)} constant(2)
  %part = bf16[4,8]{1,0:T(8,128)(2,1)} get-tuple-element(%p.1), index=0
  %start.1 = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%part), \
channel_id=1, source_target_pairs={{0,3},{1,0},{2,1},{3,2},{4,7},{5,4},{6,5},{7,6}}
  %done.1 = bf16[4,8]{1,0:T(8,128)(2,1)} collective-permute-done(%start.1)
  %counter = u32[]{:T(128)} get-tuple-element(%p.1), index=1
  %next = u32[]{:T(128)} add(%counter, %constant.2)
  ROOT %tuple.1 = (bf16[4,8]{1,0}, /*index=1*/u32[]{:T(128)}) tuple(%done.1, /*index=1*/%next)
}

%condition.1 (p.2: (bf16[4,8], u32[])) -> pred[] {
  %constant.7 = u32[]{:T(128)} constant(7)
  %counter.2 = u32[]{:T(128)} get-tuple-element(%p.2), index=1
  ROOT %compare.2 = pred[]{:T(512)} compare(%counter.2, %constant.7), direction=LT
}

ENTRY %main (p: bf16[4,8]) -> bf16[4,8] {
  %while.1 = (bf16[4,8]{1,0}, u32[]{:T(128)}) while(%tuple), condition=%condition.1, body=%body.1
}
"""


def test_a_loop_whose_counter_goes_by_two_runs_half_as_often():
    (found,) = collectives(WINDOWED, 8)
    assert (found.times, found.group) == (4, (0, 3, 2, 1))
    assert found.sent == pytest.approx(4 * 4 * 8 * 2, rel=0.1)


def test_a_loop_of_unknown_length_runs_as_often_as_it_is_told():
    program = TPU.replace("direction=LT", "direction=NE")
    assert {each.times for each in collectives(program, 16, 7) if each.kind == "all-gather"} == {7}


def test_devices_that_send_to_themselves_are_no_group():
    line = (
        "ENTRY %main () -> f32[4] {\n  %x = f32[4]{0} collective-permute(%y), source_target_pairs={PAIRS}\n}"
    )
    own = "{{0,0},{1,1}}"
    assert collectives(line.replace("{PAIRS}", own), 4) == []
    (found,) = collectives(line.replace("{PAIRS}", "{{0,0},{1,2},{2,1}}"), 4)
    assert found.group == (1, 2)
