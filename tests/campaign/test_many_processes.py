"""Every stage on several processes: as one makes it, killed in each stage, and on an object store."""

import functools
import shutil

import pytest
from etils import epath

from tests.support import fake_object_store
from tests.support.alike import assert_alike
from tests.support.pipeline_in_processes import snapshots_of
from tests.support.processes import end_together, run_together

pytestmark = pytest.mark.slow

PROGRAM = "pipeline_in_processes.py"


@pytest.fixture(scope="module")
def alone(tiny_checkpoint, tmp_path_factory):
    """The workdir of one process of four devices, by the name of its config."""
    folder = tmp_path_factory.mktemp("alone")

    @functools.cache
    def workdir(name):
        run_together(PROGRAM, 1, 4, tiny_checkpoint, folder / name, name, count=1, timeout=1800)
        return folder / name

    return workdir


@pytest.mark.parametrize(("count", "devices"), [(2, 2), (4, 1)])
@pytest.mark.parametrize("name", ["methods", "adapters"])
def test_together_they_make_what_one_makes(alone, tiny_checkpoint, tmp_path, name, count, devices):
    workdir = tmp_path / "run"
    run_together(PROGRAM, count, devices, tiny_checkpoint, workdir, name, count=count, timeout=1800)
    assert_alike(workdir, alone(name))


@pytest.mark.parametrize(("count", "devices"), [(2, 2), (4, 1)])
def test_snapshots_are_swept_again_as_by_one(alone, tiny_checkpoint, tmp_path, count, devices):
    kept = snapshots_of(tiny_checkpoint)
    if not kept.exists():
        shutil.copytree(alone("saved") / "proxy" / "snapshots", kept)
    workdir = tmp_path / "run"
    run_together(PROGRAM, count, devices, tiny_checkpoint, workdir, "swept", count=count, timeout=1800)
    assert_alike(workdir, alone("swept"))


def test_a_workdir_on_an_object_store(alone, tiny_checkpoint):
    pytest.importorskip("gcsfs")
    with fake_object_store.start():
        workdir = epath.Path("gs://bucket/together")
        run_together(PROGRAM, 2, 2, tiny_checkpoint, workdir, "few", timeout=1800)
        assert_alike(workdir, alone("few"))


# In the order of what is made: how many processes of how many devices, which of them dies, and where.
KILLS = [
    (2, 2, 0, "barrier pool"),
    (4, 1, 3, "column 3"),
    (2, 2, 1, "checkpoint proxy 4"),
    (2, 2, 0, "warmup_1.npz"),
    (2, 2, 1, "barrier gradients"),
    (4, 1, 2, "barrier hidden_states"),
    (2, 2, 1, "barrier selection/s2l"),
    (4, 1, 0, "checkpoint s2l 2"),
    (2, 2, 1, "barrier export s2l"),
    (2, 2, 1, "barrier evaluation/s2l"),
]


def test_killed_in_each_stage_all_end_and_another_number_of_processes_goes_on(
    alone, tiny_checkpoint, tmp_path
):
    workdir = tmp_path / "run"
    for count, devices, dying, label in KILLS:
        arguments = (count, devices, tiny_checkpoint, workdir, "few", dying, label)
        ended = end_together(PROGRAM, *arguments, count=count, timeout=1200)
        for number, (status, said) in enumerate(ended):
            if number == dying:
                assert status == -9, (label, said)
                continue
            # Where process 0 is killed JAX's own service, which was in it, may be quicker.
            assert status > 0 or (dying == 0 and status == -6), (label, status, said)
            assert dying == 0 or f"process {dying} of {count} has ended, and this one with it" in said, said
    run_together(PROGRAM, 1, 4, tiny_checkpoint, workdir, "few", count=1, timeout=1200)
    assert_alike(workdir, alone("few"))
