"""Hostile programs: ended by a limit or refused, and nothing is left of them for the next one."""

import ast
import concurrent.futures
import errno
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import venv

import pytest

from s2l_jax.evaluation.execution import workers
from s2l_jax.evaluation.execution.programs import ProgramPool
from s2l_jax.evaluation.sandbox import scratch
from tests.support.paths import REPOSITORY
from tests.support.sandbox import confined_pool, run_one

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def pool():
    with confined_pool() as pool:
        yield pool


@pytest.fixture(scope="module", params=[True, False], ids=["confined", "unconfined"])
def each_pool(request):
    """Limits hold whether a program is confined or not."""
    with confined_pool() if request.param else ProgramPool(1, confined=False) as pool:
        yield pool


def _descendants(pid: int) -> set[int]:
    """Processes that come from this one, as far as their parents live."""
    found, new = set(), {pid}
    while new:
        new = {child for parent in new for child in _children(parent)} - found
        found |= new
    return found


def _children(pid: int) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = pathlib.Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1]
        except (OSError, IndexError):
            continue
        if int(parent) == pid:
            found.append(int(name))
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


# What earlier sandboxes let through.


def test_files_of_the_user_are_not_changed_in_any_way(pool, tmp_path):
    """Not even by calls that take no file to be open."""
    file = tmp_path / "kept"
    file.write_text("precious")
    file.chmod(0o666)
    before = file.stat()
    code = f"""
import ctypes, os
libc, path = ctypes.CDLL(None, use_errno=True), {str(file)!r}
for act in (
    lambda: os.truncate(path, 0),
    lambda: os.utime(path, (0, 0)),
    lambda: os.open(path, os.O_WRONLY | os.O_TRUNC),
    lambda: os.open(path, os.O_RDONLY | os.O_TRUNC),
    lambda: os.chmod(path, 0),
    lambda: os.chown(path, 1, 1),
    lambda: os.setxattr(path, 'user.a', b''),
    lambda: os.remove(path),
    lambda: os.rename(path, path + '2'),
    lambda: os.link(path, 'linked'),
    lambda: os.posix_fallocate(os.open(path, os.O_RDWR), 0, 10**6),
    lambda: os.posix_fallocate(os.open('own', os.O_RDWR | os.O_CREAT), 0, 10**6),
):
    try: act()
    except OSError: continue
    print('an act was not refused')
print(libc.truncate(path.encode(), 0), libc.open(path.encode(), os.O_RDONLY))
"""
    result = run_one(pool, code)
    assert (result.stdout, result.error) == ("-1 -1\n", "")
    assert file.read_text() == "precious"
    assert (file.stat().st_mtime_ns, file.stat().st_mode) == (before.st_mtime_ns, before.st_mode)
    assert os.listdir(tmp_path) == ["kept"]


def test_the_memory_of_the_server_cannot_be_reached(pool):
    code = """
import ctypes, os
libc, parent = ctypes.CDLL(None, use_errno=True), os.getppid()
class Part(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
own = ctypes.create_string_buffer(8)
here, there = Part(ctypes.addressof(own), 8), Part(id(print), 8)
for call in (libc.process_vm_readv, libc.process_vm_writev):
    print(call(parent, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))
print(libc.ptrace(16, parent, 0, 0))
for mode in ('rb', 'r+b'):
    for name in ('mem', 'maps', 'environ', 'cmdline', 'fd/0', 'root/etc/passwd', 'oom_score_adj'):
        try: open(f'/proc/{parent}/{name}', mode)
        except OSError: continue
        print(name, mode)
"""
    assert run_one(pool, code).stdout == "-1\n-1\n-1\n"


def test_the_server_is_closed_to_its_children_even_without_confinement():
    """What `PR_SET_DUMPABLE` does; it binds every user but a root with its capabilities."""
    drop = "" if os.getuid() else "from s2l_jax.evaluation.sandbox import linux\nlinux.drop_capabilities()\n"
    code = f"import os, sys\nsys.path.append({str(REPOSITORY)!r})\nsys.path += {sys.path!r}\n{drop}"
    code += """
for pid in (os.getppid(), os.getpid()):
    try: open(f'/proc/{pid}/mem', 'r+b')
    except PermissionError as error: print(error.errno)
"""
    with ProgramPool(1, confined=False) as pool:
        assert run_one(pool, code).stdout.startswith(f"{errno.EACCES}\n")


