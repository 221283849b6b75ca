"""Checks of a config: names, types and values of its fields, and what fields must agree on."""

import math
import string
from typing import Any

from ml_collections import ConfigDict

from s2l_jax.config.fields import Field, Group, unknown
from s2l_jax.config.inputs import GROUPS, OWN
from s2l_jax.config.runs import BUDGETS, COMMON, UNTUNED, options, run_schema
from s2l_jax.config.schema import SCHEMA
from s2l_jax.data.chat import CHAT
from s2l_jax.errors import InputError, nearest

_MADE_BEFORE = ("path", "snapshots", "checkpoints")  # what trajectories start from instead of training
_NAME_CHARACTERS = {*string.ascii_letters, *string.digits, *"_-+"}


def validate(config: ConfigDict) -> None:
    """Check names, types and values of every field, and that they agree with each other.

    What depends on the pool's size or the devices is checked when those are known.

    Raises:
      InputError: names the first bad field, its value and what it may be.
    """
    values = config.to_dict()
    runs = values["selection"].pop("runs", {}) if isinstance(values.get("selection"), dict) else {}
    proxies = values.pop("proxies", {})
    _check_fields(values, SCHEMA, "")
    if not isinstance(runs, dict):
        raise InputError(f"selection.runs={runs!r}: needs a group of runs by name.")
    _check_proxies(proxies, values)
    for name, entry in runs.items():
        _check_name(name, "selection.runs", "run")
        if name == UNTUNED:
            raise InputError(
                f"selection.runs.{name}: results have the untuned target by that name; use another."
            )
        _check_entry(entry, f"selection.runs.{name}.")
        if (proxy := entry.get("proxy", "")) and proxy not in proxies:
            raise InputError(
                f"selection.runs.{name}.proxy={proxy!r}: no such proxy in `proxies`{nearest(proxy, proxies)}"
            )
    for model in ("proxy", "target"):
        _check_model(values[model], model)
    _check_trajectories(values["trajectories"], values["proxy"])
    _check_evaluation(values["evaluation"])
    tokenize = values["tokenize"]
    if tokenize["turns"] == "all" and tokenize["prompt"] != CHAT:
        raise InputError(
            f"tokenize.turns='all' is for conversations, and tokenize.prompt={tokenize['prompt']!r} has room "
            f"for one turn: set tokenize.prompt={CHAT!r}, or tokenize.turns='last'."
        )
    if "official" in values["selection"]["exports"] and values["tokenize"]["prompt"] == CHAT:
        raise InputError(
            "selection.exports has 'official', whose rows are an instruction and a response, and "
            f"tokenize.prompt={CHAT!r} is for conversations: leave one of the two out."
        )
    _check_budget(values["selection"], "selection.", BUDGETS[1:])
    for name in runs:
        _check_budget(runs[name], f"selection.runs.{name}.", BUDGETS)
        _check_prefix(name, runs)
    for field in ("report.baseline", "analysis.run"):
        group, _, last = field.partition(".")
        if (named := values[group][last]) and named not in runs:
            raise InputError(f"{field}={named!r}: no such run in selection.runs{nearest(named, runs)}")


def _check_name(name: str, group: str, what: str) -> None:
    if not name or set(name) - _NAME_CHARACTERS:
        raise InputError(f"{group}.{name}: a {what} is named in letters, digits, '_', '-' and '+'.")


def _check_proxies(proxies: Any, values: dict[str, Any]) -> None:
    """Check other proxies, of which fields are given that differ from those of `proxy` and `trajectories`."""
    if not isinstance(proxies, dict):
        raise InputError(f"proxies={proxies!r}: needs a group of proxies by name.")
    for name, own in proxies.items():
        _check_name(name, "proxies", "proxy")
        if name == OWN:
            raise InputError(f"proxies.{name}: the config's own proxy is called so; use another name.")
        if not isinstance(own, dict) or set(own) - set(GROUPS):
            raise InputError(f"proxies.{name}={own!r}: needs groups of fields {' and '.join(GROUPS)}.")
        if own.get("proxy", {}).get("per_seed"):
            raise InputError(
                f"proxies.{name}.proxy.per_seed=True: set proxy.per_seed, which is for all proxies."
            )
        merged = {}
        for group in GROUPS:
            merged[group] = _merged(values[group], own.get(group, {}), f"proxies.{name}.{group}")
            _check_fields(merged[group], SCHEMA[group], f"proxies.{name}.{group}.")
        try:
            _check_model(merged["proxy"], "proxy")
            _check_trajectories(merged["trajectories"], merged["proxy"])
        except InputError as error:
            raise InputError(f"proxies.{name}: {error}") from None


