"""What a run shows while it works: progress on long work, and quiet from the libraries beneath."""

import contextlib
import logging as std_logging
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from absl import logging

_muted = False
# Control characters but for tab and line break; marks that turn the direction of writing; lone surrogates.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE_EVERY = 15.0  # seconds between lines where there is no terminal to draw a bar on


class Progress:
    """A bar on a terminal; elsewhere a line every quarter of a minute, and one at the end."""

    def __init__(self, what: str, total: int, unit: str, *, done: int = 0):
        self._what, self._total, self._unit = what, total, unit
        self._start = self._last = time.monotonic()
        self._first = self._done = done
        self._bar: Any = None
        if sys.stderr.isatty() and not _muted:
            from tqdm import tqdm

            self._bar = tqdm(
                desc=harmless(what), total=total or None, unit=f" {unit}", initial=done, leave=False
            )

    def update(self, done: int, detail: str = "") -> None:
        """Say how much is done in all, and whatever else is worth seeing."""
        step, self._done = done - self._done, done
        if self._bar is not None:
            self._bar.set_postfix_str(harmless(detail), refresh=False)
            self._bar.update(step)
        elif time.monotonic() - self._last >= _LINE_EVERY:
            self._last = time.monotonic()
            self._line(detail)

    def close(self, detail: str = "") -> None:
        """End the bar and leave one line."""
        if self._bar is not None:
            self._bar.close()
        self._line(detail)

    def _line(self, detail: str) -> None:
        seconds = time.monotonic() - self._start
        whole = f"/{self._total}" if self._total else ""
        text = f"{self._what}: {self._done}{whole} {self._unit} in {duration(seconds)}"
        ahead, fresh = self._total - self._done, self._done - self._first
        if ahead > 0 and fresh > 0:
            text += f", {duration(seconds * ahead / fresh)} left"
        say(f"{text}{', ' if detail else ''}{detail}")


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Within it, say what is waited for: after a quarter of a minute, and again at twice the time each."""
    ended, start = threading.Event(), time.monotonic()

    def watch() -> None:
        pause = _LINE_EVERY
        while not ended.wait(pause):
            pause = time.monotonic() - start
            say(f"{what}: {duration(pause)} so far")

    thread = threading.Thread(target=watch, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def say(text: str) -> None:
    """One line for the person at the terminal; of many processes the first one speaks."""
    if not _muted:
        tell(text)


def tell(text: str) -> None:
    """A message for the person at the terminal, whichever process this is."""
    with contextlib.suppress(OSError):  # a terminal that was closed
        print(harmless(text), file=sys.stderr, flush=True)


def harmless(text: str) -> str:
    """Text fit for a terminal: what would move its cursor, colour it or turn its letters is spelt out."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def log_harmlessly() -> None:
    """Have what is logged through absl be `harmless`, too."""
    logging.get_absl_handler().addFilter(_spell_out)


def _spell_out(record: std_logging.LogRecord) -> bool:
    record.msg, record.args = harmless(record.getMessage()), ()
    return True


def mute() -> None:
    """Leave all talking to another process."""
    global _muted
    _muted = True


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Within it, nothing is said."""
    global _muted
    before, _muted = _muted, True
    try:
        yield
    finally:
        _muted = before


def duration(seconds: float) -> str:
    """Seconds as a person would write them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide what libraries log below the level of an error."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
