"""Select training data with a small model's loss trajectories, and train a large one on it.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart

Runs the stages pool, proxy, trajectories, selection, target, evaluation, analysis and report, and goes
on from what the workdir already holds. Any field of the config can be set on the command line:

    python launch.py --config=configs/math_pythia70m.py --config.pool.path=pool.jsonl \\
        --config.selection.budget=30000 --config.mesh.fsdp=4

Lists have commas between: --config.selection.exports=jsonl,parquet.
--stages runs some of the stages only: --stages=proxy,select. --dry_run makes nothing: it shows which
parts the workdir has, which will be made and why, and which are there with other settings. --plan=TOPOLOGY
makes nothing either: it says what the run will take on devices that need not be here (docs/guide/scaling.md):

    python launch.py --config=configs/math_phi2.py --plan=v5e:4x4       # or 2xv5e:4x4, v5p:2x2x4, gpu:h100x8
    python launch.py --config=configs/math_phi2.py --plan=v5e:4x4,mesh  # with the cheapest mesh that fits

Several machines: start the same command on each (TPU slices, Slurm and Open MPI are recognised; otherwise
set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID). --distributed=off runs one process alone.
--jobs=2 trains two proxies or targets at a time, each in a process of its own on this machine.
"""

import errno
import itertools
import os
import pathlib
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until `stopping.listen`, Ctrl-C ends it as it ends any program: without a traceback from an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from s2l_jax import stopping
from s2l_jax.config import describe, fault_of_run, find_field, meaning, nearest_field, validate
from s2l_jax.console import harmless, log_harmlessly, tell
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.parallel import control

_CONFIG = config_flags.DEFINE_config_file("config", None, "the experiment, a file of configs/")
_WORKDIR = flags.DEFINE_string("workdir", "", "the experiment's folder; default runs/<config name>")
_STAGES = flags.DEFINE_list("stages", [], "stages to run, by name or its beginning; default all")
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "on", "off"],
    "join the other processes of the run: where there are any, always, never",
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "show what is there, what will be made and what is refused")

_PLAN = flags.DEFINE_list(
    "plan",
    [],
    "TOPOLOGY: memory, work and projected time of the run on it; status 1 where it does not fit. "
    "TOPOLOGY,mesh chooses the mesh, too",
)
_PLAN_POOL = flags.DEFINE_string(
    "plan_pool",
    "",
    "with --plan, the pool's size: ROWS, or where it is not at hand ROWS:TOKENS:RESPONSE_TOKENS (means)",
)
_PROFILE = flags.DEFINE_string(
    "profile", "", "steps of each training run to trace, such as 10-15; XProf opens <workdir>/.../profile"
)

_JOBS = flags.DEFINE_integer(
    "jobs", 1, "processes at once, each of them training a proxy or a target of its own", lower_bound=1
)
_PARTS = flags.DEFINE_list("parts", [], "parts of the workdir that this process makes; --jobs sets it")


def main(argv: list[str]) -> int:
    """Run the experiment that the flags name; the status that its process ends with."""
    if len(argv) > 1:
        raise InputError(f"unexpected arguments {argv[1:]}: flags begin with --.")
    config = _CONFIG.value
    if config is None:
        raise InputError("--config is missing: name an experiment, such as configs/quickstart.py.")
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    if not isinstance(config, ConfigDict):
        raise InputError(f"{file}: get_config() gives {config!r}; it must return a ConfigDict.")
    stopping.listen()
    log_harmlessly()
    validate(config)
    name = config.name or pathlib.Path(file).stem
    workdir = _WORKDIR.value or f"runs/{name}"
    logging.set_verbosity(logging.WARNING)
    profile = None
    if _PROFILE.value:
        from s2l_jax.training.profiler import Steps

        profile = Steps.parse(_PROFILE.value)
    if _DRY_RUN.value:
        from s2l_jax.pipeline.run import STAGES, plan_pipeline

        plan = plan_pipeline(config, workdir, stages=_STAGES.value or STAGES)
        print(harmless(str(plan)))
        plan.check()
        return 0
    if _PLAN.value:
        return _plan(config, workdir, file)
    if _JOBS.value > 1:
        return _run_jobs(config, workdir)
    import jax

    from s2l_jax.parallel import processes
    from s2l_jax.parallel.compilation import CompileTime, enable_compilation_cache
    from s2l_jax.parallel.host_memory import keep_freed_memory

    processes.start(_DISTRIBUTED.value)
    stopping.listen()  # again, as JAX takes SIGTERM for itself in a run of several processes
    enable_compilation_cache()
    compiling = CompileTime()
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    from s2l_jax.pipeline.run import STAGES, run_pipeline

    if os.environ.pop(stopping.MEMBER, ""):
        stopping.end_with_parent()  # another may then have the workdir
    stages = _STAGES.value or STAGES
    run_pipeline(config, workdir, stages=stages, name=name, profile=profile, parts=_PARTS.value)
    compiling.report()
    return 0


