"""Processes of a run that were not started alike are refused, all of them, before any work."""

from s2l_jax.parallel.agreement import check_alike, said_by_all
from tests.support.processes import run_together


def test_two_processes(tmp_path):
    run_together("settings_in_processes.py", tmp_path / "run", timeout=240)


def test_one_process_agrees_with_itself():
    check_alike({"seed": "0"})
    assert said_by_all("a\nb") == ["a\nb"]
