"""Responses kept as they come, so that what was answered before a kill is not asked again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from s2l_jax import artifacts, integrity
from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution.response_programs import ProgramRun
from s2l_jax.parallel import processes

# Rows between files. It does not depend on how much was there before: the same rows are answered
# together after a kill as without one, which gives the same bytes.
_AT_ONCE = 512
_RUNS = "runs"


class KeptResponses:
    """The responses of one benchmark that is under way, in files of a folder.

    Every process reads the same files and calls the same methods; one of them writes. What a damaged file
    held is asked again.
    """

    def __init__(self, folder: epath.Path):
        self._folder = folder

    def responses(
        self,
        kind: str,
        prompts: Mapping[int, Sequence[int]],
        respond: Callable[..., list[str]],
        progress: Callable[[int], None],
    ) -> list[str]:
        """The response to each prompt, asking for those that are not there.

        Args:
          kind: of prompt; names the files.
          prompts: token ids, by the index of the row.
          respond: gives the responses to prompts; takes `indices` and `progress` as `generate` does.
          progress: called with the number of rows answered so far.
        """
        have: dict[int, str] = {}
        for file in artifacts.files_in(self._folder, f"{kind}-*.json"):
            have |= {int(index): text for index, text in self._read(file.name).items()}
        processes.barrier(f"{self._folder.name} {kind} read")
        waiting = [index for index in prompts if index not in have]
        for start in range(0, len(waiting), _AT_ONCE):
            chunk = waiting[start : start + _AT_ONCE]
            before = len(have)
            asked = [prompts[index] for index in chunk]
            texts = respond(asked, indices=chunk, progress=lambda done: progress(before + done))  # noqa: B023
            have |= zip(chunk, texts, strict=True)
            if processes.is_writer():
                file = self._folder / f"{kind}-{chunk[0]:07}.json"
                integrity.write_json(file, {str(index): have[index] for index in chunk})
        return [have[index] for index in prompts]

    def program_runs(
        self, kind: str, run: Callable[[], Sequence[ProgramRun | None]]
    ) -> list[ProgramRun | None]:
        """What became of programs: what `run` gives, called once by the process that writes."""
        name = f"programs-{kind}.json"
        if not self._read(name):
            processes.barrier(f"{self._folder.name} {name} missing")
            if processes.is_writer():
                runs = [None if each is None else vars(each) for each in run()]
                integrity.write_json(self._folder / name, {_RUNS: runs})
            processes.barrier(f"{self._folder.name} {name} written")
        stored = self._read(name)[_RUNS]
        return [None if each is None else ProgramRun(**each) for each in stored]

    def _read(self, name: str) -> dict[str, Any]:
        """What a file holds; nothing of one that is not there, or damaged."""
        try:
            return integrity.read_json(self._folder / name, "")
        except InputError:
            return {}

    def remove(self) -> None:
        """Forget them; they are in predictions.jsonl now."""
        if processes.is_writer() and self._folder.exists():
            self._folder.rmtree()
