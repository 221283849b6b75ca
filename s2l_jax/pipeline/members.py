"""Parts of a run that do not need each other, made by processes of their own, a few at a time."""

import concurrent.futures
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence

from etils import epath
from ml_collections import ConfigDict

from s2l_jax import artifacts, stopping
from s2l_jax.console import say, tell
from s2l_jax.pipeline.owner import owning
from s2l_jax.pipeline.plan import Plan
from s2l_jax.pipeline.run import STAGES, plan_pipeline

_GONE = 4  # exit status where a process of the run is gone
_SHARED = ("pool", "proxy", "trajectories", "selection")
_MODELS = ("target", "evaluation")  # stages of each model by itself

Members = dict[str, tuple[str, ...]]  # the parts of a workdir that a process makes, by what it is called


def run_members(
    command: Sequence[str],
    config: ConfigDict,
    workdir: epath.PathLike,
    *,
    stages: Sequence[str] = STAGES,
    jobs: int,
) -> int:
    """Run an experiment in processes: what is shared in one, then proxies, and targets, several at once.

    A member that fails is named and the others go on; what it lacks is made by the same command later.

    Args:
      command: that runs the experiment, to which flags are added.
      config: that it runs.
      workdir: its folder.
      stages: that are asked for.
      jobs: processes at once.

    Returns:
      The exit status: that of the first process that failed, or 0.
    """
    plan = plan_pipeline(config, workdir, stages=stages)
    plan.check()

    def run(stages: Sequence[str]) -> int:
        return _run_alone([*command, f"--stages={','.join(stages)}"])

    def run_all(stages: Sequence[str], members: Members) -> int:
        def making(parts: Sequence[str], stages: Sequence[str]) -> list[str]:
            return [*command, f"--stages={','.join(stages)}", f"--parts={','.join(parts)}"]

        # The pool first, by one process, as tokens of every model that a member trains.
        if status := _run_in(plan.workdir, {"pool": making(["pool"], ["pool", *stages])}, 1):
            return status
        commands = {name: making(parts, stages) for name, parts in members.items()}
        return _run_in(plan.workdir, commands, jobs)

    status, proxies = 0, proxies_of(plan)
    if len(proxies) > 1:
        status = run_all(["proxy", "trajectories"], proxies)
    if (shared := [stage for stage in plan.stages if stage in _SHARED]) and not status:
        status = run(shared)
    if status:
        return status
    models = models_of(plan_pipeline(config, workdir, stages=plan.stages))
    if len(models) > 1:
        status = run_all([stage for stage in plan.stages if stage in _MODELS], models)
    # What failed is not tried again at once; the page has what there is.
    left = plan.stages if not status else [stage for stage in plan.stages if stage == "report"]
    finished = run(left) if left else 0
    return status or finished


def proxies_of(plan: Plan) -> Members:
    """The proxies that are to be trained."""
    return {part.name: (part.name,) for part in plan.parts if part.stage == "proxy" and part.is_left}


def models_of(plan: Plan) -> Members:
    """The models that are to be trained or evaluated, each with its target and its evaluations."""
    names = [part.name.split("/")[1] for part in plan.parts if part.stage in _MODELS and part.is_left]
    return {name: tuple(f"{stage}/{name}" for stage in _MODELS) for name in names}


def _run_alone(command: Sequence[str]) -> int:
    """A process that has the workdir for itself, and the terminal; its exit status."""
    return _Processes().run_all({"": command}, 1)[""]


def _run_in(workdir: epath.Path, commands: Mapping[str, Sequence[str]], jobs: int) -> int:
    """Processes in a workdir that they share; the status of the first that failed, or 0."""
    with owning(workdir):
        artifacts.remove_leftovers(workdir)
        say(f"{len(commands)} processes, {jobs} at a time: {', '.join(commands)}")
        statuses = _Processes().run_all(commands, jobs)
    failed = {name: status for name, status in statuses.items() if status}
    for name, status in failed.items():
        tell(f"{name} failed with status {status} (its lines say why); the same command tries it again")
    return next(iter(failed.values()), 0)


class _Processes:
    """Processes that end with this one."""

    def __init__(self) -> None:
        self._ended, self._lock = 0, threading.Lock()
        self._running: list[subprocess.Popen[str]] = []

    def run_all(self, commands: Mapping[str, Sequence[str]], jobs: int) -> dict[str, int]:
        """Run commands, `jobs` of them at a time; their exit statuses, by name.

        Raises:
          Stopped: a signal came; it was passed on, and all have ended.
        """
        stopped = None
        with concurrent.futures.ThreadPoolExecutor(jobs) as threads:
            running = {name: threads.submit(self._run, command, name) for name, command in commands.items()}
            while True:
                try:
                    concurrent.futures.wait(running.values())
                    break
                except stopping.Stopped as signalled:
                    stopped = stopped or signalled
                    self._end(signalled.number)
        if stopped is not None:
            raise stopped
        return {name: done.result() for name, done in running.items()}

    def _run(self, command: Sequence[str], name: str) -> int:
        """Wait for a process, whose lines begin with its name where it has one; its exit status."""
        with self._lock:
            if self._ended:
                return 128 + self._ended
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if name else None,
                stderr=subprocess.STDOUT if name else None,
                start_new_session=True,  # so that Ctrl-C reaches it once, from `_end`
                env=os.environ | {stopping.MEMBER: "1"},
                text=True,
                errors="replace",
            )
            self._running.append(process)
        for line in process.stdout or ():
            with self._lock:
                tell(f"{name} | {line.rstrip()}")
        status = process.wait()
        with self._lock:
            self._running.remove(process)
        return status if status >= 0 else _GONE

    def _end(self, number: int) -> None:
        """Send a signal to those that run, and start no more."""
        with self._lock:
            self._ended = number
            for process in self._running:
                process.send_signal(number)