def _merged(values: dict[str, Any], own: Any, path: str) -> dict[str, Any]:
    if not isinstance(own, dict):
        raise InputError(f"{path}={own!r}: is not a group of fields.")
    inner = {
        n: _merged(values[n], v, f"{path}.{n}") for n, v in own.items() if isinstance(values.get(n), dict)
    }
    return values | own | inner


def _check_fields(values: Any, schema: dict[str, Any], prefix: str) -> None:
    if not isinstance(values, dict):
        raise InputError(f"{prefix.rstrip('.')}: {values!r} is not a group of fields.")
    for name in values:
        if name not in schema:
            raise InputError(f"{prefix}{name}: no such field{unknown(name, schema)}")
    for name, field in schema.items():
        path = prefix + name
        if name not in values:
            raise InputError(f"{path}: missing; start the config from s2l_jax.config.default().")
        if isinstance(field, Group):
            _check_fields(values[name], field, f"{path}.")
        else:
            _check_value(path, values[name], field)


def _check_value(path: str, value: Any, field: Field) -> None:
    kind = type(field.default)
    if kind is float and type(value) is int:
        value = float(value)
    fits = type(value) in field.types
    if fits and kind is float:
        fits = math.isfinite(value)
    if fits and kind is tuple:
        fits = all(type(item) is field.items for item in value)
    if not fits:
        raise InputError(f"{path}={value!r}: needs {field.kind}.")
    if kind is tuple and field.choices:
        for item in value:
            if item not in field.choices:
                what = path.rpartition(".")[2].removesuffix("s")
                raise InputError(
                    f"{path}={value!r}: no {what} {item!r}{nearest(item, map(str, field.choices))}"
                )
    if not field.check(value):
        raise InputError(f"{path}={value!r}: must be {field.allowed}.")


def _check_model(model: dict[str, Any], name: str) -> None:
    train = model["train"]
    if train["batch_size"] % train["accumulation"]:
        raise InputError(
            f"{name}.train.batch_size={train['batch_size']} does not divide by "
            f"{name}.train.accumulation={train['accumulation']}."
        )
    if model["init"] == "random" and not (model["model_config"] or model["checkpoint"]):
        raise InputError(f"{name}.init='random' needs {name}.model_config, a config.json.")
    if name == "proxy":
        return
    if model["use_weights"] and train["loss"] != "example":
        raise InputError("target.use_weights=True needs target.train.loss='example'.")
    lora = model["lora"]
    if lora["rank"] and lora["export"] == "adapter" and model["init"] == "random":
        raise InputError(
            "target.lora.export='adapter' is of no use without its base, and target.init='random' keeps "
            "none: use 'merged'."
        )


def _check_trajectories(asked: dict[str, Any], proxy: dict[str, Any]) -> None:
    """What can be known before the length of the run and the pool; `trajectories.cadence` has the rest."""
    cadence, every, by_training = asked["cadence"], asked["every"], asked["source"] == "train"
    if bool(asked["steps"]) != (cadence == "list"):
        raise InputError(
            f"trajectories.steps={asked['steps']!r} and trajectories.cadence={cadence!r}: steps are "
            "listed with cadence='list', and only with it."
        )
    steps, sweeps = proxy["train"]["steps"], not (any(asked[name] for name in _MADE_BEFORE) or by_training)
    if sweeps and cadence == "every" and 0 < steps < every:
        raise InputError(
            f"trajectories.every={every} is longer than the proxy's run of {steps} steps: no "
            "loss would ever be measured. Lower it, or raise proxy.train.steps."
        )
    whole = {"slice_count": 0, "slice_fraction": 1.0, "slice_ids": ""}
    slices = [f"trajectories.{name}={asked[name]!r}" for name in whole if asked[name] != whole[name]]
    if len(slices) > 1:
        raise InputError(f"{' and '.join(slices)}: these are ways to ask for one slice; set one of them.")
    if proxy["per_seed"] and (made := next((n for n in _MADE_BEFORE if asked[n]), "")):
        raise InputError(
            f"proxy.per_seed=True trains a proxy for each seed, and trajectories.{made}={asked[made]!r} is "
            "of one proxy: leave one of the two out."
        )
    if len(given := [f"trajectories.{name}" for name in _MADE_BEFORE if asked[name]]) > 1:
        raise InputError(f"{' and '.join(given)}: set the one to start from.")
    if slices and asked["path"]:
        raise InputError(f"{slices[0]}: trajectories.path has its own rows; leave one of the two out.")
    of_sweeps = {
        "proxy.save_params": proxy["save_params"],
        "trajectories.snapshots": asked["snapshots"],
        "trajectories.checkpoints": asked["checkpoints"],
        "trajectories.stop_when_stable": asked["stop_when_stable"],
        "trajectories.step_zero": asked["step_zero"],
    }
    for name, is_set in of_sweeps.items():
        if is_set and by_training:
            raise InputError(
                f"{name} is for sweeps, and with trajectories.source='train' there are none: leave one of "
                "the two out."
            )

    made = next((f"trajectories.{name}={asked[name]!r}" for name in _MADE_BEFORE if asked[name]), "")
    for name in ("proxy.save_params", "trajectories.stop_when_stable"):
        if made and of_sweeps[name]:
            raise InputError(
                f"{name} is for a proxy that is trained here, and {made} trains none: leave one of the two "
                "out."
            )


