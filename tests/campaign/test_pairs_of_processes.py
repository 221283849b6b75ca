"""Two commands on one workdir: one has it, the other is told so, and what is made is what one alone makes."""

import signal
import time

import pytest

from tests.support.launched import Commands, leftovers, made

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def commands(tiny_checkpoint, tmp_path_factory):
    commands = Commands(tmp_path_factory.mktemp("pairs"), tiny_checkpoint)
    yield commands
    commands.close()


@pytest.fixture(scope="module")
def alone(commands):
    assert commands.run(commands.folder / "alone")[0] == 0
    return made(commands.folder / "alone")


@pytest.mark.parametrize("apart", [0.0, 0.5, 2.0, 4.0, 6.0, 9.0])
@pytest.mark.parametrize("changed", ["", "--config.seed=5", "--stages=report"])
def test_together(apart, changed, commands, alone):
    workdir = commands.folder / f"pair-{len(list(commands.folder.iterdir()))}"
    first = commands.start(workdir)
    time.sleep(apart)
    second = commands.start(workdir, *filter(None, [changed]))
    ended = [commands.end(process) for process in (first, second)]
    for status, said in ended:
        assert status in (0, 2), said
        if status == 2:
            assert f"{workdir} is in use: process" in said or "was made with other settings" in said
    assert 0 in [status for status, _ in ended]
    if changed and ended[0][0] == 2:  # the second was there first
        return
    assert commands.run(workdir)[0] == 0
    assert made(workdir) == alone
    assert not leftovers(workdir)


@pytest.mark.parametrize("after", [1.0, 5.0, 8.0])
def test_one_after_another_that_was_killed(after, commands, alone):
    workdir = commands.folder / f"killed-{after}"
    first = commands.start(workdir)
    time.sleep(after)
    first.send_signal(signal.SIGKILL)
    status, said = commands.run(workdir)  # the first is not waited for: a zombie has nothing
    assert status == 0, said
    assert made(workdir) == alone
    assert not leftovers(workdir)


def test_one_after_another(commands, alone):
    workdir = commands.folder / "sequence"
    for _ in range(3):
        assert commands.run(workdir)[0] == 0
        assert made(workdir) == alone
