"""The programs in responses: found, run, and what became of them."""

import dataclasses
from collections.abc import Sequence

from s2l_jax.evaluation.execution.programs import ProgramPool
from s2l_jax.evaluation.execution.workers import WorkerPool
from s2l_jax.evaluation.sandbox import confine

_KEPT_OUTPUT = 4000  # characters of what a program printed
_TIMEOUT = 5.0  # seconds to find the program of one response


@dataclasses.dataclass(frozen=True)
class ProgramRun:
    """A response's program and what became of it."""

    code: str  # "" where looking for it took too long
    output: str
    error: str  # "" where it ended well and printed something


def run_programs(texts: Sequence[str], *, confined: bool = True) -> list[ProgramRun | None]:
    """Run the responses that are programs; None for the others.

    Args:
      texts: responses.
      confined: see `ProgramPool`.

    Raises:
      InputError: the machine cannot confine programs.
    """
    codes, failures = find_programs(texts)
    runs: list[ProgramRun | None] = [None] * len(texts)
    for i, failure in failures.items():
        runs[i] = ProgramRun("", "", failure)
    with ProgramPool(confined=confined) as pool:
        results = pool.run(list(codes.values()))
    for (i, code), result in zip(codes.items(), results, strict=True):
        output = result.stdout[:_KEPT_OUTPUT]
        error = "" if result.ok else result.error or "it failed"
        runs[i] = ProgramRun(code, output, error or ("" if output.strip() else "it printed nothing"))
    return runs


def find_programs(texts: Sequence[str]) -> tuple[dict[int, str], dict[int, str]]:
    """The programs of those texts that have one, and why those were given up that took too long; by index.

    See `extraction.extract_program`; parsing what is hostile may take any time, so it is done in a child.
    """
    likely = [i for i, text in enumerate(texts) if "print" in text or "```" in text]
    requests = [{"arguments": [texts[i]], "timeout": _TIMEOUT} for i in likely]
    with WorkerPool("extraction", confined=not confine.missing()) as pool:
        answers = pool.ask(requests, _TIMEOUT, lambda reason: {"value": None, "error": reason})
    found = dict(zip(likely, answers, strict=True))
    codes = {i: answer["value"] for i, answer in found.items() if answer["value"] is not None}
    failures = {
        i: f"its program was not found: {answer['error']}" for i, answer in found.items() if answer["error"]
    }
    return codes, failures
