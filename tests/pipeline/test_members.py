"""Parts of a run in processes of their own: which they are, in what order, and how they end."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from s2l_jax import stopping
from s2l_jax.pipeline import members
from s2l_jax.pipeline.members import models_of, proxies_of, run_members
from s2l_jax.pipeline.plan import STAGES
from s2l_jax.pipeline.run import plan_pipeline
from s2l_jax.training.run import Run
from tests.support.launched import Commands, made
from tests.support.paths import REPOSITORY
from tests.support.pipeline_kills import small_config

# Notes how it was called, and fails where it makes a part of FAILS.
COMMAND = """
import json, os, sys
flags = dict(flag.lstrip("-").split("=") for flag in sys.argv[2:])
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(flags) + "\\n")
print("I make", flags.get("parts"))
sys.exit(3 if os.environ.get("FAILS", "none") in flags.get("parts", "") else 0)
"""


@pytest.fixture
def config():
    config = small_config("none")
    config.seeds = (0, 1)
    return config


@pytest.fixture
def launch(tmp_path, config):
    (tmp_path / "command.py").write_text(COMMAND)
    command = [sys.executable, str(tmp_path / "command.py"), str(tmp_path / "calls")]

    def launch(**options):
        status = run_members(command, config, tmp_path / "run", **{"jobs": 2} | options)
        calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
        return status, [(call["stages"], call.get("parts", "")) for call in calls]

    return launch


def test_each_target_is_a_member_with_its_evaluations(config, tmp_path):
    plan = plan_pipeline(config, tmp_path)
    names = {"s2l", "s2l-seed1", "random", "random-seed1", "untuned"}
    assert models_of(plan) == {name: (f"target/{name}", f"evaluation/{name}") for name in names}
    assert proxies_of(plan) == {"proxy": ("proxy",)}
    config.proxy.per_seed = True
    assert proxies_of(plan_pipeline(config, tmp_path)) == {
        "proxy": ("proxy",),
        "seed_1/proxy": ("seed_1/proxy",),
    }
    assert models_of(plan_pipeline(config, tmp_path, stages=["selection"])) == {}


def test_a_sitting_makes_its_parts_and_what_is_under_them(config, tmp_path):
    run = Run(config, tmp_path, None, parts=("target/s2l", "evaluation/s2l"))
    assert run.makes("target/s2l")
    assert run.makes("evaluation/s2l/synthetic")
    assert not run.makes("target/s2l-seed1")
    assert not run.makes("proxy")
    assert Run(config, tmp_path, None).makes("proxy")


def test_what_is_shared_comes_first_and_the_whole_run_last(launch, capfd):
    status, calls = launch()
    assert status == 0
    assert calls[0] == ("pool,proxy,trajectories,selection", "")
    assert calls[-1] == (",".join(STAGES), "")
    assert calls[1] == ("pool,target,evaluation", "pool")  # as tokens of all that the members train
    assert {parts for stages, parts in calls[2:-1] if stages == "target,evaluation"} == {
        f"target/{name},evaluation/{name}"
        for name in ("s2l", "s2l-seed1", "random", "random-seed1", "untuned")
    }
    assert "s2l-seed1 | I make target/s2l-seed1,evaluation/s2l-seed1\n" in capfd.readouterr().err


def test_several_proxies_are_trained_apart(launch, config):
    config.proxy.per_seed = True
    calls = launch(stages=["proxy", "traj"])[1]
    assert calls[0] == ("pool,proxy,trajectories", "pool")
    assert sorted(calls[1:3]) == [("proxy,trajectories", "proxy"), ("proxy,trajectories", "seed_1/proxy")]
    assert calls[3] == ("proxy,trajectories", "")


def test_a_member_that_fails_is_named_and_the_others_go_on(launch, monkeypatch, capfd):
    monkeypatch.setenv("FAILS", "target/s2l-seed1,")
    status, calls = launch()
    assert status == 3
    assert len(calls) == 1 + 1 + 5 + 1
    assert calls[-1] == ("report", "")  # what failed is not tried again at once
    said = capfd.readouterr().err
    assert "s2l-seed1 failed with status 3" in said
    assert said.count("failed") == 1


def test_a_shared_part_that_fails_ends_it(launch, monkeypatch):
    monkeypatch.setenv("FAILS", "")  # the first
    assert launch() == (3, [("pool,proxy,trajectories,selection", "")])


def test_a_signal_is_passed_on_and_waited_for(tmp_path, monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    saves = (
        "import signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(0.2); open(sys.argv[1], 'w').close(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    ready = threading.Semaphore(0)
    monkeypatch.setattr(members, "tell", lambda line: ready.release())

    def end():
        for _ in range(2):
            ready.acquire(timeout=30)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping.listen()
    try:
        threading.Thread(target=end, daemon=True).start()
        commands = {name: [sys.executable, "-c", saves, str(tmp_path / name)] for name in "abc"}
        with pytest.raises(stopping.Stopped):
            members._Processes().run_all(commands, 2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert {file.name for file in tmp_path.iterdir()} == {"a", "b"}  # c was not begun


def test_a_member_ends_with_what_started_it():
    code = "from s2l_jax.stopping import end_with_parent as e; e(); import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=REPOSITORY)
    process.stdin.close()
    assert process.wait(timeout=60) == 128 + signal.SIGHUP


def test_what_is_shared_is_not_made_on_when_the_command_was_killed():
    made_by = (
        "import os, time\n"
        "from s2l_jax import stopping\n"
        "assert os.environ.pop(stopping.MEMBER)\n"
        "stopping.end_with_parent()\n"
        "print('begun', flush=True)\n"
        "time.sleep(600)\n"
    )
    command = (
        "import sys\n"
        "from s2l_jax.pipeline import members\n"
        f"members._run_alone([sys.executable, '-c', {made_by!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert process.stdout.readline() == b"begun\n"
    process.kill()
    assert process.communicate(timeout=60) == (b"", None)  # the output is closed by both


@pytest.mark.long
def test_members_make_what_one_process_makes(tmp_path, tiny_checkpoint):
    commands = Commands(tmp_path, tiny_checkpoint)
    try:
        assert commands.run(tmp_path / "one", "--config.seeds=0,1")[0] == 0
        status, said = commands.run(tmp_path / "several", "--config.seeds=0,1", "--jobs=2")
    finally:
        commands.close()
    assert status == 0
    assert "s2l-seed1 | target on s2l-seed1" in said
    assert made(tmp_path / "several") == made(tmp_path / "one")
