"""Runs ended at random moments, by any signal, and started again: they end as an unbroken one."""

import random
import signal
import time

import pytest

from tests.support.launched import Commands, leftovers, made

pytestmark = pytest.mark.slow

STATUS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def commands(tiny_checkpoint, tmp_path_factory):
    commands = Commands(tmp_path_factory.mktemp("kills"), tiny_checkpoint)
    yield commands
    commands.close()


@pytest.fixture(scope="module")
def unbroken(commands):
    """What an unbroken run makes, and how long one takes whose programs are compiled, in seconds."""
    workdir = commands.folder / "unbroken"
    assert commands.run(workdir)[0] == 0
    start = time.monotonic()
    assert commands.run(commands.folder / "again")[0] == 0
    assert made(commands.folder / "again") == made(workdir)
    return made(workdir), time.monotonic() - start


@pytest.mark.parametrize("seed", range(4))
def test_random_kills(seed, commands, unbroken):
    expected, seconds = unbroken
    draw, workdir = random.Random(seed), commands.folder / f"killed-{seed}"
    for _ in range(5):
        process = commands.start(workdir)
        number = draw.choice(list(STATUS))
        time.sleep(draw.uniform(0.1, 0.6) * seconds)
        process.send_signal(number)
        status, said = commands.end(process)
        if status == 0:  # it had finished
            break
        # Before it listens, a signal ends it as it ends any program.
        assert status in (STATUS[number], -number), said
        if status > 0:
            assert said.endswith("interrupted; the same command goes on from here\n")
    status, said = commands.run(workdir)
    assert status == 0, said
    assert made(workdir) == expected
    assert not leftovers(workdir)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_while_a_model_trains_leaves_a_checkpoint(number, status, commands, unbroken):
    workdir = commands.folder / f"signal-{number}"
    process = commands.start(workdir, "--config.proxy.train.checkpoint_every=1000")
    while not (workdir / "proxy" / "tensorboard").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    ended, said = commands.end(process)
    assert ended == status, said
    if "ending after this step, with a checkpoint" in said:
        assert [file.name for file in (workdir / "proxy" / "checkpoints").iterdir()]
    assert commands.run(workdir)[0] == 0
    assert made(workdir) == unbroken[0]