def _check_evaluation(evaluation: dict[str, Any]) -> None:
    mode = evaluation["mode"]
    evaluates = evaluation["path"] or any("=" in name for name in evaluation["benchmarks"])
    if evaluates and mode != "text" and not evaluation["run_programs"]:
        raise InputError(
            f"evaluation.mode={mode!r} runs the programs that the model writes: set "
            "evaluation.run_programs=True once docs/design/security.md suits you, or evaluation.mode='text'."
        )
    if mode != "text" and evaluation["metrics"] != ("accuracy",):
        raise InputError(
            f"evaluation.mode={mode!r}: programs give answers, so evaluation.metrics=('accuracy',)."
        )
    if evaluation["shots_path"] and not evaluation["shots"]:
        raise InputError(
            f"evaluation.shots_path={evaluation['shots_path']!r}: say how many examples, evaluation.shots."
        )


def _check_budget(values: dict[str, Any], where: str, names: tuple[str, ...]) -> None:
    if len(asked := [f"{where}{name}={values[name]!r}" for name in names if values[name]]) > 1:
        raise InputError(f"{' and '.join(asked)}: these are ways to say one budget; set one of them.")


def _check_entry(entry: Any, where: str) -> None:
    """The fields of a selection run, which are those of its method.

    Options of the method that it was made with may be left in it at their defaults, and those of its own be
    missing, as the method can be set on the command line.
    """
    if not isinstance(entry, dict):
        raise InputError(f"{where.rstrip('.')}: {entry!r} is not a group of fields.")
    method = entry.get("method", COMMON["method"].default)
    _check_value(f"{where}method", method, COMMON["method"])
    try:
        schema = run_schema(method)
    except InputError as error:
        raise InputError(f"{where}method={method!r}: {error}") from error
    defaults = {name: field.default for name, field in schema.items() if name not in COMMON}
    own = {n: value for n, value in entry.items() if n in schema or not _is_left_over(n, entry, where)}
    _check_fields(defaults | own, schema, where)


def _is_left_over(name: str, entry: dict[str, Any], where: str) -> bool:
    from s2l_jax.selection.method import METHODS

    having = {other: options(METHODS[other])[name] for other in METHODS if name in options(METHODS[other])}
    if having and entry[name] not in [option.field().default for option in having.values()]:
        raise InputError(
            f"{where}{name}={entry[name]!r}: method {entry['method']!r} has no such option; it is one of "
            f"{', '.join(sorted(having))}."
        )
    return bool(having)


def _check_prefix(name: str, runs: dict[str, dict[str, Any]]) -> None:
    entry = runs[name]
    if not (outer := entry["prefix_of"]):
        return
    where = f"selection.runs.{name}.prefix_of={outer!r}"
    if outer not in runs:
        raise InputError(f"{where}: no such run{nearest(outer, runs)}")
    if outer == name or runs[outer]["prefix_of"]:
        raise InputError(f"{where}: name a run that is no prefix of another itself.")
    free = {*BUDGETS, "prefix_of", "train_target"}
    if other := [field for field in entry if field not in free and entry[field] != runs[outer].get(field)]:
        raise InputError(
            f"{where}: a subset of another has all of that one's settings, and {', '.join(other)} differ."
        )
