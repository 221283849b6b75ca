"""Compiled programs kept from run to run, and the time that compiling takes."""

import hashlib
import os
import pathlib
import platform
import shlex
import stat
import time

import jax

from s2l_jax.console import duration, say

_ENABLED, _FOLDER = "jax_enable_compilation_cache", "jax_compilation_cache_dir"
_COMPILED = "/jax/core/compile/backend_compile_duration"  # reading from the cache is counted too
_HIT = "/jax/compilation_cache/cache_hits"
_MISS = "/jax/compilation_cache/cache_misses"  # of programs that took long enough to be kept


def enable_compilation_cache() -> None:
    """Have JAX keep compiled programs on disk, unless its own settings say where or that it should not.

    They go to `s2l_jax/programs` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache). Programs for
    CPUs hold instructions of one kind of CPU, so each kind has a folder of its own there.

    A kept program is code, so a folder that others may write, wherever it was set, is not used.
    """
    if not getattr(jax.config, _ENABLED):
        return
    if asked := getattr(jax.config, _FOLDER):  # as JAX_COMPILATION_CACHE_DIR sets it
        if "://" not in asked:
            _use(pathlib.Path(asked))
        return
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = base / "s2l_jax" / "programs"
    if jax.default_backend() == "cpu":
        folder /= _kind_of_cpu()
    _use(folder)


def _use(folder: pathlib.Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        fault = _writable_by_others(folder)
    except OSError as error:
        fault = str(error)
    if fault:
        say(f"compiled programs are not kept: {fault}")
    jax.config.update(_FOLDER, None if fault else str(folder))


def _writable_by_others(folder: pathlib.Path) -> str:
    """How others could put a program into a folder; "" where they cannot."""
    info = folder.stat()
    if info.st_uid != os.getuid():
        return f"{folder} belongs to another user"
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {folder} (chmod go-w {shlex.quote(str(folder))} ends that)"
    for parent in folder.absolute().parents:
        mode = parent.stat().st_mode
        if (
            mode & stat.S_IWOTH and not mode & stat.S_ISVTX
        ):  # in a sticky one nobody renames what is another's
            return f"anyone may rename what is in {parent}"
    return ""


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
