"""Compiled programs kept from run to run, and the time that compiling takes."""

import hashlib
import os
import pathlib
import platform
import time

import jax

from s2l_jax.console import duration, say

_FOLDER = "jax_compilation_cache_dir"
_COMPILED = "/jax/core/compile/backend_compile_duration"  # reading from the cache is counted too
_HIT = "/jax/compilation_cache/cache_hits"
_MISS = "/jax/compilation_cache/cache_misses"  # of programs that took long enough to be kept


def enable_compilation_cache() -> None:
    """Have JAX keep compiled programs on disk, unless its own settings say where or that it should not.

    They go to `s2l_jax/programs` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache). Programs for
    CPUs hold instructions of one kind of CPU, so each kind has a folder of its own there.
    """
    if getattr(jax.config, _FOLDER):  # as JAX_COMPILATION_CACHE_DIR sets it
        return
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = base / "s2l_jax" / "programs"
    if jax.default_backend() == "cpu":
        folder /= _kind_of_cpu()
    jax.config.update(_FOLDER, str(folder))


class CompileTime:
    """Counts from when it is made what compiling takes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.hits = 0  # programs that the cache had
        self.misses = 0  # those that it has from now on
        self._start = time.monotonic()
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)

    def report(self) -> None:
        """Say what share of the time since the start went into compiling."""
        if not self.seconds:
            return
        share = self.seconds / (time.monotonic() - self._start)
        say(
            f"compiling took {duration(self.seconds)}, {share:.0%} of this run; of its larger programs "
            f"{self.misses} were new and {self.hits} kept from earlier runs"
        )

    def _on_duration(self, event: str, duration_secs: float, **_: object) -> None:
        if event == _COMPILED:
            self.seconds += duration_secs

    def _on_event(self, event: str, **_: object) -> None:
        self.hits += event == _HIT
        self.misses += event == _MISS


def _kind_of_cpu() -> str:
    """A short name for the instructions that this CPU has."""
    flags = platform.machine() + platform.processor()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        flags += next((line for line in info.read_text().splitlines() if line.startswith("flags")), "")
    return hashlib.sha256(flags.encode()).hexdigest()[:12]
