"""What two processes record and choose is what one does: slices, snapshots, and training's losses.

The stages after these, other features and kills are in tests/campaign/test_many_processes.py.
"""

import numpy as np
import pytest

from s2l_jax.clustering import rows
from s2l_jax.pipeline import run_pipeline
from s2l_jax.trajectories.load import load_trajectories
from tests.support import columns_in_processes
from tests.support.alike import assert_alike
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
    for name, count in (("swept", 25), ("train", 36)):
        files = sorted(
            p.relative_to(together / name / "trajectories.zarr" / "losses" / "c").as_posix()
            for p in (together / name / "trajectories.zarr" / "losses" / "c").rglob("*")
            if p.is_file()
        )
        chunks = -(-count // columns_in_processes.CHUNK_ROWS)
        columns = len(columns_of(together / name).steps)
        assert files == sorted(f"{chunk}/{column}" for chunk in range(chunks) for column in range(columns))


@pytest.mark.parametrize("name", ["swept", "train"])
def test_losses_clusters_and_the_subset_are_those_of_one_process(
    together, tiny_checkpoint, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(rows, "_ROWS_A_DEVICE", columns_in_processes.ROWS_A_DEVICE[name])
    config = columns_in_processes.config_of(name, str(tiny_checkpoint), str(tmp_path))
    config.mesh.tensor = 2  # this process has eight devices
    with quickly_compiled():
        run_pipeline(config, tmp_path)
    assert np.array_equal(columns_of(together / name).ids, columns_of(tmp_path).ids)
    assert_alike(together / name, tmp_path)
    assert (together / name / "report" / "index.html").exists()


def test_the_first_process_says_when_the_clusters_have_settled(together):
    """The second took them for settled after the first sweep; alone it would have left the other waiting."""
    assert columns_of(together / "swept").steps.tolist() == [3, 6]


def test_snapshots_swept_again_give_the_same_bytes(together):
    ours, live = (columns_of(together / name) for name in ("again", "swept"))
    assert ours.steps.tolist() == live.steps.tolist() == [3, 6]
    assert ours.losses.tobytes() == live.losses.tobytes()
