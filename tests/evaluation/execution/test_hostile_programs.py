"""Hostile programs: ended by a limit or refused, and nothing is left of them for the next one."""

import errno
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from s2l_jax.evaluation.execution.programs import ProgramPool
from tests.support.paths import REPOSITORY
from tests.support.sandbox import children, confined_pool, run_one

pytestmark = pytest.mark.long


def _descendants(pid: int) -> set[int]:
    """Processes that come from this one, as far as their parents live."""
    found, new = set(), {pid}
    while new:
        new = {child for parent in new for child in children(parent)} - found
        found |= new
    return found


def test_an_endless_loop(each_pool):
    result = run_one(each_pool, "print('begun', flush=True)\nwhile True: pass", timeout=0.6)
    assert (result.ok, result.error, result.stdout) == (False, "ran longer than 0.6 s", "begun\n")
    assert run_one(each_pool, "import time\ntime.sleep(1000)", timeout=0.1).error == "ran longer than 0.1 s"


def test_signals_that_are_ignored_do_not_help(each_pool):
    code = """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
"""
    assert run_one(each_pool, code, timeout=0.3).error == "ran longer than 0.3 s"


def test_a_fork_bomb(pool):
    code = "import os\nwhile True:\n    try: os.fork()\n    except OSError as error: last = error"
    result = run_one(pool, code, timeout=0.5)
    assert not result.ok


def test_new_processes_are_refused(pool):
    for code in (
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import os\nos.execv('/proc/self/exe', ['python'])",
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    ):
        assert "Error" in run_one(pool, code).error
    result = run_one(pool, "import os\nprint(os.system('true'))")
    assert result.stdout != "0\n"


def test_a_memory_bomb(each_pool):
    result = run_one(each_pool, "kept = []\nwhile True: kept.append('x' * 10**7)")
    assert (result.ok, result.error) == (False, "MemoryError")
    assert not run_one(each_pool, "import numpy\nnumpy.ones(10**10)").ok
    assert not run_one(each_pool, "print(len(list(range(10**12))))").ok
    assert not run_one(each_pool, "10 ** 10 ** 10", timeout=0.2).ok


def test_a_gigabyte_of_output(each_pool):
    for stream in (1, 2):
        code = f"import os\nblock = b'x' * 2**20\nfor _ in range(1024): os.write({stream}, block)"
        result = run_one(each_pool, code)
        assert len(result.stdout) <= 2**20
        assert len(result.error) < 3000
        if stream == 1:
            assert (result.ok, result.error) == (False, "printed more than 1048576 bytes")


def test_a_gigabyte_on_the_disk(each_pool):
    code = "with open('big', 'wb') as file:\n    for _ in range(1024): file.write(b'x' * 2**20)"
    assert not run_one(each_pool, code).ok


def test_a_thousand_files_in_folders_nested_beyond_any_path(each_pool):
    code = (  # 6,000 characters, and a path has 4,096
        "import os\nfor n in range(120):\n    os.mkdir('d' * 50)\n    os.chdir('d' * 50)\n"
        "    for k in range(8): open(f'f{k}', 'w').close()"
    )
    assert run_one(each_pool, code).ok
    code = "import os\nos.makedirs('0/1')\nos.symlink('/', '0/l')\nos.chmod('0/1', 0)\nos.chmod('0', 0)"
    run_one(each_pool, code)


def test_open_files(each_pool):
    result = run_one(each_pool, "kept = [open('/dev/null') for _ in range(1000)]")
    assert "Too many open files" in result.error


def test_the_environment_cannot_be_read(pool, monkeypatch):
    monkeypatch.setenv("S2L_TEST_SECRET", "hunter2")
    with confined_pool() as pool:  # started with the secret in this environment
        result = run_one(
            pool,
            "import glob, os\nprint(dict(os.environ))\n"
            "for name in ['/proc/self/environ', *glob.glob('/proc/[0-9]*/[ec]*')]:\n"
            "    try: print(open(name, 'rb').read())\n"
            "    except OSError: print('refused')",
        )
    assert result.ok
    assert "PYTHONHASHSEED" in result.stdout
    assert "hunter2" not in result.stdout
    assert "b'" not in result.stdout


def test_files_of_the_machine_cannot_be_read(pool):
    home = pathlib.Path.home()
    names = ["/etc/passwd", "/etc/shadow", "/etc/hostname", "/proc/1/status", "/root/.bashrc", str(home)]
    names += [str(home / ".ssh"), __file__, str(pathlib.Path(__file__).parent), "/sys/kernel", "/var/log"]
    code = f"""
import os
for name in {names}:
    try:
        print(name, os.listdir(name) if os.path.isdir(name) else open(name).read())
    except OSError:
        pass
"""
    result = run_one(pool, code)
    assert result.ok
    assert result.stdout == ""


