"""What each part of a workdir was made with: finished parts are kept, and never change meaning."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from s2l_jax import artifacts
from s2l_jax.errors import InputError
from s2l_jax.parallel import processes

_FILE = "stage.json"


class Record:
    """The record of one part of a workdir: its settings and, once finished, its results.

    Args:
      folder: where the part's artifacts are.
      what: names it in errors, such as "selection/s2l".
      settings: everything that decides what the part's results are, by dotted names (see
        `config.fingerprint`); names within a value's own are joined to its.

    Raises:
      InputError: the folder holds a part that was made with other settings; shows the difference. A
        part that failed before it made anything may be tried again with other settings.
    """

    def __init__(self, folder: epath.Path, what: str, settings: Mapping[str, Any]):
        self.folder, self.what = folder, what
        self._settings = json.loads(json.dumps(dict(_flattened(settings))))
        self._start = time.monotonic()
        self._stored: dict[str, Any] = {}
        # Looked at before the settings, which another process may be replacing.
        empty = not folder.exists() or all(_is_hidden_or_record(f) for f in folder.iterdir())
        if (folder / _FILE).exists():
            self._stored = artifacts.read_json(folder / _FILE)
            if self.done or not empty:
                _check_same(self._stored["settings"], self._settings, what, folder)
        if self._stored.get("settings") != self._settings and processes.is_writer():
            artifacts.write_json(folder / _FILE, {"settings": self._settings})

    @property
    def done(self) -> bool:
        """Whether the part is finished."""
        return "results" in self._stored

    @property
    def results(self) -> dict[str, Any]:
        """What the part adds to results.json."""
        return self._stored["results"]

    @property
    def seconds(self) -> float:
        """Wall time of the sitting that finished the part."""
        return self._stored["seconds"]

    def finish(self, results: dict[str, Any]) -> None:
        """Mark the part finished; call it after its artifacts are written."""
        processes.barrier(self.what)
        self._stored = {
            "settings": self._settings,
            "results": json.loads(json.dumps(results, default=artifacts.plain)),
            "seconds": round(time.monotonic() - self._start, 3),
        }
        if processes.is_writer():
            artifacts.write_json(self.folder / _FILE, self._stored)
        processes.barrier(f"{self.what} recorded")


def stored_results(folder: epath.Path) -> dict[str, Any] | None:
    """Results and seconds of a finished part, whatever its settings; None for an unfinished one."""
    if not (folder / _FILE).exists():
        return None
    stored = artifacts.read_json(folder / _FILE)
    return stored if "results" in stored else None


def _is_hidden_or_record(file: epath.Path) -> bool:
    return file.name == _FILE or file.name.startswith(".")


def _check_same(before: dict[str, Any], now: dict[str, Any], what: str, folder: epath.Path) -> None:
    if before == now:
        return
    lines = [
        f"  {name}: {_shown(before, name)} before, {_shown(now, name)} now"
        for name in sorted(before | now)
        if _shown(before, name) != _shown(now, name)
    ]
    named = "another name, " if "/" in what else ""
    raise InputError(
        f"{folder} was made with other settings:\n"
        + "\n".join(lines)
        + f"\nWhat is in a workdir keeps its meaning. Use {named}another --workdir, or start "
        "from this one's results with --config.trajectories.path= or --config.selection.path=."
    )


def _shown(settings: dict[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "absent"


def _flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
