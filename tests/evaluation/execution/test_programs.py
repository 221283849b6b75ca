"""Programs of models: run right, in order and fast, and contained whatever they try."""

import errno
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest

from s2l_jax import evaluation
from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution import workers
from s2l_jax.evaluation.execution.programs import ProgramPool
from s2l_jax.evaluation.grading.grader import Grader
from tests.support.paths import REPOSITORY

# What holds must hold without namespaces as well: many containers have none.
LAYERS = {"all": workers.LAYERS, "without namespaces": ("landlock", "seccomp"), "only": ("namespaces",)}
NONE: tuple[str, ...] = ()


def _pool(layers: tuple[str, ...]) -> ProgramPool:
    pool = ProgramPool(1, layers=layers)
    try:
        found = pool.isolation
    except InputError as error:
        pytest.skip(f"this machine cannot isolate programs: {error}")
    if missing := set(layers) - set(found):
        pool.close()
        pytest.skip(f"this machine has no {', '.join(missing)}")
    return pool


@pytest.fixture(scope="module")
def pool():
    with _pool(workers.LAYERS) as pool:
        yield pool


@pytest.fixture(scope="module", params=LAYERS.values(), ids=LAYERS.keys())
def each_pool(request):
    with _pool(request.param) as pool:
        yield pool


def _one(pool: ProgramPool, code: str, timeout: float = 20.0):
    """The result of one program; the pool is alive after it, and nothing is left of it."""
    (result,) = pool.run([code], timeout)
    (after,) = pool.run(["import os\nprint(6 * 7, os.listdir('.'))"], 20.0)
    assert after.ok, after
    assert after.stdout == "42 []\n"
    return result


def _descendants(pid: int) -> set[int]:
    """Processes that come from this one, as far as their parents live."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(
                pathlib.Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1]
            )
        except (OSError, IndexError):
            continue
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


# Programs that are right.


def test_calculation(pool):
    codes = [
        "import math\nprint(math.comb(10, 3))",
        "import numpy as np\nprint(np.linalg.solve([[2, 0], [0, 4]], [1, 2]).tolist())",
        "import sympy\nx = sympy.symbols('x')\nprint(sympy.solve(x**2 - 5*x + 6, x))",
        "def solution():\n    return 3 / 4\nif __name__ == '__main__':\n    print(solution())",
        "from fractions import Fraction\nimport statistics, itertools, decimal, re\nprint(Fraction(1, 3))",
        "import threading\nt = threading.Thread(target=lambda: print('in a thread'))\nt.start()\nt.join()",
        "open('note', 'w').write('kept')\nprint(open('note').read())",
        "",
    ]
    results = pool.run(codes)
    assert [result.error for result in results] == [""] * len(codes)
    assert all(result.ok for result in results)
    expected = ["120", "[0.5, 0.5]", "[2, 3]", "0.75", "1/3", "in a thread", "kept", ""]
    assert [result.stdout.strip() for result in results] == expected


def test_one_program_by_itself():
    _pool(workers.LAYERS).close()
    result = evaluation.run_program("print('é', 2**10)", timeout=20)
    assert (result.stdout, result.ok, result.error) == ("é 1024\n", True, "")
    assert 0 < result.seconds < 20


def test_results_come_in_the_order_of_the_programs():
    _pool(workers.LAYERS).close()
    codes = [f"import time\ntime.sleep({0.05 if n % 4 == 0 else 0})\nprint({n})" for n in range(12)]
    with ProgramPool(2) as pool:
        assert [int(result.stdout) for result in pool.run(codes)] == list(range(12))
        assert pool.run([]) == []
        pool.close()
        assert pool.run(["print(1)"])[0].stdout == "1\n"


def test_the_same_program_prints_the_same(pool):
    code = "import random, numpy\nprint(random.random(), numpy.random.rand(), {'a', 'b', 'c', 'd'})"
    first, second = pool.run([code, code])
    assert first.ok
    assert first.stdout == second.stdout


def test_a_program_ends_as_an_interpreter_would(pool):
    code = """
