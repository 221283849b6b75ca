"""Responses kept as they come, so that what was answered before a kill is not asked again."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from s2l_jax import artifacts
from s2l_jax.evaluation.execution.response_programs import ProgramRun, run_programs
from s2l_jax.parallel import processes

# Rows between files. It does not depend on how much was there before: the same rows are answered
# together after a kill as without one, which gives the same bytes.
_AT_ONCE = 512

Ask = Callable[[Sequence[int], Callable[[int], None]], list[str]]


class KeptResponses:
    """The responses of one benchmark that is under way, in files of a folder.

    Every process reads the same files and calls the same methods; one of them writes.
    """

    def __init__(self, folder: epath.Path):
        self._folder = folder

    def responses(
        self, kind: str, indices: Sequence[int], ask: Ask, progress: Callable[[int], None]
    ) -> list[str]:
        """The response to each row, asking for those that are not there.

        Args:
          kind: of prompt; names the files.
          indices: of the rows.
          ask: gives the responses to the rows of some indices; told how to report progress.
          progress: called with the number of rows answered so far.
        """
        have: dict[int, str] = {}
        for file in sorted(self._folder.glob(f"{kind}-*.jsonl")) if self._folder.exists() else ():
            have |= {row["index"]: row["response"] for row in map(json.loads, file.read_text().splitlines())}
        processes.barrier(f"{self._folder.name} {kind} read")
        waiting = [index for index in indices if index not in have]
        for start in range(0, len(waiting), _AT_ONCE):
            chunk = waiting[start : start + _AT_ONCE]
            before = len(have)
            found = dict(zip(chunk, ask(chunk, lambda done: progress(before + done)), strict=True))  # noqa: B023
            have |= found
            name = f"{kind}-{chunk[0]:07}.jsonl"
            self._write(name, [{"index": i, "response": text} for i, text in found.items()])
        return [have[index] for index in indices]

    def program_runs(self, kind: str, texts: Sequence[str]) -> list[ProgramRun | None]:
        """What became of the responses that are programs; run once."""
        name = f"programs-{kind}.json"
        if not (self._folder / name).exists():
            processes.barrier(f"{self._folder.name} {name} missing")
            if processes.is_writer():
                runs = [None if run is None else vars(run) for run in run_programs(texts)]
                artifacts.write_json(self._folder / name, runs)
            processes.barrier(f"{self._folder.name} {name} written")
        stored = artifacts.read_json(self._folder / name)
        return [None if run is None else ProgramRun(**run) for run in stored]

    def remove(self) -> None:
        """Forget them; they are in predictions.jsonl now."""
        if processes.is_writer() and self._folder.exists():
            self._folder.rmtree()

    def _write(self, name: str, rows: list[dict[str, Any]]) -> None:
        if processes.is_writer():
            lines = (json.dumps(row) for row in rows)
            artifacts.write_text(self._folder / name, "\n".join(lines) + "\n")
