"""A process that fails or is killed ends all of its run, and each says why."""

import signal

import pytest

from tests.support.processes import end_together

pytestmark = pytest.mark.long

KILLED = "it ended without a word"
# Together they have the first and another process fail in each way.
CASES = [
    ("0", "killed", 2, -signal.SIGKILL, 4, KILLED),
    ("1", "killed", 3, -signal.SIGKILL, 4, KILLED),
    ("0", "error", 2, 1, 1, "LookupError: no such row"),
    ("1", "end", 2, 2, 2, "bad.jsonl: line 3 is not JSON"),
]


@pytest.mark.parametrize(("who", "how", "count", "own_status", "status", "reason"), CASES)
def test_all_end_with_the_reason(who, how, count, own_status, status, reason):
    ended = end_together("fail_in_processes.py", who, how, count, count=count, timeout=120)
    for rank, (got, output) in enumerate(ended):
        if rank == int(who):
            assert got == own_status, output
        else:
            assert f"process {who} of {count} has ended, and this one with it: {reason}" in output
            # JAX's service ends with process 0, and may abort the others in the moment that they say so.
            assert got == status or (how == "killed" and who == "0" and got == -signal.SIGABRT), output