import atexit, threading, time
atexit.register(print, 'registered')
threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()
print(__name__, __file__)
"""
    assert _one(pool, code).stdout == "__main__ program.py\nthread\nregistered\n"
    waits = "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()"
    assert _one(pool, waits, timeout=0.3).error == "ran longer than 0.3 s"


def test_a_program_that_moves_its_own_folder_away(each_pool):
    """Landlock refuses; without it the folder is found and emptied, and the server lives."""
    for code in ("os.rename(os.getcwd(), os.getcwd() + '2')", "os.rmdir(os.getcwd())"):
        result = _one(each_pool, f"import os\n{code}")
        assert result.ok == ("landlock" not in each_pool.isolation)
        assert "process died" not in result.error
    left = each_pool.run(["import os\nprint(os.listdir('..') if os.access('..', os.R_OK) else '')"])[0]
    if "landlock" not in each_pool.isolation:
        assert left.stdout == "['program']\n"


def test_nothing_is_kept_from_one_program_to_the_next(pool):
    change = "import math, sympy\nmath.pi = 3\nsympy.pi = 3\nopen('left', 'w').write('x')\nleft = 1"
    assert _one(pool, change).ok
    look = "import math, os, sympy\nprint(math.pi > 3, sympy.pi, os.listdir('.'), 'left' in globals())"
    assert pool.run([look])[0].stdout == "True pi [] False\n"


@pytest.mark.parametrize(
    ("code", "ok", "error"),
    [
        ("import sys\nprint(1)\nsys.exit()", True, ""),
        ("import sys\nsys.exit(0)", True, ""),
        ("import sys\nsys.exit(3)", False, "exited with status 3"),
        ("import sys\nsys.exit('no solution')", False, "no solution"),
        ("import os\nos._exit(7)", False, "exited with status 7"),
        ("1 / 0", False, "ZeroDivisionError: division by zero"),
        ("x = (", False, "SyntaxError: '(' was never closed"),
        ("input()", False, "EOFError: EOF when reading a line"),
        ("print(undefined)", False, "NameError: name 'undefined' is not defined"),
        ("raise KeyboardInterrupt", False, "KeyboardInterrupt"),
        ("raise ValueError('no\\nroot')", False, "ValueError: no root"),
        (
            "import sys\nsys.stderr.write('x')\nraise ValueError('a' * 10**4)",
            False,
            "ValueError: " + "a" * 488,
        ),
        ("import os\nos.close(1)\nprint(1)", False, "what it printed could not be written"),
        ("import missing_package", False, "ModuleNotFoundError: No module named 'missing_package'"),
        ("import os\nos.kill(os.getpid(), 11)", False, "killed by SIGSEGV"),
    ],
)
def test_the_error_of_a_program(pool, code, ok, error):
    result = _one(pool, code)
    assert result.ok == ok
    assert result.error == error


def test_a_message_that_a_program_makes_up_is_only_text(pool):
    result = _one(
        pool, "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", timeout=0.3
    )
    assert result.error == "ran longer than 0.3 s"
    assert "�" in _one(pool, "import os\nos.write(1, b'\\xff\\xfe')").stdout


# Hostile programs.


def test_an_endless_loop(each_pool):
    result = _one(each_pool, "print('begun', flush=True)\nwhile True: pass", timeout=0.6)
    assert (result.ok, result.error, result.stdout) == (False, "ran longer than 0.6 s", "begun\n")
    assert _one(each_pool, "import time\ntime.sleep(1000)", timeout=0.1).error == "ran longer than 0.1 s"


def test_signals_that_are_ignored_do_not_help(each_pool):
    code = """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
