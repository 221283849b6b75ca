"""Ways out that earlier sandboxes left open."""

import ast
import concurrent.futures
import errno
import os
import signal
import subprocess
import sys
import tempfile
import venv

import pytest

from s2l_jax.evaluation.execution import workers
from s2l_jax.evaluation.execution.programs import ProgramPool
from s2l_jax.evaluation.sandbox import scratch
from tests.support.paths import REPOSITORY
from tests.support.sandbox import children, confined_pool, run_one

pytestmark = pytest.mark.long


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
    before = set(children(os.getpid()))
    with ProgramPool(1, confined=False) as first, ProgramPool(1, confined=False) as alive:
        folder = first.run([code.format(0)])[0].stdout.strip()
        (server,) = set(children(os.getpid())) - before
        with concurrent.futures.ThreadPoolExecutor() as threads:
            result = threads.submit(first.run, [code.format(60)])
            while "d" not in os.listdir(folder):  # what the program makes last
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
