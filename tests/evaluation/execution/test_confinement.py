"""What confines a program, piece by piece."""

import errno
import os
import pathlib
import sys

import pytest

from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution.programs import ProgramPool
from s2l_jax.evaluation.grading.grader import Grader
from s2l_jax.evaluation.sandbox import confine, landlock, scratch, seccomp


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
        (9, 222),
        (202, 98),
        (231, 94),
        (436, 436),
        (439, 439),
    ):
        assert _run_filter(machine, number(on_x86, on_arm)) == allow
    # socket connect ptrace mount execve unshare setns chroot bpf keyctl init_module setuid truncate
    # utimensat fallocate process_vm_writev memfd_create unlinkat renameat linkat symlinkat fchmodat
    for on_x86, on_arm in (
        (41, 198), (42, 203), (101, 117), (165, 40), (59, 221), (272, 97), (308, 268), (161, 51), (321, 280),
        (250, 219), (175, 105), (105, 146), (76, 45), (280, 88), (285, 47), (311, 271), (319, 279), (263, 35),
        (264, 38), (265, 37), (266, 36), (268, 53),
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
    for arguments in ((0, 0, 0x400000),) if machine == "aarch64" else ((0, 0, 0x400000), (0, 0x400000)):
        opening = number(257, 56) if len(arguments) == 3 else 2
        assert _run_filter(machine, opening, (0, 0, 0)) == allow
        assert _run_filter(machine, opening, (*arguments[:-1], 0o102)) == allow
        assert _run_filter(machine, opening, arguments) == refuse  # O_TMPFILE: a file without a name
    assert _run_filter(machine, number(72, 25), (0, 3)) == allow
    assert _run_filter(machine, number(72, 25), (0, 8)) == refuse  # F_SETOWN: signals to others
    assert _run_filter(machine, number(16, 29), (0, 0x5412)) == refuse  # TIOCSTI: typing into a terminal
    assert _run_filter(machine, number(157, 167), (4,)) == refuse
    assert _run_filter(machine, number(302, 261), (1,)) == refuse
    assert _run_filter(machine, 0, arch=0x40000003) == kill  # 32-bit calls have other numbers


@pytest.mark.parametrize(
    ("version", "filters", "platform", "lack"),
    [
        (0, True, "linux", r"takes Landlock of version 3 \(Linux 6\.2\), and this kernel has none"),
        (2, True, "linux", r"takes Landlock of version 3 \(Linux 6\.2\), and this kernel has version 2"),
        (3, False, "linux", "takes seccomp filters on x86_64 or aarch64"),
        (0, False, "darwin", "takes Linux, and this is darwin"),
    ],
)
def test_a_machine_that_cannot_confine_programs_says_what_it_lacks(
    monkeypatch, version, filters, platform, lack
):
    monkeypatch.setattr(landlock, "version", lambda: version)
    monkeypatch.setattr(seccomp, "supported", lambda: filters)
    monkeypatch.setattr(confine.sys, "platform", platform)
    with ProgramPool(1) as pool, pytest.raises(InputError, match=f"{lack}.*run_programs='unconfined'"):
        pool.run(["print(1)"])
    monkeypatch.setattr(confine.sys, "platform", sys.platform)


def test_what_is_unconfined_runs_on_such_a_machine_and_so_do_comparisons(monkeypatch):
    monkeypatch.setattr(landlock, "version", lambda: 0)
    with ProgramPool(1, confined=False) as pool:
        assert pool.run(["import os\nprint(os.path.isdir('/'))"])[0].stdout == "True\n"
    with Grader(1) as grader:
        assert grader.grade("math", [r"\boxed{\frac{x}{2}}"], ["0.5x"])[0].correct


def test_rights_are_the_same_on_every_kernel():
    """Those of version 3 of Landlock, all of them handled: none is left to a program by not being named."""
    assert landlock.NEEDED == 3
    assert landlock._ALL == 0x7FFF


def test_emptying_a_folder_with_anything_in_it(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    folder = scratch.Scratch(str(tmp_path))
    inside = pathlib.Path(folder.path)
    (inside / "0").mkdir()
    (inside / "0" / "0").mkdir()
    (inside / "0" / "1").write_text("x")
    (inside / "1").symlink_to(outside)
    (inside / "0" / "0" / "2").symlink_to(outside)
    os.mkfifo(inside / "fifo")
    (inside / "0" / "0").chmod(0)
    assert not folder.excess()
    assert folder.empty()
    assert os.listdir(inside) == []
    folder.close()
    assert os.listdir(tmp_path) == ["outside"]
    assert (outside / "kept").read_text() == "x"