def test_nothing_is_written_outside(pool, tmp_path):
    places = [
        str(pathlib.Path.home()),
        str(tmp_path),
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        "/",
        sys.prefix,
        "/usr",
    ]
    places += [os.path.dirname(os.__file__), os.getcwd()]
    code = f"""
import os
for place in {places}:
    for act in (lambda p: open(p, 'w').close(), os.mkdir, lambda p: os.symlink('/', p)):
        try:
            act(os.path.join(place, 's2l_was_here'))
            print('wrote', place)
        except OSError:
            pass
for path in (os.__file__, {sys.executable!r}):
    for act in (os.remove, lambda p: open(p, 'a'), lambda p: os.truncate(p, 0), lambda p: os.chmod(p, 0)):
        try:
            act(path)
            print('changed', path)
        except OSError:
            pass
"""
    result = run_one(pool, code)
    assert (result.ok, result.stdout) == (True, "")
    assert not [place for place in places if os.path.lexists(os.path.join(place, "s2l_was_here"))]


def test_no_network(pool):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = (
            f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2).send(b'x')"
        )
        assert not run_one(pool, code).ok
        with pytest.raises(TimeoutError):
            server.accept()
    code = "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))"
    assert not run_one(pool, code).ok


def test_other_processes_cannot_be_killed(pool):
    victim = subprocess.Popen(["sleep", "60"])
    try:
        code = f"""
import os
for pid in (os.getppid(), {victim.pid}, {os.getpid()}):
    for signal in (9, 15, 19):
        try: os.kill(pid, signal)
        except OSError: pass
print('done')
"""
        result = run_one(pool, code)
        assert result.stdout == "done\n"
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_deep_recursion(each_pool):
    assert "RecursionError" in run_one(each_pool, "def f(): return f()\nf()").error
    code = "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1) + 1\nf(0)"
    assert not run_one(each_pool, code, timeout=0.4).ok
    code = (
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __add__(s, o): return s + o\nA() + A()"
    )
    assert not run_one(each_pool, code, timeout=0.4).ok


def test_a_threads_bomb(pool):
    code = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()"
    result = run_one(pool, code)
    assert (result.ok, result.error) == (False, "RuntimeError: can't start new thread")


_DAEMON = """
import os, time
try:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True: time.sleep(1)
        os._exit(0)
except OSError: pass
print('gone')
"""


def test_a_daemon_does_not_outlive_its_parent(each_pool):
    run_one(each_pool, "print(1)")
    before = _descendants(os.getpid())
    result = run_one(each_pool, _DAEMON)
    assert (result.ok, result.stdout) == (True, "gone\n")
    assert not _descendants(os.getpid()) - before


def test_a_program_that_kills_its_server_loses_only_its_own_result():
    with ProgramPool(1, confined=False) as pool:
        result = run_one(pool, "import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(5)")
        assert not result.ok
        assert "its process died" in result.error


def test_servers_end_with_the_process_that_started_them():
    confined_pool().close()
    code = (
        "from s2l_jax.evaluation.execution.programs import ProgramPool\nimport os\n"
        "pool = ProgramPool(1)\npool.run(['1'])\n"
        "print(*(n for n in os.listdir('/proc') if n.isdigit() and f' {os.getpid()} ' in "
        "open(f'/proc/{n}/stat').read().rsplit(')', 1)[1][:20]), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    root = REPOSITORY
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    servers = [int(pid) for pid in done.stdout.split()]
    assert servers
    for pid in servers:
        for _ in range(100):
            if not os.path.exists(f"/proc/{pid}"):
                break
            subprocess.run(["sleep", "0.1"], check=True)
        assert not os.path.exists(f"/proc/{pid}")


def test_system_calls_that_no_calculation_needs(pool):
    numbers = {
        "x86_64": (101, 165, 272, 250, 29, 310, 323, 298, 311, 319, 76, 280, 285, 87, 82),
        "aarch64": (117, 40, 97, 219, 194, 270, 282, 241, 271, 279, 45, 88, 47, 35, 38),
    }
    calls = numbers[
        os.uname().machine
    ]  # ptrace mount unshare keyctl shmget process_vm_readv userfaultfd perf_event_open process_vm_writev
    # memfd_create truncate utimensat fallocate unlink(at) rename(at)
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number in {calls}:
    ctypes.set_errno(0)
    print(libc.syscall(number, 0, 0, 0, 0, 0), ctypes.get_errno())
print(libc.syscall(425, 0, 0), ctypes.get_errno())
"""
    lines = run_one(pool, code).stdout.splitlines()
    assert lines == [f"-1 {errno.EPERM}"] * len(calls) + [f"-1 {errno.ENOSYS}"]  # 425: io_uring_setup
