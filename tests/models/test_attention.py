"""The fused kernels equal plain XLA on packed rows, and are chosen only where they can be used."""

import dataclasses
import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from s2l_jax.data.packing import PackedRows
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import attend
from s2l_jax.models.decoder import Decoder
from s2l_jax.models.fused_attention import cudnn_attention, splash_attention
from s2l_jax.models.parameters import bind, init_params
from s2l_jax.parallel import attention
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.sharding import row_sharding
from s2l_jax.training.optimizer import OptimizerSettings
from s2l_jax.training.step import abstract_state, make_train_step

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # every example compiles: shrinking takes minutes

# The kernel itself, run without a TPU; and cuDNN's arguments, given to XLA.
SPLASH = functools.partial(splash_attention, interpret=True)
CUDNN = functools.partial(cudnn_attention, implementation="xla")

CONFIG = DecoderConfig(
    family="llama",
    vocab_size=200,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=48,
    max_positions=512,
    rotary_dim=16,
    norm="rms",
    gated_mlp=True,
)


def packed_segments(rng, batch, length):
    """Segments 1, 2, ... of random lengths, then padding, in some rows none and in some nothing else."""
    segments = np.zeros((batch, length), np.int32)
    for row in segments:
        ends = np.sort(rng.integers(0, length + 1, rng.integers(0, 5)))
        for number, end in reversed(list(enumerate(ends, start=1))):
            row[:end] = number
    return segments


def output_and_gradients(kernel, segments, window, *, heads, kv_heads, dim, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(*segments.shape, number, dim) for number in (heads, kv_heads, kv_heads, heads)]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]

    @jax.jit
    def run(query, key, value, weights, segments):
        core = functools.partial(kernel, segments=segments, window=window)
        out, pull = jax.vjp(core, query, key, value)
        return out, *pull(weights)

    return [np.asarray(x) for x in run(*arrays, segments)]


def assert_equal_plain(kernel, segments, window, **shape):
    got = output_and_gradients(kernel, segments, window, **shape)
    want = output_and_gradients(attend, segments, window, **shape)
    for what, ours, reference in zip(("output", "dq", "dk", "dv"), got, want, strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-5, err_msg=what)


@settings(max_examples=4, deadline=None, phases=PHASES)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.sampled_from([33, 160]),
    window=st.sampled_from([None, 1, 7, 150]),
    groups=st.sampled_from([1, 2]),
)
def test_splash_equals_plain_attention(seed, length, window, groups):
    segments = packed_segments(np.random.default_rng(seed), 2, length)
    assert_equal_plain(SPLASH, segments, window, heads=2 * groups, kv_heads=2, dim=8, seed=seed)


@settings(max_examples=8, deadline=None, phases=PHASES)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.sampled_from([17, 40]),
    window=st.sampled_from([None, 1, 7, 90]),
    traced=st.booleans(),
    groups=st.sampled_from([1, 3]),
)
def test_what_cudnn_is_given_means_plain_attention(seed, length, window, traced, groups):
    segments = packed_segments(np.random.default_rng(seed), 2, length)
    window = jnp.int32(window or 0) if traced else window
    assert_equal_plain(CUDNN, segments, window, heads=2 * groups, kv_heads=2, dim=8, seed=seed)


@pytest.mark.parametrize("kernel", [SPLASH, CUDNN], ids=["splash", "cudnn"])
def test_each_device_works_on_its_own_rows_and_heads(kernel, cube_mesh):
    segments = packed_segments(np.random.default_rng(1), 8, 40)
    spread = attention.over_mesh(kernel, cube_mesh)
    assert_equal_plain(spread, segments, 9, heads=4, kv_heads=2, dim=8)


@pytest.mark.parametrize("place", ["one", "mesh"])
@pytest.mark.parametrize("kernel", [attend, SPLASH, CUDNN], ids=["plain", "splash", "cudnn"])
def test_a_prefix_is_seen_by_all_segments(kernel, place, cube_mesh):
    """As if each segment were a row of its own with the prefix before it."""
    rng = np.random.default_rng(0)
    segments = packed_segments(rng, 8, 40)
    query, key, value = (rng.normal(size=(8, 40, h, 8)).astype(np.float32) for h in (4, 2, 2))
    before = tuple(rng.normal(size=(5, 2, 8)).astype(np.float32) for _ in range(2))
    core = attention.over_mesh(kernel, cube_mesh) if place == "mesh" else kernel
    got = jax.jit(functools.partial(core, window=None))(query, key, value, segments=segments, prefix=before)
    alone = jax.jit(functools.partial(attend, window=None))
    compared = 0
    for row, number in {(r, n) for r, n in zip(*np.nonzero(segments), strict=True)}:
        own = segments[row] == segments[row, number]
        if np.flatnonzero(own)[0] != number:
            continue
        keys, values = (
            np.concatenate([p, x[row][own]])[None] for p, x in zip(before, (key, value), strict=True)
        )
        queries = np.concatenate([np.zeros((5, 4, 8), np.float32), query[row][own]])[None]
        want = alone(queries, keys, values, segments=np.ones(queries.shape[:2], np.int32))[0, 5:]
        np.testing.assert_allclose(np.asarray(got)[row][own], want, atol=1e-5)
        compared += 1
    assert compared > 8


