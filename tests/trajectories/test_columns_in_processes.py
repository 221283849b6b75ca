"""Trajectories that two processes record are those of one: slices, snapshots, and training's losses."""

import numpy as np
import pytest

from s2l_jax.pipeline import run_pipeline
from s2l_jax.trajectories.load import load_trajectories
from tests.support import columns_in_processes
from tests.support.compilation import quickly_compiled
from tests.support.processes import run_together

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def together(tiny_checkpoint, tmp_path_factory):
    """The folder in which two processes made all runs."""
    folder = tmp_path_factory.mktemp("together")
    run_together("columns_in_processes.py", tiny_checkpoint, folder)
    return folder


def columns_of(workdir):
    return load_trajectories(workdir / "trajectories.zarr")


def test_both_wrote_whole_chunks_of_every_column(together):
    for name, rows in (("swept", 25), ("train", 36)):
        files = sorted(
            p.relative_to(together / name / "trajectories.zarr" / "losses" / "c").as_posix()
            for p in (together / name / "trajectories.zarr" / "losses" / "c").rglob("*")
            if p.is_file()
        )
        chunks = -(-rows // columns_in_processes.CHUNK_ROWS)
        columns = len(columns_of(together / name).steps)
        assert files == sorted(f"{chunk}/{column}" for chunk in range(chunks) for column in range(columns))


@pytest.mark.parametrize("name", ["swept", "train"])
def test_losses_are_those_of_one_process(together, tiny_checkpoint, tmp_path, name):
    config = columns_in_processes.config_of(name, str(tiny_checkpoint), str(tmp_path))
    config.mesh.tensor = 2  # this process has eight devices
    with quickly_compiled():
        run_pipeline(config, tmp_path)
    ours, alone = columns_of(together / name), columns_of(tmp_path)
    assert ours.steps.tolist() == alone.steps.tolist()
    assert np.array_equal(ours.ids, alone.ids)
    np.testing.assert_allclose(ours.losses, alone.losses, atol=1e-4)


def test_the_first_process_says_when_the_clusters_have_settled(together):
    """The second took them for settled after the first sweep; alone it would have left the other waiting."""
    assert columns_of(together / "swept").steps.tolist() == [3, 6]


def test_snapshots_swept_again_give_the_same_bytes(together):
    ours, live = (columns_of(together / name) for name in ("again", "swept"))
    assert ours.steps.tolist() == live.steps.tolist() == [3, 6]
    assert ours.losses.tobytes() == live.losses.tobytes()
