"""The layers that contain a program, each by itself."""

import errno
import os

import pytest

from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution import workers
from s2l_jax.evaluation.execution.programs import ProgramPool
from s2l_jax.evaluation.sandbox import landlock, scratch, seccomp


def _run_filter(
    machine: str, number: int, arguments: tuple[int, ...] = (), pid: int = 7, arch: int = 0
) -> int:
    """What a filter of the kernel's virtual machine returns for a call."""
    data = {0: number, 4: arch or seccomp._AUDIT_ARCH[machine]}
    data |= {16 + 8 * i: value for i, value in enumerate((*arguments, 0, 0, 0, 0, 0, 0)[:6])}
    code, place, value = seccomp._filter(machine, pid), 0, 0
    tests = {0x15: int.__eq__, 0x25: int.__gt__, 0x35: int.__ge__, 0x45: lambda a, b: a & b != 0}
    while True:
        operation, if_true, if_false, operand = code[place]
        if operation == 0x06:
            return operand
        if operation == 0x20:
            value = data[operand]
        else:
            place += if_true if tests[operation](value, operand) else if_false
        place += 1


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_on_both_architectures(machine):
    allow, refuse, missing, kill = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
    x86 = machine == "x86_64"

    def number(on_x86: int, on_arm: int) -> int:
        return on_x86 if x86 else on_arm

    for on_x86, on_arm in (
        (0, 63),
        (1, 64),
        (257, 56),
        (9, 222),
        (202, 98),
        (231, 94),
        (436, 436),
        (439, 439),
    ):
        assert _run_filter(machine, number(on_x86, on_arm)) == allow
    # socket connect ptrace mount execve unshare setns chroot bpf keyctl init_module setuid
    for on_x86, on_arm in (
        (41, 198), (42, 203), (101, 117), (165, 40), (59, 221), (272, 97), (308, 268), (161, 51), (321, 280),
        (250, 219), (175, 105), (105, 146),
    ):  # fmt: skip
        assert _run_filter(machine, number(on_x86, on_arm)) == refuse
    for shared in (
        425,
        434,
        435,
        442,
        444,
        0x40000000 + 41,
    ):  # io_uring, pidfd_open, clone3, ..., x32's socket
        assert _run_filter(machine, shared) == missing
    thread = 0x3D0F00
    assert _run_filter(machine, number(56, 220), (thread,)) == allow
    assert _run_filter(machine, number(56, 220), (17,)) == refuse
    for call in (number(62, 129), number(234, 131)):
        assert _run_filter(machine, call, (7,)) == allow
        assert _run_filter(machine, call, (1,)) == refuse
        assert _run_filter(machine, call, (2**32 - 1,)) == refuse
    assert _run_filter(machine, number(72, 25), (0, 3)) == allow
    assert _run_filter(machine, number(72, 25), (0, 8)) == refuse  # F_SETOWN: signals to others
    assert _run_filter(machine, number(16, 29), (0, 0x5412)) == refuse  # TIOCSTI: typing into a terminal
    assert _run_filter(machine, number(157, 167), (4,)) == refuse
    assert _run_filter(machine, number(302, 261), (1,)) == refuse
    assert _run_filter(machine, 0, arch=0x40000003) == kill  # 32-bit calls have other numbers


def test_a_machine_without_isolation_is_refused(monkeypatch):
    monkeypatch.setattr(workers, "_modes", lambda layers: [""])
    monkeypatch.setattr(workers, "_sufficient", lambda layers: False)
    monkeypatch.setattr(workers, "_working", {})
    with ProgramPool(1) as pool, pytest.raises(InputError, match=r"evaluation\.run_programs=False"):
        pool.run(["print(1)"])


@pytest.mark.parametrize(
    ("layers", "enough"),
    [
        (["namespaces"], True),
        (["landlock", "seccomp"], True),
        (["landlock"], False),
        (["seccomp"], False),
        ([], False),
    ],
)
def test_which_layers_are_enough(layers, enough):
    assert workers._sufficient(layers) == enough


def test_landlock_version_is_a_number():
    assert 0 <= landlock.version() < 1000


def test_wiping_a_folder_with_anything_in_it(tmp_path):
    folder = tmp_path / "f"
    scratch.make(str(folder))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (folder / "0").mkdir()
    (folder / "0" / "0").mkdir()
    (folder / "0" / "1").write_text("x")
    (folder / "1").symlink_to(outside)
    (folder / "0" / "0" / "2").symlink_to(outside)
    os.mkfifo(folder / "fifo")
    (folder / "0" / "0").chmod(0)
    scratch.wipe(str(folder))
    assert not folder.exists()
    assert (outside / "kept").read_text() == "x"