"""
    assert _one(each_pool, code, timeout=0.3).error == "ran longer than 0.3 s"


def test_a_fork_bomb(each_pool):
    code = "import os\nwhile True:\n    try: os.fork()\n    except OSError as error: last = error"
    result = _one(each_pool, code, timeout=0.5)
    assert not result.ok


def test_new_processes_are_refused(pool):
    for code in (
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import os\nos.execv('/proc/self/exe', ['python'])",
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    ):
        assert "Error" in _one(pool, code).error
    result = _one(pool, "import os\nprint(os.system('true'))")
    assert result.stdout != "0\n"


def test_a_memory_bomb(each_pool):
    result = _one(each_pool, "kept = []\nwhile True: kept.append('x' * 10**7)")
    assert (result.ok, result.error) == (False, "MemoryError")
    assert not _one(each_pool, "import numpy\nnumpy.ones(10**10)").ok
    assert not _one(each_pool, "print(len(list(range(10**12))))").ok
    assert not _one(each_pool, "10 ** 10 ** 10", timeout=0.2).ok


def test_a_gigabyte_of_output(each_pool):
    for stream in (1, 2):
        code = f"import os\nblock = b'x' * 2**20\nfor _ in range(1024): os.write({stream}, block)"
        result = _one(each_pool, code)
        assert len(result.stdout) <= 2**20
        assert len(result.error) < 3000
        if stream == 1:
            assert (result.ok, result.error) == (False, "printed more than 1048576 bytes")


def test_a_gigabyte_on_the_disk(each_pool):
    code = "with open('big', 'wb') as file:\n    for _ in range(1024): file.write(b'x' * 2**20)"
    assert not _one(each_pool, code).ok


def test_a_thousand_files_in_folders_nested_beyond_any_path(each_pool):
    code = (  # 6,000 characters, and a path has 4,096
        "import os\nfor n in range(120):\n    os.mkdir('d' * 50)\n    os.chdir('d' * 50)\n"
        "    for k in range(8): open(f'f{k}', 'w').close()"
    )
    assert _one(each_pool, code).ok
    code = "import os\nos.makedirs('0/1')\nos.symlink('/', '0/l')\nos.chmod('0/1', 0)\nos.chmod('0', 0)"
    _one(each_pool, code)


def test_open_files(each_pool):
    result = _one(each_pool, "kept = [open('/dev/null') for _ in range(1000)]")
    assert "Too many open files" in result.error


def test_the_environment_cannot_be_read(each_pool, monkeypatch):
    monkeypatch.setenv("S2L_TEST_SECRET", "hunter2")
    with _pool(tuple(each_pool.isolation)) as pool:  # started with the secret in this environment
        result = _one(
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


def test_files_of_the_machine_cannot_be_read(each_pool):
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
    result = _one(each_pool, code)
    assert result.ok
    shown = [line for line in result.stdout.splitlines() if line != f"{home} []"]
    if "landlock" in each_pool.isolation:
        assert shown == []
    else:  # without Landlock the folders above Python's are listed, with nothing else in them
        assert not [line for line in shown if not line.startswith(f"{home} [")]


def test_nothing_is_written_outside(each_pool, tmp_path):
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
    result = _one(each_pool, code)
    assert (result.ok, result.stdout) == (True, "")
    assert not [place for place in places if os.path.lexists(os.path.join(place, "s2l_was_here"))]


def test_no_network(each_pool):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = (
            f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2).send(b'x')"
        )
        assert not _one(each_pool, code).ok
        with pytest.raises(TimeoutError):
            server.accept()
    code = "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))"
    assert not _one(each_pool, code).ok


def test_other_processes_cannot_be_killed(each_pool):
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
        result = _one(each_pool, code)
        assert result.stdout == "done\n"
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_deep_recursion(each_pool):
    assert "RecursionError" in _one(each_pool, "def f(): return f()\nf()").error
    code = "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1) + 1\nf(0)"
    assert not _one(each_pool, code, timeout=0.4).ok
    code = (
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __add__(s, o): return s + o\nA() + A()"
    )
    assert not _one(each_pool, code, timeout=0.4).ok


def test_a_threads_bomb(each_pool):
    code = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()"
    result = _one(each_pool, code)
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


@pytest.mark.parametrize("layers", [*LAYERS.values(), NONE], ids=[*LAYERS, "none"])
def test_a_daemon_does_not_outlive_its_parent(layers):
    with _pool(layers) as pool:
        _one(pool, "print(1)")
        before = _descendants(os.getpid())
        result = _one(pool, _DAEMON)
        assert (result.ok, result.stdout) == (True, "gone\n")
        assert result.seconds < 10
        assert not _descendants(os.getpid()) - before


def test_a_program_that_kills_its_server_loses_only_its_own_result():
    with _pool(NONE) as pool:
        result = _one(pool, "import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(5)")
        assert not result.ok
        assert "its process died" in result.error


def test_servers_end_with_the_process_that_started_them():
    _pool(workers.LAYERS).close()
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


@pytest.mark.parametrize(
    "code", ["\0", "print('a\0b')", "\ud800", "print('\ud800')", "\u202eprint(1)", "\xff", "é = 1\nprint(é"]
)
def test_odd_characters_in_a_program_are_an_error(pool, code):
    result = _one(pool, code)
    assert not result.ok
    assert "Error" in result.error


def test_odd_characters_that_a_program_prints(pool):
    assert _one(pool, "print('\\0 é 漢 🙂')").stdout == "\0 é 漢 🙂\n"
    assert not _one(pool, "print('\\ud800')").ok


def test_system_calls_that_no_calculation_needs(pool):
    if "seccomp" not in pool.isolation:
        pytest.skip("no filter on this machine")
    numbers = {
        "x86_64": (101, 165, 272, 250, 29, 310, 323, 298),
        "aarch64": (117, 40, 97, 219, 194, 270, 282, 241),
    }
    calls = numbers[
        os.uname().machine
    ]  # ptrace mount unshare keyctl shmget process_vm_readv userfaultfd perf
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number in {calls}:
    ctypes.set_errno(0)
    print(libc.syscall(number, 0, 0, 0, 0, 0), ctypes.get_errno())
print(libc.syscall(425, 0, 0), ctypes.get_errno())
"""
    lines = _one(pool, code).stdout.splitlines()
    assert lines == [f"-1 {errno.EPERM}"] * len(calls) + [f"-1 {errno.ENOSYS}"]  # 425: io_uring_setup


