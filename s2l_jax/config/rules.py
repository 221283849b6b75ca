"""What fields of a config must agree on; each by itself is checked where it is declared, in `config`."""

from typing import Any

from s2l_jax.config.runs import BUDGETS
from s2l_jax.config.selection import EXPORTS
from s2l_jax.errors import InputError
from s2l_jax.registry import nearest

METRICS = ("accuracy", "bleu", "rouge", "bertscore")
PROJECTIONS = ("query", "key", "value", "out", "gate", "up", "down")  # of a layer; some have no gate


def check_together(values: dict[str, Any]) -> None:
    """Check what can be known of a config before the pool and the devices are.

    Raises:
      InputError: names the fields that disagree and their values.
    """
    for model in ("proxy", "target"):
        train = values[model]["train"]
        if train["batch_size"] % train["accumulation"]:
            raise InputError(
                f"{model}.train.batch_size={train['batch_size']} does not divide by "
                f"{model}.train.accumulation={train['accumulation']}."
            )
        settings = values[model]
        if settings["init"] == "random" and not (settings["model_config"] or settings["checkpoint"]):
            raise InputError(f"{model}.init='random' needs {model}.model_config, a config.json.")
    if values["target"]["use_weights"] and values["target"]["train"]["loss"] != "example":
        raise InputError("target.use_weights=True needs target.train.loss='example'.")
    _check_lora(values["target"])
    _check_cadence(values["trajectories"], values["proxy"]["train"]["steps"])
    _check_slice(values["trajectories"])
    counts_to_compare(values["clustering"]["compare"])
    _check_source(values["trajectories"], values["proxy"]["keep"])
    _check_evaluation(values["evaluation"])


def check_runs(selection: dict[str, Any], runs: dict[str, dict[str, Any]]) -> None:
    """Check budgets, options and exports of the selection runs.

    Raises:
      InputError: two budgets for one run, a prefix of
        a run that there is not, or an unknown export.
    """
    _check_budget(selection, "selection.", BUDGETS[1:])
    for name in selection["exports"].split(","):
        if name.strip() and name.strip() not in EXPORTS:
            raise InputError(f"selection.exports: no export {name.strip()!r}{nearest(name.strip(), EXPORTS)}")
    for name, entry in runs.items():
        _check_budget(entry, f"selection.runs.{name}.", BUDGETS)
        _check_prefix(name, runs)


def _check_budget(values: dict[str, Any], where: str, names: tuple[str, ...]) -> None:
    if len(asked := [f"{where}{name}={values[name]!r}" for name in names if values[name]]) > 1:
        raise InputError(f"{' and '.join(asked)}: these are ways to say one budget; set one of them.")


def _check_prefix(name: str, runs: dict[str, dict[str, Any]]) -> None:
    entry = runs[name]
    if not (outer := entry["prefix_of"]):
        return
    where = f"selection.runs.{name}.prefix_of={outer!r}"
    if outer not in runs:
        raise InputError(f"{where}: no such run{nearest(outer, runs)}")
    if outer == name or runs[outer]["prefix_of"]:
        raise InputError(f"{where}: name a run that is not a prefix of another itself.")
    free = {*BUDGETS, "prefix_of", "train_target"}
    if other := [field for field in entry if field not in free and entry[field] != runs[outer].get(field)]:
        raise InputError(
            f"{where}: a subset of another has all of that one's settings, and {', '.join(other)} differ."
        )


def _check_cadence(trajectories: dict[str, Any], steps: int) -> None:
    """What can be known of the cadence before the length of the run; `trajectories.cadence` has the rest."""
    cadence, every = trajectories["cadence"], trajectories["every"]
    if bool(trajectories["steps"]) != (cadence == "list"):
        raise InputError(
            f"trajectories.steps={trajectories['steps']!r} and trajectories.cadence={cadence!r}: steps are "
            "listed with cadence='list', and only with it."
        )
    unused = trajectories["path"] or trajectories["snapshots"] or trajectories["source"] == "train"
    if cadence == "every" and steps and every > steps and not unused:
        raise InputError(
            f"trajectories.every={every} is longer than the proxy's run of {steps} steps: no "
            "loss would ever be measured. Lower it, or raise proxy.train.steps."
        )


def counts_to_compare(text: str) -> list[int]:
    """The numbers of clusters that `clustering.compare` lists.

    Raises:
      InputError: not different whole numbers from 2 up.
    """
    try:
        counts = [int(part) for part in text.split(",")] if text.strip() else []
    except ValueError:
        counts = [0]
    if counts and (min(counts) < 2 or len(set(counts)) < len(counts)):
        raise InputError(
            f"clustering.compare={text!r}: different whole numbers from 2 up, with commas between, such as "
            "25,50,100."
        )
    return counts


def _check_slice(trajectories: dict[str, Any]) -> None:
    """At most one way to say which rows, and one place to take losses from."""
    whole = {"slice_count": 0, "slice_fraction": 1.0, "slice_ids": ""}
    asked = [
        f"trajectories.{n}={trajectories[n]!r}"
        for n, all_rows in whole.items()
        if trajectories[n] != all_rows
    ]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)}: these are ways to ask for one slice; set one of them.")
    if trajectories["path"] and trajectories["snapshots"]:
        raise InputError("trajectories.path and trajectories.snapshots: set the one to start from.")
    if asked and trajectories["path"]:
        raise InputError(f"{asked[0]}: trajectories.path has its own rows; leave one of the two out.")


def _check_source(trajectories: dict[str, Any], keep: str) -> None:
    asked = {
        "proxy.keep": keep != "none",
        "trajectories.snapshots": bool(trajectories["snapshots"]),
        "trajectories.stop_when_stable": bool(trajectories["stop_when_stable"]),
    }
    for name, is_set in asked.items():
        if is_set and trajectories["source"] == "train":
            raise InputError(
                f"{name} is for sweeps, and with trajectories.source='train' there are none: leave one of "
                "the two out."
            )


def _check_evaluation(evaluation: dict[str, Any]) -> None:
    mode, metrics = evaluation["mode"], [m.strip() for m in evaluation["metrics"].split(",")]
    for name in metrics:
        if name not in METRICS:
            raise InputError(f"evaluation.metrics: no metric {name!r}{nearest(name, METRICS)}")
    evaluates = evaluation["path"] or "=" in evaluation["benchmarks"]
    if evaluates and mode != "text" and not evaluation["run_programs"]:
        raise InputError(
            f"evaluation.mode={mode!r} runs the programs that the model writes: set "
            "evaluation.run_programs=True once docs/security.md suits you, or evaluation.mode='text'."
        )
    if mode != "text" and metrics != ["accuracy"]:
        raise InputError(
            f"evaluation.mode={mode!r}: programs give answers, so evaluation.metrics='accuracy'."
        )
    if evaluation["shots_path"] and not evaluation["shots"]:
        raise InputError(
            f"evaluation.shots_path={evaluation['shots_path']!r}: say how many examples, evaluation.shots."
        )


def _check_lora(target: dict[str, Any]) -> None:
    lora = target["lora"]
    if lora["projections"] != "all":
        for name in lora["projections"].split(","):
            if name.strip() not in PROJECTIONS:
                hint = nearest(name.strip(), (*PROJECTIONS, "all"))
                raise InputError(f"target.lora.projections: no projection {name.strip()!r}{hint}")
    if lora["rank"] and lora["export"] == "adapter" and target["init"] == "random":
        raise InputError(
            "target.lora.export='adapter' is of no use without its base, and target.init='random' keeps "
            "none: use 'merged'."
        )