def _run_jobs(config: ConfigDict, workdir: str) -> int:
    """Have the experiment run by several processes; this one computes nothing."""
    if _DISTRIBUTED.value == "on":
        raise InputError(
            f"--jobs={_JOBS.value} starts processes on this machine, --distributed=on joins those of others: "
            "leave one of the two out."
        )
    os.environ["JAX_PLATFORMS"], own = "cpu", os.environ.get("JAX_PLATFORMS")
    import jax

    jax.config.update("jax_platforms", "cpu")
    from s2l_jax.pipeline.members import run_members
    from s2l_jax.pipeline.run import STAGES

    if own is None:
        del os.environ["JAX_PLATFORMS"]
    else:
        os.environ["JAX_PLATFORMS"] = own
    command = [sys.executable, *sys.argv, "--jobs=1", "--distributed=off"]
    return run_members(command, config, workdir, stages=_STAGES.value or STAGES, jobs=_JOBS.value)


def _plan(config: ConfigDict, workdir: str, file: str) -> int:
    """Print what the run will take; 1 where it does not fit."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # whatever this machine has is left alone
    import jax

    jax.config.update("jax_platforms", "cpu")
    from s2l_jax.forecast.forecast import forecast
    from s2l_jax.forecast.stated_pool import Stated
    from s2l_jax.forecast.tables import in_words
    from s2l_jax.pipeline.run import STAGES

    topology, *words = _PLAN.value
    if words not in ([], ["mesh"]):
        raise InputError(f"--plan={','.join(_PLAN.value)}: after the topology only 'mesh' may follow.")
    pool = Stated.parse(_PLAN_POOL.value) if _PLAN_POOL.value else None
    stages = _STAGES.value or STAGES
    found = forecast(config, topology, workdir=workdir, stages=stages, pool=pool, search=bool(words))
    print(harmless(in_words(found, config, file)))
    return 0 if found.fits else 1


def _parse(argv: list[str]) -> list[str]:
    """Parse the flags; an override of a field that is not there names the nearest one."""
    _check_config_file(argv)
    try:
        return flags.FLAGS(_with_lists(argv))
    except (AttributeError, KeyError, TypeError, ValueError, flags.Error) as error:
        cause: BaseException | None = error
        while cause is not None:  # a fault that the config file itself found, freed of its wrapping
            if isinstance(cause, InputError) and "Traceback" not in str(cause):
                raise cause from error
            cause = cause.__context__
        given = [a.lstrip("-").partition("=") for a in argv[1:] if a.startswith("-")]
        overrides = [(n.removeprefix("config."), v) for n, _, v in given if n.startswith("config.")]
        for field, _ in overrides:
            if (hint := nearest_field(field)) is not None:
                raise InputError(f"--config.{field}: no such field{hint}") from error
        runs = [field for field, _ in overrides if field.startswith("selection.runs.")]
        config = _without_overrides(argv) if runs else None
        if config is not None and "runs" in config.get("selection", ()):
            for field in runs:
                method = dict(overrides).get(f"{field.rpartition('.')[0]}.method", "")
                if fault := fault_of_run(config, field, method):
                    raise InputError(f"--config.{field}: {fault}") from error
        for field, value in overrides:
            if value and value in str(error):
                needed = meaning(field)
                raise InputError(f"--config.{field}={value}: needs {needed} ({error}).") from error
        if isinstance(error, KeyError):
            raise InputError(f"the config file has no {error.args[0]} to override.") from error
        raise InputError(str(error)) from error


def _without_overrides(argv: list[str]) -> ConfigDict | None:
    """The config as its file has it; None where that fails, too."""
    named = flags.FlagValues()
    argv = [each for each in argv if not each.startswith(("-config.", "--config."))]
    file = config_flags.DEFINE_config_file("config", None, "", named, sys_argv=argv)
    try:
        named(argv, known_only=True)
    except Exception:  # whatever is wrong with the file is told by the first error
        return None
    return file.value


def _with_lists(argv: list[str]) -> list[str]:
    """The arguments with the lists among them, such as `a,b`, as ml_collections reads them: as literals."""
    written = list(argv)
    for n, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        path = name.lstrip("-").removeprefix("config.")
        field = find_field(path) if name.lstrip("-").startswith("config.") else None
        if field is None or not isinstance(field.default, tuple) or not (equals or n + 1 < len(argv)):
            continue
        place, value = (n, value) if equals else (n + 1, argv[n + 1])
        try:
            literal = repr(field.parse_list(value))
        except ValueError as error:
            raise InputError(f"--config.{path}={value}: needs {meaning(path)} ({error}).") from error
        written[place] = f"{name}={literal}" if equals else literal
    return written


def _check_config_file(argv: list[str]) -> None:
    for argument, following in itertools.pairwise([*argv, ""]):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "config":
            file = pathlib.Path((value if equals else following).partition(":")[0])
            if not file.is_file():
                near = ", ".join(sorted(str(f) for f in pathlib.Path("configs").glob("*.py")))
                raise InputError(f"--config={file}: no such file; there are {near or 'none here'}.")


# What running the same command again does not change.
_LASTING = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
    errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL,
)  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Packages whose errors mean that an object store could not be reached or refused.
_STORE_CLIENTS = ("aiohttp", "gcsfs")


def _guarded(argv: list[str]) -> int:
    """`main`, with an exit status and one line for what a person can put right."""
    try:
        status = main(argv)
    except InputError as error:
        return _say("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), 2)
    except DivergedError as error:
        return _say(f"stopped: {error}", 3)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, stopping.Stopped) else signal.SIGINT
        return _say("interrupted; the same command goes on from here", 128 + number)
    except OSError as error:
        return _failed(error)
    except ImportError as error:
        if "gcsfs" not in str(error):
            raise
        return _say("error: a gs:// path needs gcsfs: pip install gcsfs", 2)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _STORE_CLIENTS:
            raise
        text = f"error: the object store failed ({error}). What was finished before is intact; run it again."
        return _say(text, 4)
    stopping.leave()
    return status


def _failed(error: OSError) -> int:
    """Of what the machine refused: status 4 where the same command may succeed later."""

    def is_any(numbers: tuple[int, ...]) -> bool:  # libraries give the words and leave out the number
        return error.errno in numbers or any(os.strerror(number) in str(error) for number in numbers)

    if is_any(_LASTING) or isinstance(error, FileNotFoundError):
        return _say(f"error: {error}. Put that right; what was finished before is intact.", 2)
    again = "make room, then run it again" if is_any(_FULL) else "run it again"
    return _say(f"error: {error}. What was finished before is intact; {again}.", 4)


def _say(message: str, status: int) -> int:
    stopping.leave()
    tell(message)
    control.end(message, status)
    return status


if __name__ == "__main__":
    __doc__ = f"{__doc__}\nFields of the config:\n{describe()}\n"
    try:
        app.run(_guarded, flags_parser=_parse)
    except InputError as error:
        sys.exit(_say(f"error: {error}", 2))
