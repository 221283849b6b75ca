"""Running the Python programs that models write: each in a confined child process, with limits."""

import ast
import atexit
import dataclasses
import functools
import re
import textwrap
import warnings
from collections.abc import Sequence
from types import TracebackType

from s2l_jax.evaluation.execution.workers import LAYERS, WorkerPool

TIMEOUT = 10.0  # seconds
_MEMORY = 2**30  # bytes of address space; Python with sympy and numpy takes about a third
_OUTPUT = 2**20  # bytes

_PYTHON = ("python", "python3", "py")
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_OPENING = re.compile(
    r"(?:import|from|def|class|for|while|if)\b|print\s*\(|#|[A-Za-z_]\w*(?:\s*,\s*\w+)*\s*=[^=]"
)
_MOST_LINES = 300
_MOST_CHARACTERS = 20_000


@dataclasses.dataclass(frozen=True)
class ProgramResult:
    """What became of a program.

    Args:
      stdout: what it printed, as far as it is kept (1 MiB).
      ok: it ran to its end, or called sys.exit(0).
      error: why not, in a line: its exception, the limit it met, or the signal that killed it.
      seconds: wall time.
    """

    stdout: str
    ok: bool
    error: str
    seconds: float


class ProgramPool:
    """Warm processes that have imported numpy and sympy, and run each program in a fork of themselves.

    A context manager; processes are started when they are first needed. What a program can reach is in
    docs/security.md; nothing is left of it when the next one begins.

    Args:
      num_workers: programs that run at a time; 0: one a core.
      memory: bytes of address space of a program.
      layers: of isolation that may be used ("namespaces", "landlock", "seccomp"); those the machine lacks
        are left out.
    """

    def __init__(
        self, num_workers: int = 0, *, memory: int = _MEMORY, layers: Sequence[str] = LAYERS
    ) -> None:
        self._workers = WorkerPool("programs", num_workers, layers)
        self._memory = memory

    def run(self, codes: Sequence[str], timeout: float = TIMEOUT) -> list[ProgramResult]:
        """Run Python sources, each as `__main__`; one result each, in order.

        Args:
          codes: any texts.
          timeout: seconds of wall time for each; of CPU time too, rounded up.

        Raises:
          InputError: the machine cannot isolate programs.
        """
        requests = [
            {"code": code, "timeout": timeout, "memory": self._memory, "output": _OUTPUT} for code in codes
        ]
        answers = self._workers.ask(requests, timeout, _lost)
        return [ProgramResult(**answer) for answer in answers]

    @property
    def isolation(self) -> list[str]:
        """The layers of isolation in force here.

        Raises:
          InputError: the machine cannot isolate programs.
        """
        return self._workers.isolation

    def close(self) -> None:
        """End the processes."""
        self._workers.close()

    def __enter__(self) -> "ProgramPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_program(code: str, timeout: float = TIMEOUT) -> ProgramResult:
    """Run one Python source in a confined process; a `ProgramPool` runs several at a time.

    The first call starts the warm process that later ones fork from; it ends with this process.

    Args:
      code: any text.
      timeout: seconds of wall time.

    Raises:
      InputError: the machine cannot isolate programs.
    """
    return _shared_pool().run([code], timeout)[0]


@functools.cache
def _shared_pool() -> ProgramPool:
    pool = ProgramPool(1)
    atexit.register(pool.close)
    return pool


def extract_program(response: str) -> str | None:
    """The Python program of a response; None if there is none.

    It is the last fenced block that prints: marked as Python, or unmarked and Python by its syntax; or
    the last marked one, if none prints. Where there is no fence, it is the longest run of lines, from
    the first that looks like Python, that is Python by its syntax and prints.
    """
    blocks = [(mark.lower(), textwrap.dedent(code)) for mark, code in _FENCE.findall(response)]
    if blocks:
        marked = [code for mark, code in blocks if mark in _PYTHON]
        printing = [code for mark, code in blocks if mark in (*_PYTHON, "") and _prints(code)]
        found = printing or marked
        return found[-1].strip("\n") if found else None
    lines = response.splitlines()[:_MOST_LINES]
    start = next((i for i, line in enumerate(lines) if _OPENING.match(line)), None)
    if start is None or not any("print" in line for line in lines[start:]):
        return None
    for end in range(len(lines), start, -1):
        code = "\n".join(lines[start:end])
        if _prints(code):
            return code
    return None


def _prints(code: str) -> bool:
    """Whether this is Python, and calls `print`."""
    if "print" not in code or len(code) > _MOST_CHARACTERS:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as for "\d" in a program's strings
            nodes = ast.walk(ast.parse(code))
            return any(_is_print(node) for node in nodes)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _is_print(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"


def _lost(reason: str) -> dict[str, object]:
    return {"stdout": "", "ok": False, "error": reason, "seconds": 0.0}