def test_a_traced_window_crosses_the_mesh(cube_mesh):
    segments = packed_segments(np.random.default_rng(1), 4, 20)
    spread = attention.over_mesh(CUDNN, cube_mesh)
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(4, 20, h, 8)).astype(np.float32) for h in (4, 2, 2))

    @functools.partial(jax.jit, static_argnums=0)
    def by_window(kernel, windows):
        def layer(carry, window):
            return carry, kernel(query, key, value, segments=segments, window=window)

        return jax.lax.scan(layer, 0, windows)[1]

    windows = np.array([0, 3], np.int32)
    got, want = by_window(spread, windows), by_window(attend, windows)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(want[0] - want[1]).max() > 0.1


@pytest.mark.parametrize("kernel", [SPLASH, CUDNN, attend], ids=["splash", "cudnn", "xla"])
def test_rows_of_padding_are_finite_in_output_and_gradients(kernel):
    segments = np.zeros((2, 24), np.int32)
    segments[0, :5] = 1
    for array in output_and_gradients(kernel, segments, 3, heads=2, kv_heads=1, dim=8):
        assert np.isfinite(array).all()


BFLOAT16, FLOAT32 = jnp.bfloat16, jnp.float32


@pytest.mark.parametrize(
    ("kernel", "changes", "dtype", "platform", "capability", "tensor"),
    [
        ("cudnn", {}, BFLOAT16, "gpu", "8.0", 1),
        ("cudnn", {"windows": (4, 0)}, BFLOAT16, "gpu", "9.0", 2),
        ("cudnn", {"head_dim": 128}, BFLOAT16, "gpu", "8.9", 1),
        ("cudnn", {"head_dim": 256}, BFLOAT16, "gpu", "10.0", 1),
        ("xla", {"head_dim": 256}, BFLOAT16, "gpu", "8.9", 1),
        ("xla", {"head_dim": 20}, BFLOAT16, "gpu", "9.0", 1),
        ("xla", {}, BFLOAT16, "gpu", "7.5", 1),
        ("xla", {}, BFLOAT16, "gpu", "gfx942", 1),
        ("xla", {}, BFLOAT16, "gpu", "", 1),
        ("xla", {}, FLOAT32, "gpu", "9.0", 1),
        ("xla", {}, BFLOAT16, "gpu", "9.0", 4),
        ("splash", {}, BFLOAT16, "tpu", "", 2),
        ("splash", {"windows": (4, 4), "head_dim": 80}, BFLOAT16, "tpu", "", 1),
        ("xla", {"windows": (4, 0)}, BFLOAT16, "tpu", "", 1),
        ("xla", {}, FLOAT32, "tpu", "", 1),
        ("xla", {}, BFLOAT16, "tpu", "", 4),
        ("xla", {}, BFLOAT16, "cpu", "", 1),
    ],
)
def test_which_kernel_is_chosen(kernel, changes, dtype, platform, capability, tensor):
    config = dataclasses.replace(CONFIG, **changes)
    choice = attention.choose(config, dtype, platform=platform, capability=capability, tensor=tensor)
    assert choice.kernel == kernel
    assert bool(choice.reason) == (kernel == "xla"), "whoever gets no kernel is told why"


def test_the_cpu_keeps_plain_attention(cube_mesh):
    assert attention.attention_on(cube_mesh, CONFIG, BFLOAT16) is attend


class FakeMesh:
    """A mesh of one device that is not there."""

    def __init__(self, platform, capability):
        self.shape = {"data": 1, "fsdp": 1, "tensor": 1}
        self.platform, self.compute_capability = platform, capability
        self.devices = np.array([self], object).reshape(1, 1, 1)