def test_bubblewrap_gives_the_same(monkeypatch):
    if not shutil.which("bwrap"):
        pytest.skip("no bubblewrap on this machine")
    monkeypatch.setattr(workers, "_modes", lambda layers: ["bubblewrap"])
    monkeypatch.setattr(workers, "_working", {})
    with _pool(workers.LAYERS) as pool:
        assert pool.isolation[0] == "namespaces"
        assert _one(pool, "open('a', 'w').write('b')\nprint(open('a').read())").stdout == "b\n"
        assert "Error" in _one(pool, "open('/etc/passwd')").error
        assert _one(pool, _DAEMON).stdout == "gone\n"


def test_every_svamp_equation_as_a_program(data_dir):
    _pool(workers.LAYERS).close()
    rows = json.loads((data_dir / "eval" / "svamp.json").read_text())
    assert len(rows) == 1000
    with ProgramPool() as pool:
        results = pool.run([f"result = {row['Equation']}\nprint(result)" for row in rows])
    with Grader(1) as grader:
        references = [str(row["Answer"]) for row in rows]
        verdicts = grader.grade("number", [result.stdout for result in results], references)
    wrong = [row["ID"] for row, verdict in zip(rows, verdicts, strict=True) if not verdict.correct]
    # The data has 1 as the answer of (4 - 2) + 3; its question asks for 5.
    assert wrong == ["chal-680"]
    assert all(result.ok for result in results)
