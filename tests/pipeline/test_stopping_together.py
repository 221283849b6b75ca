"""Two processes train; one of them fails or is told to stop, and both end, as the launcher says it."""

import signal

import numpy as np
import pytest

from s2l_jax.pipeline import run_pipeline
from s2l_jax.trajectories.load import load_trajectories
from tests.support import stop_in_processes
from tests.support.compilation import quickly_compiled
from tests.support.processes import end_together

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("how", "statuses", "said"),
    [
        ("full", [4, 4], "No space left on device"),
        pytest.param("diverged", [3, 3], "gradient norm", marks=pytest.mark.slow),
    ],
)
def test_both_end_with_the_reason(tiny_checkpoint, tmp_path, how, statuses, said):
    ended = end_together("stop_in_processes.py", tiny_checkpoint, tmp_path, how, timeout=200)
    assert [status for status, _ in ended] == statuses, ended
    assert all(said in output for _, output in ended), ended
    if how == "full":
        assert "process 1 of 2 has ended, and this one with it: error: [Errno 28]" in ended[0][1]


def test_a_signal_to_one_process_stops_both_at_one_step_and_one_process_goes_on(tiny_checkpoint, tmp_path):
    """To the selection of a run that was not stopped."""
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    ended = end_together("stop_in_processes.py", tiny_checkpoint, stopped, "told", timeout=200)
    assert [status for status, _ in ended] == [128 + signal.SIGTERM] * 2, ended
    (step,) = (int(path.name) for path in (stopped / "proxy" / "checkpoints").iterdir())
    assert stop_in_processes.STOPS_AT + 1 <= step < 9
    config = stop_in_processes.config_of(str(tiny_checkpoint))
    config.mesh.tensor = 2  # this process has eight devices
    with quickly_compiled():
        for workdir in (stopped, whole):
            run_pipeline(config, workdir)
    continued, unbroken = (load_trajectories(workdir / "trajectories.zarr") for workdir in (stopped, whole))
    assert continued.steps.tolist() == unbroken.steps.tolist() == [3, 6, 9]
    np.testing.assert_allclose(continued.losses, unbroken.losses, atol=1e-4)
    chosen = [np.load(workdir / "selection" / "s2l" / "indices.npy").tolist() for workdir in (stopped, whole)]
    assert chosen[0] == chosen[1]
