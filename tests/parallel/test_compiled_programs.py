"""What the compiled training step sends between devices, and what each of them holds."""

import functools
import math
import re

import jax
import numpy as np
import pytest

from s2l_jax.forecast.programs import Sweep
from s2l_jax.parallel.mesh import make_mesh, row_groups
from s2l_jax.training.optimizer import OptimizerSettings
from s2l_jax.training.step import abstract_state, make_train_step
from tests.support.described_rows import CONFIG, EXAMPLES, LENGTH, ROWS, TOKENS, described_rows

pytestmark = pytest.mark.usefixtures("quick_compilation")

COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(-start)?\("
)

GATHERED = re.compile(r"= \w+\[([\d,]+)\]\S* all-gather(?:-start)?\(")


@functools.cache
def compiled_step(data, fsdp, tensor):
    mesh = make_mesh(data, fsdp, tensor)
    rows = described_rows(mesh)
    settings = OptimizerSettings()
    state = abstract_state(CONFIG, settings, 10, mesh)
    return make_train_step(CONFIG, settings, 10, mesh).lower(state, rows).compile()


def computations(program):
    """The instructions of each computation of a compiled program, by name."""
    found, name = {}, ""
    for line in program.splitlines():
        if start := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name = "ENTRY" if start[1] else start[2]
            found[name] = []
        elif " = " in line:
            found[name].append(line.strip())
    return found


def collectives_after(program, argument):
    """Collectives of what is computed from an argument of the program, also in computations it calls."""
    bodies, derived, found = computations(program), set(), []

    def inside(name):
        here = [line for line in bodies.get(name, ()) if COLLECTIVE.search(line)]
        return here + [
            line for body in bodies.get(name, ()) for called in calls(body) for line in inside(called)
        ]

    def calls(line):
        return re.findall(r"(?:calls|to_apply|body|condition)=%([\w.-]+)", line)

    for line in bodies["ENTRY"]:
        target, rest = line.removeprefix("ROOT ").split(" = ", 1)
        is_argument = " parameter(" in rest and argument in rest
        if not is_argument and not derived & set(re.findall(r"%[\w.-]+", rest)):
            continue
        derived.add(target)
        found += [line] if COLLECTIVE.search(line) else [x for name in calls(rest) for x in inside(name)]
    return found


def test_no_moment_of_the_optimiser_leaves_its_device():
    program = compiled_step(1, 4, 2).as_text()
    assert collectives_after(program, "state.params")  # they are gathered, a layer at a time, and so are seen
    assert collectives_after(program, "state.opt_state") == []


def test_parameters_are_gathered_a_layer_at_a_time_and_logits_never():
    program = compiled_step(1, 4, 2).as_text()
    found = [GATHERED.search(line) for line in program.splitlines()]
    gathered = [tuple(map(int, shape[1].split(","))) for shape in found if shape]
    of_layer = CONFIG.hidden_size * CONFIG.intermediate_size
    assert of_layer // 2 in {math.prod(shape) for shape in gathered}  # the tensor axis has half of each
    assert not [shape for shape in gathered if CONFIG.num_layers in shape]
    vocabulary = CONFIG.padded_vocab_size
    shares = {math.prod(shape) for shape in gathered if vocabulary // 2 in shape}
    assert shares == {CONFIG.hidden_size * vocabulary // 2}  # the head's weights
    assert not [shape for shape in gathered if vocabulary in shape]


def test_a_sweep_gathers_neither_logits_nor_more_than_a_layer():
    mesh = make_mesh(1, 4, 2)
    slots = jax.ShapeDtypeStruct((1, row_groups(mesh), EXAMPLES), np.int32)
    sweep = Sweep(CONFIG, "float32", "auto", 16, 0, described_rows(mesh), slots)
    program = sweep.lower(mesh).compile().as_text()
    shapes = [tuple(map(int, shape.split(","))) for shape in GATHERED.findall(program)]
    assert CONFIG.hidden_size * CONFIG.intermediate_size // 2 in {math.prod(shape) for shape in shapes}
    assert not [shape for shape in shapes if CONFIG.num_layers in shape]
    # Of all groups' response tokens, by the vocabulary or a device's half of it.
    logits = row_groups(mesh) * TOKENS * CONFIG.padded_vocab_size // 2
    assert logits > CONFIG.hidden_size * CONFIG.padded_vocab_size // 2  # the head's weights
    assert max(map(math.prod, shapes)) < logits


def device_bytes(state):
    """What a device holds of a state, by its shardings."""
    shapes = [(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(state)]
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes)


def test_parameters_and_moments_of_a_device_fall_with_fsdp_and_tensor():
    def share(*sizes):
        return device_bytes(abstract_state(CONFIG, OptimizerSettings(), 10, make_mesh(*sizes)))

    whole = share(8, 1, 1)
    for fsdp, tensor in ((8, 1), (4, 2), (2, 2), (1, 2)):
        # Vectors, such as norms' scales, are whole on every device.
        held = share(8 // (fsdp * tensor), fsdp, tensor)
        assert whole / (fsdp * tensor) <= held < 1.2 * whole / (fsdp * tensor), (fsdp, tensor)
    rows = 4 * (3 * ROWS * LENGTH + 3 * TOKENS + EXAMPLES) + TOKENS  # int32 and float32, and the mask
    # That is what the program takes, beside those of the rows that this loss looks at.
    assert 0 < compiled_step(1, 4, 2).memory_analysis().argument_size_in_bytes - share(1, 4, 2) <= rows
