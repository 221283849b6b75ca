"""How fast groups of devices exchange bytes, and what they exchange by count."""

import dataclasses
import itertools
import math
import types

import jax
import numpy as np
import pytest

from s2l_jax.forecast.collectives import collectives
from s2l_jax.forecast.network import rate
from s2l_jax.forecast.programs import Decode, Sweep, TrainStep
from s2l_jax.forecast.topology import Topology, describe
from s2l_jax.models.lora import Lora
from s2l_jax.parallel.chips import CHIPS
from s2l_jax.parallel.mesh import make_mesh, row_groups
from s2l_jax.training.loop import TrainSettings
from s2l_jax.training.optimizer import OptimizerSettings
from tests.support.described_rows import CONFIG, EXAMPLES, described_rows

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]


def slice_of(chip, *shape):
    """A slice as libtpu describes one; its devices by their coordinates."""
    devices = {
        place: types.SimpleNamespace(coords=list(place)) for place in itertools.product(*map(range, shape))
    }
    return Topology(chip, "tpu", CHIPS[chip], list(devices.values()), compiles=True), devices


def along(devices, axis):
    """A group along an axis of the network."""
    return [device for place, device in devices.items() if not any(place[:axis] + place[axis + 1 :])]


@pytest.mark.parametrize(
    ("chip", "shape", "axis", "links"),
    [
        ("v5e", (4, 4, 1), 0, 1),  # a line, whose ends have one link
        ("v5e", (8, 16, 1), 0, 1),
        ("v5e", (8, 16, 1), 1, 2),  # a ring
        ("v5p", (4, 4, 8), 2, 2),
        ("v5p", (2, 4, 4), 2, 1),  # no whole cube
    ],
)
def test_a_group_along_an_axis_of_a_slice(chip, shape, axis, links):
    topology, devices = slice_of(chip, *shape)
    assert rate(topology, along(devices, axis)) == links * CHIPS[chip].link


def test_a_group_uses_all_axes_that_it_extends_over_and_rings_only_whole():
    topology, devices = slice_of("v5p", 4, 4, 4)
    assert rate(topology, list(devices.values())) == 6 * CHIPS["v5p"].link == 600e9  # all of a chip's links
    assert rate(topology, along(devices, 2)[:2]) == CHIPS["v5p"].link


def test_what_crosses_slices_or_machines_goes_by_the_slower_network():
    gpus = describe("gpu:h100x16").devices
    assert rate(describe("gpu:h100x16"), gpus[:8]) == CHIPS["h100"].link
    assert rate(describe("gpu:h100x16"), gpus[4:12]) == CHIPS["h100"].between


def sent(exchanges):
    return math.fsum(each.sent for each in exchanges)


WHOLE = [(None, sizes) for sizes in ((1, 8, 1), (8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8))]
ADAPTERS = [(Lora(2, 4.0, ("query", "value"), 0.0, 0), sizes) for sizes in ((1, 8, 1), (2, 2, 2))]


@pytest.mark.parametrize(("lora", "sizes"), WHOLE + ADAPTERS, ids=str)
def test_what_a_step_exchanges_by_count_is_near_what_its_program_does(lora, sizes):
    mesh = make_mesh(*sizes)
    config = dataclasses.replace(CONFIG, lora=lora)
    step = TrainStep(config, TrainSettings(OptimizerSettings()), 10, described_rows(mesh))
    compiled = collectives(step.lower(mesh).compile().as_text(), mesh.size)
    assert 0.5 < sent(compiled) / sent(step.exchanges(mesh)) < 2.0
    assert row_groups(mesh) > 1 or {each.kind for each in step.exchanges(mesh)} == {"all-reduce"}


@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_sweeps_and_decoding_too(sizes):
    """Less so decoding: for few tokens XLA adds up parts of products rather than put weights together."""
    mesh = make_mesh(*sizes)
    groups = row_groups(mesh)
    slots = jax.ShapeDtypeStruct((1, groups, EXAMPLES), np.int32)
    sweep = Sweep(CONFIG, "float32", "auto", 16, 0, described_rows(mesh), slots)
    decode = Decode(CONFIG, "float32", 8 * groups, slots=32, max_new_tokens=16)
    for program, least in ((sweep, 0.5), (decode, 0.3)):
        compiled = collectives(program.lower(mesh).compile().as_text(), mesh.size)
        assert least < sent(compiled) / sent(program.exchanges(mesh)) < 2.0, program
