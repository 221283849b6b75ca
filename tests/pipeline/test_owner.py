"""A workdir has one owner at a time, and a dead one keeps nothing; here and on an object store."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from s2l_jax import artifacts
from s2l_jax.errors import InputError
from s2l_jax.pipeline import owner
from s2l_jax.pipeline.owner import FILE, owning
from tests.support import fake_object_store
from tests.support.paths import REPOSITORY

HOLDER = """
import sys, time
from etils import epath
from s2l_jax.pipeline.owner import owning
with owning(epath.Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def store():
    pytest.importorskip("gcsfs")
    with fake_object_store.start() as store:
        yield store


@pytest.fixture(params=["local", "remote"])
def workdir(request, tmp_path):
    if request.param == "local":
        return epath.Path(tmp_path)
    request.getfixturevalue("store")
    return epath.Path(f"gs://bucket/{tmp_path.name}")


@pytest.fixture
def start():
    """Start another process that has a workdir until its standard input ends."""
    running = []

    def begin(workdir):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(workdir)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def quick(monkeypatch):
    """An owner elsewhere is given up after less than a second."""
    monkeypatch.setattr(owner, "BEAT", 0.05)
    monkeypatch.setattr(owner, "SILENCE", 0.6)
    monkeypatch.setattr(owner, "_LOOK", 0.02)


def move_elsewhere(workdir):
    """Have the owner's file say that it was written on another machine."""
    said = json.loads((workdir / FILE).read_text()) | {"host": "elsewhere", "machine": "elsewhere 1"}
    (workdir / FILE).write_text(json.dumps(said))


def test_one_at_a_time_and_a_killed_process_is_followed_at_once(workdir, start):
    holder = start(workdir)
    assert holder.stdout.readline() == "mine\n"
    said = f"is in use: process {holder.pid} on .* since 20.*kill {holder.pid}"
    with pytest.raises(InputError, match=said), owning(workdir):
        pass
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie still
    assert (workdir / FILE).exists()
    with owning(workdir):
        assert json.loads((workdir / FILE).read_text())["pid"] == os.getpid()
        with pytest.raises(InputError, match=f"is in use: process {os.getpid()} on"), owning(workdir):
            pass
    assert not (workdir / FILE).exists()


def test_a_process_id_that_was_given_anew_is_no_owner(workdir):
    with owning(workdir):
        said = json.loads((workdir / FILE).read_text())
    (workdir / FILE).write_text(json.dumps(said | {"started": "1"}))
    with owning(workdir):
        pass


@pytest.mark.parametrize("content", [None, "", "{", "[3]", '{"pid": "x"}'])
def test_an_owner_elsewhere_is_followed_after_a_silence(workdir, quick, content, capsys):
    with owning(workdir):
        said = (workdir / FILE).read_text()
    (workdir / FILE).write_text(said if content is None else content)
    if content is None:
        move_elsewhere(workdir)
    with owning(workdir):
        assert json.loads((workdir / FILE).read_text())["pid"] == os.getpid()
    assert "is taken over if there is no sign of life" in capsys.readouterr().err


def test_an_owner_elsewhere_that_lives_is_refused(workdir, quick):
    stop = threading.Event()
    with owning(workdir):
        said = json.loads((workdir / FILE).read_text()) | {"host": "elsewhere", "machine": "elsewhere 1"}

    def live():
        while not stop.wait(0.1):
            artifacts.write_text(
                workdir / FILE, json.dumps(said | {"alive_at": time.time()})
            )  # whole, as owners do

    (workdir / FILE).write_text(json.dumps(said))
    living = threading.Thread(target=live)
    living.start()
    try:
        with pytest.raises(InputError, match=r"in use: process \d+ on elsewhere"), owning(workdir):
            pass
    finally:
        stop.set()
        living.join()


def test_an_owner_that_was_taken_over_ends(workdir, quick):
    def work():
        with owning(workdir):
            move_elsewhere(workdir)
            time.sleep(30)  # interrupted

    with pytest.raises(InputError, match=r"no longer this run's \(process \d+ on elsewhere has it now\)"):
        work()
    assert json.loads((workdir / FILE).read_text())["host"] == "elsewhere"


def test_a_write_that_was_done_and_answered_with_no_is_its_own(workdir, quick, monkeypatch):
    """As where an object store's answer is lost: the write is repeated, and finds what it wrote."""
    write, denied = owner._Claim._write, []

    def ambiguous(claim, before):
        written = write(claim, before)
        denied.append(written)
        return b"" if len(denied) in (1, 3) else written

    monkeypatch.setattr(owner._Claim, "_write", ambiguous)
    with owning(workdir):
        while len(denied) < 6:
            time.sleep(0.05)
    assert not (workdir / FILE).exists()


def test_of_many_that_start_together_one_wins(workdir):
    won, lost, gate = [], [], threading.Barrier(6)

    def go():
        gate.wait()
        try:
            with owning(workdir):
                won.append(1)
                done.wait(60)
        except InputError as error:
            lost.append(str(error))
        finally:
            if len(lost) == 5:
                done.set()

    done = threading.Event()
    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 5)


def test_what_killed_processes_left_half_written_is_removed(tmp_path):
    left = [".results.json.0123abcd.tmp", "target/a/hf/.model.safetensors.ffffffff.tmp", ".a\nb.01234567.tmp"]
    kept = ["results.json", ".tmp", "notes.tmp", "target/a/.mine.tmp", "target/a/x.0123abcd.tmp"]
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    artifacts.remove_leftovers(tmp_path)
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()) == sorted(kept)


def test_a_folder_in_which_nothing_was_made_goes_again(tmp_path):
    with owning(epath.Path(tmp_path / "new")):
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with owning(epath.Path(tmp_path / "old")):
        pass
    assert (tmp_path / "old").exists()


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), owning(epath.Path(tmp_path / "file" / "run")):
        pass
