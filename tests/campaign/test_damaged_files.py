"""Every file of a workdir damaged, in each state in which a command reads it: nothing is silently wrong.

    python -m pytest -m slow tests/campaign/test_damaged_files.py -s

After each damage the same command is run again. Either it has the same results (the file is made again, or
not read), or it ends with one line that names the file.
"""

import collections
import functools
import shutil

import jax
import pytest

from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.pipeline import run as pipeline_run
from s2l_jax.pipeline import run_pipeline
from tests.support.damage import (
    WAYS,
    WRONG,
    damaged,
    dying,
    files_of,
    outcome_of,
    proxy_config,
    tiny_config,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

# What is taken away from the finished workdir, or where its making is interrupted; and the files that are
# then read, by the beginnings of their paths.
TAKEN = {
    "finished": ((), ()),
    "selects": (
        ("selection", "target", "evaluation"),
        ("pool", "proxy/stage.json", "trajectories.zarr", "hidden_states", "gradients", "cluster_counts"),
    ),
    "trains": (("target", "evaluation"), ("pool", "selection")),
    "evaluates": (("evaluation",), ("target/s2l/stage.json", "target/s2l/hf")),
}
INTERRUPTED = {
    "sweeping": (proxy_config, "column 4", ("pool", "proxy", "trajectories.zarr")),
    "taking gradients": (tiny_config, "gradients/part-", ("gradients", "hidden_states")),
    "selecting": (tiny_config, "selection/less/summary.json", ("selection",)),
    "exporting": (tiny_config, "target/s2l/hf/config.json", ("target",)),
    "answering": (tiny_config, "predictions.jsonl", ("evaluation",)),
}


@pytest.fixture(scope="module", autouse=True)
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_run, "make_mesh", lambda *shape: make_mesh(1, 1, 1, devices=jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def finished(tiny_checkpoint, tmp_path_factory):
    """The config and workdir of an unbroken run, by what makes the config."""
    folder = tmp_path_factory.mktemp("damage")

    @functools.cache
    def make(make_config):
        config, workdir = make_config(str(tiny_checkpoint), folder), folder / make_config.__name__
        run_pipeline(config, workdir, name="damage")
        return config, workdir

    return make


def walk(base, files, config, expected, place):
    assert files
    cases = [damaged(base, file, way, config, expected, place) for file in files for way in WAYS]
    print(f"\n{len(files)} files, {collections.Counter(case.outcome for case in cases)}")
    bad = [case for case in cases if case.outcome == WRONG]
    assert not bad, "\n".join(map(str, bad))


@pytest.mark.parametrize("state", TAKEN)
def test_a_finished_run(state, finished, tmp_path):
    taken, read = TAKEN[state]
    config, workdir = finished(tiny_config)
    base = shutil.copytree(workdir, tmp_path / "base")
    for part in taken:
        shutil.rmtree(base / part)
    walk(base, files_of(base, *read), config, outcome_of(workdir), tmp_path / "run")


@pytest.mark.parametrize("state", INTERRUPTED)
def test_an_interrupted_run(state, finished, tmp_path):
    make_config, label, read = INTERRUPTED[state]
    config, workdir = finished(make_config)
    base = tmp_path / "base"
    with dying(label):
        run_pipeline(config, base, name="damage")
    walk(base, files_of(base, *read), config, outcome_of(workdir), tmp_path / "run")
