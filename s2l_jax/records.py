"""What each part of a workdir was made with: finished parts are kept, and never change meaning."""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from s2l_jax import artifacts, integrity
from s2l_jax.config import find_field
from s2l_jax.errors import InputError
from s2l_jax.parallel import processes

_FILE = "stage.json"
_DIGESTS = "digests"
_NAMED = ("selection", "target", "evaluation")  # parts that are called as a run is


class Record:
    """The record of one part of a workdir: its settings and, once finished, its results.

    Args:
      folder: where the part's artifacts are.
      what: names it in errors, such as "selection/s2l".
      settings: everything that decides what the part's results are, by dotted names (see
        `config.fingerprint`); names within a value's own are joined to its.

    Raises:
      InputError: the folder holds a part that was made with other settings; shows the difference. A
        part that failed before it made anything may be tried again with other settings. Or the record is
        damaged, or gone from a folder that holds something.
    """

    def __init__(self, folder: epath.Path, what: str, settings: Mapping[str, Any]):
        self.folder, self.what = folder, what
        self._settings = _as_stored(settings)
        self._start = time.monotonic()
        self._stored: dict[str, Any] = {}
        self._before = 0.0  # seconds of earlier sittings
        # Looked at before the settings, which another process may be replacing.
        empty = _is_empty(folder)
        if (stored := _read(folder)) is not None:
            self._stored = stored
            differences = _differences(self._stored["settings"], self._settings)
            if differences and (self.done or not empty):
                raise InputError(other_settings(folder, what, differences))
        elif not empty:
            raise _gone(folder)
        if self._stored.get("settings") == self._settings:
            self._before = self._stored.get("seconds", 0.0)
        elif processes.is_writer():
            integrity.write_json(folder / _FILE, {"settings": self._settings})

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
        """Wall time of the sittings that made the part, without those that were killed outright."""
        return self._stored["seconds"]

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Keep the time of a sitting that a signal or a failure ends, for the one that goes on from there."""
        try:
            yield
        except BaseException:
            if not self.done and processes.is_writer():
                with contextlib.suppress(OSError):  # what ended it is what is to be said
                    so_far = {"settings": self._settings, "seconds": self._seconds()}
                    integrity.write_json(self.folder / _FILE, so_far)
            raise

    def _seconds(self) -> float:
        return round(self._before + time.monotonic() - self._start, 3)

    def finish(
        self,
        results: dict[str, Any],
        *,
        files: Iterable[str] = (),
        digests: Callable[[], dict[str, str]] = dict,
    ) -> None:
        """Mark the part finished; call it after its artifacts are written.

        Args:
          results: what it adds to results.json.
          files: of the folder (or folders in it), that are read again later; their digests are kept.
          digests: gives those of what else is, to the process that writes.
        """
        processes.barrier(self.what)
        self._stored = {
            "settings": self._settings,
            "results": json.loads(json.dumps(results, default=artifacts.plain)),
            "seconds": self._seconds(),
        }
        if processes.is_writer():
            self._stored[_DIGESTS] = integrity.digests(self.folder, files) | digests()
            integrity.write_json(self.folder / _FILE, self._stored)
        processes.barrier(f"{self.what} recorded")


def stored_results(folder: epath.Path) -> dict[str, Any] | None:
    """Results and seconds of a finished part, whatever its settings; None for an unfinished one."""
    stored = _read(folder)
    return stored if stored is not None and "results" in stored else None


def stored_digests(folder: epath.Path) -> dict[str, str]:
    """Digests of what a finished part holds and later parts read; none of an unfinished one."""
    return (_read(folder) or {}).get(_DIGESTS, {})


def way_out(folder: epath.Path) -> str:
    """What to do about a part that is damaged."""
    return f"take it from a copy, or remove {folder} and run the same command, which makes it again"


def conflicts(folder: epath.Path, settings: Mapping[str, Any]) -> list[str]:
    """Where the config of now differs from that which a part was made with, a line for each field.

    `settings` are those that the config tells of the part; one that has made nothing yet has no conflicts.

    Raises:
      InputError: as `Record`, of a record that is damaged or gone.
    """
    empty, stored = _is_empty(folder), _read(folder)
    if stored is None and not empty:
        raise _gone(folder)
    if stored is None:
        return []
    if "results" not in stored and empty:
        return []
    now = _as_stored(settings)
    before = {name: value for name, value in stored["settings"].items() if name in now or _is_of_config(name)}
    return _differences(before, now)


def check_content(
    folder: epath.Path, what: str, content: Mapping[str, Any], groups: tuple[str, ...] = ()
) -> None:
    """Compare what a finished part was made from with what is there now, for a stage that is not run.

    Args:
      folder: of the part; one without results has nothing to compare.
      what: names it in errors.
      content: of its settings those that are known now.
      groups: of settings that are all known: what `content` has not of them, there is not.

    Raises:
      InputError: they differ; shows how.
    """
    if (stored := stored_results(folder)) is None:
        return
    now, known = _as_stored(content), tuple(f"{group}." for group in groups)
    before = {n: value for n, value in stored["settings"].items() if n in now or n.startswith(known)}
    if differences := _differences(before, now):
        raise InputError(other_settings(folder, what, differences))


def other_settings(folder: epath.Path, what: str, differences: Sequence[str]) -> str:
    """What is said of a part that was made with other settings."""
    named = "another name, " if what.partition("/")[0] in _NAMED else ""
    shown = "\n".join(f"  {line}" for line in differences)
    return (
        f"{folder} was made with other settings:\n{shown}\nWhat is in a workdir keeps its meaning. Use "
        f"{named}another --workdir, or start from this one's results with --config.trajectories.path= or "
        "--config.selection.path=."
    )


def _read(folder: epath.Path) -> dict[str, Any] | None:
    """The record in a folder; None where there is none."""
    file = folder / _FILE
    return integrity.read_json(file, way_out(folder)) if file.exists() else None


def _gone(folder: epath.Path) -> InputError:
    """What is said of files without a record: they may have been made with any settings."""
    return InputError(
        f"{folder / _FILE} is gone, and with it what the part was made with: {way_out(folder)}."
    )


def _is_empty(folder: epath.Path) -> bool:
    """Whether a part has made nothing yet."""
    return not folder.exists() or all(f.name == _FILE or f.name.startswith(".") for f in folder.iterdir())


def _is_of_config(name: str) -> bool:
    """Whether a setting is a field of the config, and decides by what it says."""
    return (field := find_field(name)) is not None and not field.by_content


def _as_stored(settings: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(flattened(settings))))


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {_shown(before, name)} before, {_shown(now, name)} now"
        for name in sorted(before | now)
        if _shown(before, name) != _shown(now, name)
    ]


def _shown(settings: dict[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "absent"


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings in groups, by dotted names."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