@pytest.mark.parametrize("depth", [1, 3])
def test_a_package_in_an_odd_folder_shows_nothing_beside_it(tmp_path, monkeypatch, depth):
    """A space in a path, and `.so` in it, once opened the folder above."""
    confined_pool().close()
    project = tmp_path.joinpath(*["my project.so 1"] * depth)
    package = project / "numbers_of_mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from numbers_of_mine.more import ONE\n")
    (package / "more.py").write_text("ONE = 1\n")
    secrets = [project / ".env", project.parent / ".env", tmp_path / "my", tmp_path / "my project.so"]
    for secret in secrets:
        if not secret.exists():
            secret.write_text("hunter2")
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setitem(workers._PACKAGES, "programs", (*workers._PACKAGES["programs"], package.name))
    code = f"""
import os
from numbers_of_mine import more
print(more.ONE, open({str(package / "more.py")!r}).read())
for secret in {list(map(str, secrets))}:
    try: print(open(secret).read())
    except PermissionError: pass
"""
    with confined_pool() as pool:
        result = run_one(pool, code)
    assert (result.stdout, result.error) == ("1 ONE = 1\n\n", "")


def test_what_another_project_put_on_the_path_is_not_shown(tmp_path):
    """By a path file (.pth) of a virtual environment, as editable installs write it."""
    confined_pool().close()
    project = tmp_path / "project"
    project.mkdir()
    (project / ".env").write_text("hunter2")
    (project / "theirs.py").write_text("SECRET = 'hunter2'\n")
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    folders = [str(project), str(REPOSITORY), *(path for path in sys.path if path.endswith("-packages"))]
    (packages / "theirs.pth").write_text(
        "\n".join([*folders, f"import os; os.environ['READ'] = {str(project)!r}"])
    )
    program = f"import sys\nprint(sys.path)\nopen({str(project / '.env')!r})"
    code = (
        "import theirs\nfrom s2l_jax.evaluation.execution.programs import ProgramPool\n"
        f"with ProgramPool(1) as pool:\n    for each in pool.run([{program!r}, 'import theirs']):\n"
        "        print(each.stdout, each.error)"
    )
    command = [str(tmp_path / "venv" / "bin" / "python"), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.stderr == ""
    path, error, theirs = done.stdout.splitlines()
    assert str(tmp_path) not in path
    assert "PermissionError" in error
    assert "ModuleNotFoundError" in theirs


def test_memory_is_limited_however_it_is_asked_for(pool):
    for code in (
        "import mmap\nkept = [mmap.mmap(-1, 2**24) for _ in range(200)]",
        "import mmap, os\nfile = open('f', 'w+b')\nfile.truncate(2**24)\n"
        "kept = [mmap.mmap(file.fileno(), 2**24) for _ in range(200)]",
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.malloc.restype = ctypes.c_void_p\n"
        "for _ in range(200): assert libc.malloc(2**24)",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    ):
        assert "Error" in run_one(pool, code).error, code


def test_a_file_larger_than_allowed(each_pool):
    for code in (
        "file = open('f', 'wb')\nfor _ in range(17): file.write(b'x' * 2**20)\nfile.close()",
        "open('f', 'wb').truncate(2**24 + 1)",
        "import os\nos.pwrite(os.open('f', os.O_CREAT | os.O_WRONLY), b'x', 2**24)",
    ):
        assert "OSError: [Errno 27] File too large" in run_one(each_pool, code).error
    assert run_one(each_pool, "open('f', 'wb').write(b'x' * 2**24)").ok


def test_many_files_that_are_too_large_together(each_pool):
    code = "for n in range(6): open(str(n), 'wb').write(b'x' * 2**24)"
    assert run_one(each_pool, code).error == "wrote more than 67108864 bytes to files"
    code = "for n in range(6): open(str(n), 'wb').truncate(2**24)"
    assert run_one(each_pool, code).error == "wrote more than 67108864 bytes to files"


def test_files_that_nobody_would_find_cannot_be_made(pool):
    for code in (
        "import os\nos.open('.', os.O_TMPFILE | os.O_RDWR)",
        "import os\nopen('f', 'w')\nos.remove('f')",
        "import os\nos.memfd_create('f')",
        "open('/dev/shm/f', 'w')",
    ):
        assert "PermissionError" in run_one(pool, code).error
    hidden = "import os\nos.mkdir('d', 0o300)\nfor n in range(5): open(f'd/{n}', 'wb').write(b'x' * 2**24)"
    assert run_one(pool, hidden).error == "wrote more than 67108864 bytes to files"


def test_a_million_files(each_pool):
    result = run_one(each_pool, "for n in range(10**6): open(str(n), 'w').close()")
    assert result.error == "made more than 4096 files"
    result = run_one(each_pool, "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')")
    assert result.error == "made more than 256 folders within each other"


def test_a_folder_that_takes_too_long_to_empty_is_replaced(tmp_path):
    """The results come all the same, and the next program has another folder."""
    programs = ["open('left', 'w')", "import os; print(os.listdir('.'))"]
    code = f"""
import os, sys
from s2l_jax.evaluation.sandbox import scratch, server
scratch._SECONDS = -1.0
settings = {{"confined": False, "packages": [], "temporary": {str(tmp_path)!r}}}
programs = server._Programs(settings, sys.path, os.pipe()[0])
for code in {programs}:
    print(programs.answer({{"code": code, "timeout": 20, "memory": 2**30, "output": 99}}), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    first, second = map(ast.literal_eval, done.stdout.splitlines())
    assert (first["error"], second["stdout"]) == ("", "[]\n")
    assert len(os.listdir(tmp_path)) == 2


def test_small_threads_without_end(pool):
    code = """
import ctypes, threading, time
ctypes.CDLL(None).mallopt(-8, 1)
threading.stack_size(2**15)
while True: threading.Thread(target=time.sleep, args=(60,)).start()
"""
    assert run_one(pool, code).error == "started more than 256 threads"


def test_a_program_shares_nothing_with_its_server_that_can_be_written_to():
    code = """
import os
print([line for line in open('/proc/self/maps') if line.split()[1].startswith('rw-s')])
print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1], os.readlink('/proc/self/fd/0'))
"""
    with ProgramPool(1, confined=False) as pool:
        assert run_one(pool, code).stdout == "[]\n[0, 1, 2] /dev/null\n"


def test_folders_of_killed_servers_are_cleared_by_the_next_one(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import os, time\nopen('f', 'w')\nos.mkdir('d')\nprint(os.getcwd())\ntime.sleep({})"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    (tmp_path / f"{scratch.PREFIX}link").symlink_to(outside)
    (tmp_path / f"{scratch.PREFIX}file").write_text("")
    before = set(_children(os.getpid()))
    with ProgramPool(1, confined=False) as first, ProgramPool(1, confined=False) as alive:
        folder = first.run([code.format(0)])[0].stdout.strip()
        (server,) = set(_children(os.getpid())) - before
        with concurrent.futures.ThreadPoolExecutor() as threads:
            result = threads.submit(first.run, [code.format(60)])
            while not os.listdir(folder):
                pass
            os.kill(server, signal.SIGKILL)
            assert "its process died" in result.result()[0].error
        assert sorted(os.listdir(folder)) == ["d", "f"]
        lives = alive.run([code.format(0)])[0].stdout.strip()
        assert not os.path.exists(folder)
        first.run(["1"])
        assert os.path.exists(lives)
    assert sorted(os.listdir(tmp_path)) == ["outside", f"{scratch.PREFIX}file", f"{scratch.PREFIX}link"]
    assert os.listdir(outside) == ["kept"]
