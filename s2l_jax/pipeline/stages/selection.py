"""Stage `selection`: one subset for every entry of `selection.runs`."""

import hashlib
from typing import Any

import numpy as np
from etils import epath

from s2l_jax.config import resolved_run
from s2l_jax.config.selection import OPTIONS, RUN_SCHEMA
from s2l_jax.console import say
from s2l_jax.data.identity import data_identity
from s2l_jax.data.pool import FieldMap
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.features import gradients
from s2l_jax.features.hidden_states import FOLDER as STATES
from s2l_jax.features.hidden_states import made_with, part_name, pool_states, query_rows, wanted_states
from s2l_jax.parallel import processes
from s2l_jax.pipeline.stages.choosing import Known, budget_of, chosen_by, chosen_by_hand, in_rounds
from s2l_jax.pipeline.stages.trajectories import tracked_rows
from s2l_jax.records import Record, stored_results
from s2l_jax.selection import METHODS, Selection
from s2l_jax.selection.export import missing_exports, write_exports
from s2l_jax.training.run import Run, what_decides
from s2l_jax.trajectories.load import Trajectories

# Options that records have always held; later ones are in them where they are not at their default.
_ALWAYS = ("num_clusters", "every", "stratify_by")


def select_all(run: Run, pools: dict[str, PreparedPool], trajectories: Trajectories | None) -> None:
    """Make every subset that is not there yet.

    Args:
      run: the run.
      pools: the pool as each model tokenises it, and under "rows" as any does; empty without one.
      trajectories: those that there are.

    Raises:
      InputError: nothing to select from, an input of a method that is missing, or a workdir that has
        another subset under a run's name.
    """
    runs = run.config.selection.runs
    pool = pools.get(counting_model(run), pools.get("rows"))
    if runs and pool is None and trajectories is None:
        raise InputError("selection needs a pool (pool.path) or trajectories (trajectories.path).")
    rows = tracked_rows(trajectories, None if pool is None else np.asarray(pool.ids))
    known = Known(pool, trajectories, rows, pools)
    _make_inputs(run, known)
    for name in sorted(runs, key=lambda name: bool(runs[name].within)):  # after what they are within
        _select_one(run, name, known)


def needs_of(method: str) -> frozenset[str]:
    """The inputs that a method cannot do without."""
    return METHODS[method].needs if method in METHODS else frozenset()


def models_of(run: Run) -> list[str]:
    """The models whose tokenisers the methods of a run need."""
    needs = frozenset().union(*(needs_of(entry.method) for entry in run.config.selection.runs.values()))
    models = [counting_model(run)]
    if "hidden_states" in needs:
        models.append(run.config.selection.states.model)
    if "gradients" in needs:
        models.append("target")
    return [model for model in models if model]


def check_methods(run: Run) -> None:
    """Find now what methods will lack.

    Raises:
      InputError: no pool, model or queries for a method that needs them.
    """
    for name, entry in run.config.selection.runs.items():
        needs = needs_of(entry.method)
        if not needs & {"hidden_states", "gradients"}:
            continue
        if not run.config.pool.path:
            raise InputError(f"selection.runs.{name}: method {entry.method!r} needs a pool: set pool.path.")
        if "hidden_states" in needs:
            model = run.model(run.config.selection.states.model)
            wanted_states(entry).check(model.config)
            if in_rounds(entry) and run.config.selection.states.model != "target":
                raise InputError(
                    f"selection.runs.{name}.rounds={entry.rounds}: it is the target that is trained between "
                    "rounds; set selection.states.model='target'."
                )
        if "gradients" in needs:
            run.model("target")
        if needs & {"query_states", "query_gradients"}:
            query_rows(run)


def counting_model(run: Run) -> str:
    """The model whose tokeniser counts tokens: the target, or the proxy where no target is named.

    Empty where neither is, or no run asks for tokens.
    """
    config = run.config
    if not any(_counts_tokens(resolved_run(config, name)) for name in config.selection.runs):
        return ""
    named = (model for model in ("target", "proxy") if config[model].checkpoint or config[model].tokenizer)
    return next(named, "")


def _counts_tokens(entry: dict[str, Any]) -> bool:
    return bool(entry["budget_tokens"]) or "response_tokens" in needs_of(str(entry["method"]))


def folder(run: Run, name: str) -> epath.Path:
    """Where a selection's artifacts are."""
    return run.workdir / "selection" / name


def _make_inputs(run: Run, known: Known) -> None:
    """Make now what several runs may share, so that its time is its own and not the first one's."""
    for name in run.config.selection.runs:
        entry = resolved_run(run.config, name)
        needs = needs_of(str(entry["method"]))
        made = stored_results(folder(run, name)) is not None
        if "gradients" in needs and not made:
            gradients.pool_gradients(run, known.pools["target"])
        if "hidden_states" in needs and not made and not in_rounds(entry):
            pool_states(run, known.pools[run.config.selection.states.model], wanted_states(entry))


