"""Signals end a run in order: at once, or after the step under way."""

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from s2l_jax import stopping
from tests.support.paths import REPOSITORY

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def listening(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # A shell has its background jobs ignore the first, and nohup the second.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stopping.listen()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_at_once(number):
    with pytest.raises(stopping.Stopped) as stopped:
        os.kill(os.getpid(), number)
    assert stopped.value.number == number
    assert isinstance(stopped.value, KeyboardInterrupt)


@pytest.mark.parametrize("number", SIGNALS)
def test_after_the_step(number, capsys):
    done = []

    def work():
        with stopping.after_this_step():
            assert not stopping.told()
            os.kill(os.getpid(), number)
            assert stopping.told()
            done.append("checkpoint")

    with pytest.raises(stopping.Stopped) as stopped:
        work()
    assert (stopped.value.number, done) == (number, ["checkpoint"])
    assert "a second signal ends it at once" in capsys.readouterr().err
    assert not stopping.told()


def test_a_second_signal_does_not_wait():
    def work():
        with stopping.after_this_step():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("went on")

    with pytest.raises(stopping.Stopped):
        work()
    with stopping.after_this_step():  # nothing is left of it
        assert not stopping.told()


def test_a_signal_that_another_process_had_first_is_no_second_one():
    """A cluster that ends a job signals all of its processes, some earlier than others."""
    done = []

    def work(*signals):
        with stopping.after_this_step():
            stopping.take(signal.SIGTERM)
            for number in signals:
                os.kill(os.getpid(), number)
            done.append("checkpoint")

    with pytest.raises(stopping.Stopped):
        work(signal.SIGTERM)
    assert done == ["checkpoint"]
    with pytest.raises(stopping.Stopped):
        work(signal.SIGTERM, signal.SIGINT)
    assert done == ["checkpoint"]


def test_what_takes_long_is_not_waited_for():
    def work():
        with stopping.after_this_step(), stopping.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("went on")

    with pytest.raises(stopping.Stopped):
        work()


def test_a_signal_where_nothing_can_be_raised_comes_again():
    def callback(phase, info):
        gc.callbacks.remove(callback)
        os.kill(os.getpid(), signal.SIGTERM)

    def work():
        gc.callbacks.append(callback)
        gc.collect()
        time.sleep(60)

    with pytest.raises(stopping.Stopped):
        work()


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    stopping.listen()
    os.kill(os.getpid(), signal.SIGHUP)


def test_afterwards_signals_end_what_remains():
    ours = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stopping.leave()
    assert ours is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_ctrl_c_while_flags_are_read_ends_without_a_traceback(tmp_path):
    (tmp_path / "mine.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "launch.py", f"--config={tmp_path}/mine.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_the_status_of_the_command(number, status):
    program = (
        "import os, signal, sys, launch\n"
        "def main(argv):\n"
        "    launch.stopping.listen()\n"
        f"    os.kill(os.getpid(), signal.{number})\n"
        "launch.main = main\n"
        "sys.exit(launch._guarded([]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert done.stderr == "interrupted; the same command goes on from here\n"
