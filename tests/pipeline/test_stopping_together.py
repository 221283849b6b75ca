"""Two processes train; one of them fails, and both end soon with the reason, as the launcher says it."""

import pytest

from tests.support.processes import end_together


@pytest.mark.parametrize(
    ("how", "statuses", "said"),
    [
        ("full", [4, 4], "No space left on device"),
        ("diverged", [3, 3], "gradient norm"),
    ],
)
def test_both_end_with_the_reason(tiny_checkpoint, tmp_path, how, statuses, said):
    ended = end_together("stop_in_processes.py", tiny_checkpoint, tmp_path, how, timeout=200)
    assert [status for status, _ in ended] == statuses, ended
    assert all(said in output for _, output in ended), ended
    if how == "full":
        assert "process 1 of 2 failed, so this one ends: error: [Errno 28]" in ended[0][1]
