"""Running the Python programs that models write: each in a confined child process, with limits."""

import dataclasses
from collections.abc import Sequence

from s2l_jax.evaluation.execution.workers import WorkerPool, shared

TIMEOUT = 10.0  # seconds
_MEMORY = 2**30  # bytes of address space; Python with sympy and numpy takes about a third
_OUTPUT = 2**20  # bytes


@dataclasses.dataclass(frozen=True)
class ProgramResult:
    """What became of a program.

    Args:
      stdout: what it printed, as far as it is kept (1 MiB).
      ok: it ran to its end, or called sys.exit(0).
      error: why not, in a line: its exception, the limit it met, or the signal that killed it; in
        characters that can be printed.
      seconds: wall time.
    """

    stdout: str
    ok: bool
    error: str
    seconds: float


class ProgramPool(WorkerPool):
    """Warm processes that have imported numpy, scipy and sympy, and run each program in a fork of themselves.

    A context manager; processes are started when they are first needed. What a program can reach is in
    docs/design/security.md; nothing is left of it when the next one begins.

    Args:
      num_workers: programs that run at a time; 0: one a core.
      confined: False leaves programs all that this user can do, with limits of time, memory and output
        only: for containers that hold nothing anyone would miss.
    """

    def __init__(self, num_workers: int = 0, *, confined: bool = True) -> None:
        super().__init__("programs", num_workers, confined=confined)

    def run(self, codes: Sequence[str], timeout: float = TIMEOUT) -> list[ProgramResult]:
        """Run Python sources, each as `__main__`; one result each, in order.

        Args:
          codes: any texts.
          timeout: seconds of wall time for each; of CPU time too, rounded up.

        Raises:
          InputError: the machine cannot confine programs.
        """
        limits = {"timeout": timeout, "memory": _MEMORY, "output": _OUTPUT}
        lost = {"stdout": "", "ok": False, "seconds": 0.0}
        answers = self.ask(
            [{"code": code} | limits for code in codes], timeout, lambda reason: lost | {"error": reason}
        )
        return [ProgramResult(**answer) for answer in answers]


def run_program(code: str, timeout: float = TIMEOUT) -> ProgramResult:
    """Run one Python source in a confined process; a `ProgramPool` runs several at a time.

    The first call starts the warm process that later ones fork from; it ends with this process.

    Args:
      code: any text.
      timeout: seconds of wall time.

    Raises:
      InputError: the machine cannot confine programs.
    """
    return shared(ProgramPool).run([code], timeout)[0]