def _select_one(run: Run, name: str, known: Known) -> None:
    entry = resolved_run(run.config, name)
    settings = _settings(run, name, entry)
    method, pool = str(entry["method"]), known.pool
    wanted = wanted_states(entry)
    made_from: dict[str, Any] = {}
    if pool is not None:
        made_from["pool_ids_sha256"] = hashlib.sha256(np.asarray(pool.ids).tobytes()).hexdigest()
    needs = needs_of(method)
    if _counts_tokens(entry) and pool is not None:
        made_from["tokens"] = pool.fingerprint
    if "trajectories" in needs and known.trajectories is not None:
        made_from["trajectories_sha256"] = known.trajectories.digest
    if "hidden_states" in needs:
        made_from["hidden_states"] = made_with(run, known.pools[run.config.selection.states.model], wanted)
    if "gradients" in needs:
        made_from["gradients"] = gradients.made_with(run, known.pools["target"])
    if in_rounds(entry):
        made_from["target"] = what_decides(run.config.target)
    if needs & {"query_states", "query_gradients"}:
        made_from["queries"] = data_identity(run.config.selection.queries)
    if method == "given":
        made_from["subset"] = data_identity(run.config.selection.path)
    record = Record(folder(run, name), f"selection/{name}", settings | made_from)
    if record.done:
        _export(run, record.folder, None, pool)
        return
    if method == "given":
        selection = chosen_by_hand(run, pool)
    elif entry["within"]:
        selection = Selection.load(folder(run, str(entry["within"]))).first(**budget_of(entry))
    else:
        selection = chosen_by(run, entry, settings, known, needs, record.folder)
    if processes.is_writer():
        losses = known.trajectories
        if losses is not None and run.config.selection.table_losses:
            selection.save(record.folder, trajectories=losses.losses, rows=known.rows)
        else:
            selection.save(record.folder)
        _export(run, record.folder, selection, pool)
    sizes = selection.cluster_sizes
    record.finish(
        {
            "method": selection.method,
            # Comparisons go by examples; how else the budget was said is in `asked`.
            "budget": selection.budget if _in_examples(selection) else len(selection.indices),
            **({} if _in_examples(selection) else {"asked": budget_of(entry)}),
            "size": len(selection.indices),
            "seed": selection.seed,
            "options": selection.options,
            "num_clusters": len(sizes),
            "cluster_sizes": sizes,
            "picked_per_cluster": selection.picked_per_cluster,
            "sources": {name: picked for name, (_, picked) in selection.source_counts.items()},
            "indices_sha256": hashlib.sha256(selection.indices.tobytes()).hexdigest(),
            **({"used": used} if (used := _used(run, entry, needs)) else {}),
        }
        | _slice_note(selection)
    )
    say(f"selection {name}: {_described(selection)}")


def _settings(run: Run, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """What the record of a run holds: everything that decides its subset, and nothing else."""
    method = entry["method"]
    settings = {"method": method, "seed": entry["seed"]}
    settings |= {field: value for field, value in entry.items() if field.startswith("budget") and value}
    if entry["within"]:
        settings["within"] = entry["within"]
    for option in OPTIONS.get(method, ()):
        if option in _ALWAYS or entry[option] != RUN_SCHEMA[option].default:
            settings[option] = entry[option]
    if method == "s2l":
        settings["min_cluster_size"] = run.config.selection.min_cluster_size
    # Only a run that asks for it by name draws its random subset source by source.
    if method == "random" and run.config.selection.runs[name].stratify_by == "inherit":
        settings.pop("stratify_by")
    return settings


def _used(run: Run, entry: dict[str, Any], needs: frozenset[str]) -> list[str]:
    """The parts of the workdir, other than the proxy and its sweeps, that a subset was made with."""
    if "gradients" in needs:
        return [gradients.FOLDER]
    shared = "hidden_states" in needs and not in_rounds(entry)
    return [f"{STATES}/{part_name(run, wanted_states(entry))}"] if shared else []


def _in_examples(selection: Selection) -> bool:
    return selection.unit == "examples" and not isinstance(selection.budget, float)


def _slice_note(selection: Selection) -> dict[str, Any]:
    if selection.num_candidates == len(selection.labels):
        return {}
    return {"slice": {"size": selection.num_candidates, "pool": len(selection.labels)}}


def _described(selection: Selection) -> str:
    """One line on a selection."""
    size, candidates, pool = len(selection.indices), selection.num_candidates, len(selection.labels)
    text = f"{size} of {candidates} examples"
    if selection.unit == "tokens" and selection.num_tokens is not None:
        text += f", {int(selection.num_tokens[selection.indices].sum())} tokens"
    if candidates < pool:
        text += f", a slice of the pool's {pool}"
        if _in_examples(selection) and selection.budget > candidates:
            text += f": all of it, for the budget of {selection.budget} is above it"
    count = len(selection.centroids)
    return f"{text}, {count} clusters" if count else text


def _export(run: Run, place: epath.Path, selection: Selection | None, pool: PreparedPool | None) -> None:
    """Write the files of the chosen rows that the config asks for and that are not there."""
    if pool is None or not processes.is_writer():
        return
    wanted = [name.strip() for name in run.config.selection.exports.split(",") if name.strip()]
    if lacking := missing_exports(place, wanted):
        selection = selection or Selection.load(place)
        fields = FieldMap(**run.config.pool.fields.to_dict())
        write_exports(place, selection, pool.originals, lacking, fields)