@pytest.mark.parametrize("fault", ["", "XlaRuntimeError: no kernel"])
@pytest.mark.parametrize(("platform", "kernel"), [("gpu", "cudnn"), ("tpu", "splash")])
def test_a_kernel_that_fails_its_check_is_not_used(platform, kernel, fault, monkeypatch, capsys):
    mesh = FakeMesh(platform, "9.0")
    checked = []
    monkeypatch.setattr(attention.jax, "local_devices", lambda: [mesh])
    monkeypatch.setattr(attention, "check", lambda *args: (checked.append(args), fault)[1])
    chosen = attention.attention_on(mesh, CONFIG, BFLOAT16)
    assert (chosen is attend) == bool(fault)
    assert checked == [(kernel, CONFIG, mesh)]
    said = capsys.readouterr().err
    assert (f"xla, as {kernel} fails here: {fault}" if fault else f"bfloat16: {kernel}\n") in said
    assert attention.attention_on(mesh, CONFIG, BFLOAT16, "xla") is attend
    assert len(checked) == 1, "nothing is tried where plain XLA is asked for"


def test_the_check_tells_an_exact_kernel_from_others(monkeypatch):
    def leaking(query, key, value, *, segments, window):
        return CUDNN(query, key, value, segments=segments * 0, window=window)

    def windowless(query, key, value, *, segments, window):
        return CUDNN(query, key, value, segments=segments, window=None)

    device, windowed = jax.devices()[0], dataclasses.replace(CONFIG, windows=(40, 40))
    for name, kernel in (("exact", CUDNN), ("leaking", leaking), ("windowless", windowless)):
        monkeypatch.setitem(attention.KERNELS, name, kernel)
    assert attention.check("exact", windowed, device) == ""
    assert attention.check("windowless", CONFIG, device) == ""
    assert "off by" in attention.check("leaking", CONFIG, device)
    assert "off by" in attention.check("windowless", windowed, device)
    assert "Error: " in attention.check("cudnn", CONFIG, device), "there is no cuDNN on a CPU"


@pytest.mark.parametrize("windows", [(), (0, 0), (5, 5), (5, 0)])
def test_a_window_that_all_layers_share_is_known_to_the_compiler(windows):
    seen = []

    def recording(query, key, value, *, segments, window):
        seen.append(window)
        return attend(query, key, value, segments=segments, window=window)

    config = dataclasses.replace(CONFIG, windows=windows)
    model = bind(config, init_params(config, jax.random.key(0)))
    assert isinstance(model, Decoder)
    row = np.ones((1, 12), np.int32)
    out = model(row, np.arange(12)[None], row, attend=recording)
    np.testing.assert_array_equal(out, model(row, np.arange(12)[None], row))
    if windows == (5, 0):
        assert isinstance(seen[0], jax.core.Tracer)
    else:
        assert seen[0] == (5 if windows == (5, 5) else None)


def test_the_program_for_cuda_holds_cudnns_kernels_and_one_mask(cube_mesh, monkeypatch):
    fused = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91300)
    spread = attention.over_mesh(cudnn_attention, cube_mesh)

    def loss(x, segments):
        def layer(x, _):
            return spread(x, x[:, :, :2], x[:, :, 2:], segments=segments, window=9), None

        return jax.lax.scan(layer, x, length=3)[0].astype(jnp.float32).sum()

    x = jax.ShapeDtypeStruct((8, 64, 4, 32), jnp.bfloat16)
    segments = jax.ShapeDtypeStruct((8, 64), jnp.int32)
    traced = jax.jit(jax.grad(loss)).trace(x, segments)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert re.findall(r"@__cudnn\$(\w+)", text) == ["fmhaScaleBiasSoftmax", "fmhaScaleBiasSoftmaxBackward"]
    assert "tensor<2x1x64x64xbf16>" in text, "the bias of a device's two rows, shared by its heads"
    assert "tensor<3x" not in "".join(re.findall(r"tensor<[\dx]*64x64x\w+>", text)), "and by the layers"
    assert not re.findall(r"tensor<[\dx]*64x64xf32>", text), "no scores"


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, the TPU compiler")
def test_a_training_step_compiled_for_tpus_holds_the_splash_kernels(monkeypatch):
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    mesh = make_mesh(1, 2, 2, devices=list(topology.devices))
    config = dataclasses.replace(CONFIG, windows=(100, 100))
    step = make_train_step(config, OptimizerSettings(), 10, mesh, dtype=BFLOAT16)

    def struct(*shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct((1, 2, *shape), dtype, sharding=row_sharding(mesh, 1))

    texts, flat = struct(1, 128), struct(64)
    mask, weights = struct(64, dtype=jnp.bool_), struct(2, dtype=jnp.float32)
    rows = PackedRows(texts, texts, texts, flat, flat, flat, mask, weights)
    program = step.lower(abstract_state(config, OptimizerSettings(), 10, mesh), rows).compile().as_text()
    for phase in ("fwd", "dq", "dkv"):
        assert re.search(rf"splash_mha_{phase}_segmented.* custom-call.*tpu_custom_call", program), phase
