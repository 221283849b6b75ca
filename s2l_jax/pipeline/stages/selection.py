"""Stage `selection`: one subset for every entry of `selection.runs`."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int64
from ml_collections import ConfigDict

from s2l_jax import records
from s2l_jax.config import deciding_run, resolved_run
from s2l_jax.config.inputs import Inputs
from s2l_jax.config.runs import method_of
from s2l_jax.console import say, waiting
from s2l_jax.data.pool import FieldMap
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.data.row_ids import ids_sha256
from s2l_jax.errors import InputError
from s2l_jax.features.feature import FEATURES, SelectionContext
from s2l_jax.features.inputs import inputs_of, part_of, settings_of
from s2l_jax.features.response_tokens import counting_models
from s2l_jax.parallel import processes
from s2l_jax.pipeline.plan import proxy_inputs, proxy_part
from s2l_jax.records import Record, stored_results
from s2l_jax.report.runs import clusters_losses
from s2l_jax.selection import Method, Selection, SelectionInputs, select
from s2l_jax.selection.budget import Budget
from s2l_jax.selection.export import FILES, missing_exports, write_exports
from s2l_jax.selection.known import Known
from s2l_jax.selection.selector import select_from_slice
from s2l_jax.selection.suspects import num_unlearnt
from s2l_jax.training.out_of_memory import explained
from s2l_jax.training.run import Run
from s2l_jax.trajectories.cadence import FEW_CHECKPOINTS
from s2l_jax.trajectories.load import Trajectories

Contexts = Mapping[Inputs, SelectionContext]  # by whose trajectories and features they have


def select_all(run: Run, contexts: Contexts) -> None:
    """Make every subset that is not there yet.

    Raises:
      InputError: nothing to select from, an input of a method that is missing, or a workdir that has
        another subset under a run's name.
    """
    runs, known = run.config.selection.runs, contexts.values()
    there = [each.trajectories for each in known if each.trajectories is not None]
    if runs and not there and all(each.pool is None for each in known):
        raise InputError("selection needs a pool (pool.path) or trajectories (trajectories.path).")
    check_known(run, contexts)
    _say_what_lacks(run, contexts)
    _make_parts(run, contexts)
    for name in sorted(runs, key=lambda name: bool(runs[name].prefix_of)):  # after what they are prefixes of
        _select_one(run, contexts, name)


def _say_what_lacks(run: Run, contexts: Contexts) -> None:
    """Say what cannot be made, and how methods go, without the pool's rows."""
    if any(context.pool is not None for context in contexts.values()):
        return
    if exports := ", ".join(run.config.selection.exports):
        say(f"no pool.path: subsets are row numbers (indices.npy), not {exports}")
    entries = {name: resolved_run(run.config, name) for name in run.config.selection.runs}
    if by := [name for name, entry in entries.items() if entry.get("stratify_by") == "source"]:
        say(f"no pool.path: there are no sources that {', '.join(by)} could split the budget over")


def check_content(run: Run, contexts: Contexts) -> None:
    """Raise an InputError if a subset was made from other trajectories, queries or lists than there are now.

    What goes by tokens is compared by the settings that they follow from (`pipeline.plan`).
    """
    for name in run.config.selection.runs:
        entry, method = _run(run, name)
        content: dict[str, Any] = {}
        for feature in method.features.values():
            if not feature.models(run.config):
                content |= feature.content(contexts[inputs_of(feature, run.config, entry)], entry)
        records.check_content(folder(run, name), f"selection/{name}", content)


def contexts_of(
    run: Run,
    pools: dict[str, PreparedPool],
    trajectories: Mapping[Inputs, Trajectories | None],
    rows: Mapping[Inputs, Int64[np.ndarray, "s"] | None],
) -> Contexts:
    """What the run's selections are from.

    Args:
      run: in whose workdir.
      pools: the pool as each model tokenises it, and under "rows" as any does; empty without one.
      trajectories: by their proxy (see `Plan.inputs`), where there are some.
      rows: by the same, the pool rows that they are of; None for all.
    """
    config, runs = run.config, run.config.selection.runs
    counting = counting_models(config) if any(_counts_tokens(run, name) for name in runs) else ()
    pool = next((pools[model] for model in (*counting, "rows") if model in pools), None)
    used = dict.fromkeys([Inputs.of(config)])
    for name in runs:
        entry, method = _run(run, name)
        features = (FEATURES.find("trajectories"), *method.features.values())
        used |= dict.fromkeys(inputs_of(feature, config, entry) for feature in features)
    return {
        inputs: SelectionContext(
            run.inputs_of(inputs),
            pool,
            trajectories.get(inputs),
            rows.get(inputs),
            pools | ({"proxy": pools[inputs.model]} if inputs.model in pools else {}),
        )
        for inputs in used
    }


def check_known(run: Run, contexts: Contexts, planned: Mapping[Inputs, Sequence[int]] | None = None) -> None:
    """Raise an InputError for what methods say they cannot work with, of the selections that are to be made.

    `planned` are the steps that trajectories will be of, by their proxy, where there are none yet.
    """
    few: dict[int, list[str]] = {}  # the runs that cluster trajectories of so few checkpoints
    for name in run.config.selection.runs:
        entry, method = _run(run, name)
        if stored_results(folder(run, name)) is not None:
            continue
        by_losses = "trajectories" in method.needs
        context = _losses_of(contexts, run.config, entry)
        pool = _inputs(context)
        inputs = pool.rows(context.rows) if by_losses and context.rows is not None else pool
        size = inputs.num_examples
        if entry["prefix_of"]:
            _check_prefix(name, entry, resolved_run(run.config, entry["prefix_of"]), size)
            continue
        count = size if method.takes_all else Budget(*_budget(entry).values()).most(size, inputs.num_tokens)
        own = proxy_inputs(run.config, entry)
        steps = (planned or {}).get(own) if own is not None else None
        if context.trajectories is not None:
            steps = context.trajectories.steps.tolist()
        known = Known(size, count, inputs.sources, steps)
        try:
            _check_left(entry, method, known)
            method.check(known, **{option: entry[option] for option in method.own_options})
            for feature in method.features.values():
                feature.check_steps(steps, entry)
        except InputError as error:
            raise InputError(f"selection.runs.{name}: {error}") from None
        # Of a proxy of this workdir it is said with the plan, of other losses once they are read.
        given = own is not None and bool(own.config(run.config).trajectories.path)
        is_news = own in planned if planned else given
        clusters = {"method": entry["method"], "options": {"features": entry.get("features", "")}}
        if is_news and steps is not None and len(steps) < FEW_CHECKPOINTS and clusters_losses(clusters):
            few.setdefault(len(steps), []).append(name)
    for number, names in few.items():
        say(
            f"{', '.join(names)}: clusters will be of losses at {number} checkpoint{'s' * (number > 1)}, "
            "where the official settings measure at 12"
        )


def _check_prefix(name: str, entry: dict[str, Any], outer: dict[str, Any], size: int) -> None:
    """Raise an InputError for a subset of another that is larger than that; in other units it shows later."""
    inner, whole = (Budget(*_budget(each).values()) for each in (entry, outer))
    if inner.unit != whole.unit:
        return
    own, most = (each.amount if each.unit == "tokens" else each.most(size, None) for each in (inner, whole))
    if own > most:
        raise InputError(
            f"selection.runs.{name}: its budget of {own} {inner.unit} is above the {most} of "
            f"{entry['prefix_of']!r}, of which it is to be a part: exchange the two, or lower it."
        )


def _check_left(entry: dict[str, Any], method: Method, known: Known) -> None:
    """Raise an InputError for a filter that is known to leave fewer rows than the budget, or lacks losses."""
    share, size = entry["drop_unlearnt"], known.num_examples
    if entry["drop_rising"]:
        known.check_columns(2, "drop_rising")
    if not share:
        return
    left = size - num_unlearnt(known.sources, size, share)
    within = bool(entry["budget_fraction"]) or entry["budget"] <= size  # above it: all that there are
    if left < known.count and within and not method.takes_all and not entry["budget_tokens"]:
        raise InputError(
            f"drop_unlearnt={share} leaves {left} of {size} examples, fewer than the budget of {known.count}"
            ": lower one of them"
        )


def needs_trajectories(config: ConfigDict) -> bool:
    """Whether a method of the config goes by trajectories, or else by the proxy."""
    return any(proxy_inputs(config, resolved_run(config, name)) is not None for name in config.selection.runs)


def check_needs(config: ConfigDict) -> None:
    """Raise an InputError for a pool or proxy that the config lacks for a method, or has in vain."""
    for name in config.selection.runs:
        entry = resolved_run(config, name)
        method = method_of(entry)
        going_by = (inputs_of(feature, config, entry).proxy for feature in method.features.values())
        if entry["proxy"] and not any(going_by):
            raise InputError(
                f"selection.runs.{name}.proxy={entry['proxy']!r}: method {method.name!r} goes by no proxy."
            )
        if not config.pool.path and any(feature.needs_pool for feature in method.features.values()):
            raise InputError(f"selection.runs.{name}: method {method.name!r} needs a pool: set pool.path.")


def check_methods(run: Run) -> None:
    """Raise an InputError now for a model or queries that a method will lack."""
    for name in run.config.selection.runs:
        entry, method = _run(run, name)
        for feature in method.features.values():
            feature.check(run.inputs_of(inputs_of(feature, run.config, entry)), name, entry)


def folder(run: Run, name: str) -> epath.Path:
    """Where a selection's artifacts are."""
    return run.workdir / "selection" / name


def losses_of(run: Run, contexts: Contexts, name: str) -> tuple[Trajectories, Int64[np.ndarray, "s"] | None]:
    """The trajectories that a selection went by, and the pool rows that they are of (None: all).

    Raises:
      InputError: there are none.
    """
    context = _losses_of(contexts, run.config, resolved_run(run.config, name))
    if context.trajectories is None:
        raise InputError(f"selection.runs.{name}: there are no trajectories; run the stage proxy first.")
    return context.trajectories, context.rows


def _run(run: Run, name: str) -> tuple[dict[str, Any], Method]:
    entry = resolved_run(run.config, name)
    return entry, method_of(entry)


def _counts_tokens(run: Run, name: str) -> bool:
    entry, method = _run(run, name)
    return bool(entry["budget_tokens"]) or "response_tokens" in method.needs


def _losses_of(contexts: Contexts, config: ConfigDict, entry: dict[str, Any]) -> SelectionContext:
    """The context with the trajectories of a run."""
    return contexts[inputs_of(FEATURES.find("trajectories"), config, entry)]


def _make_parts(run: Run, contexts: Contexts) -> None:
    """Make now what several runs may share, so that its time is its own and not the first one's."""
    for name in run.config.selection.runs:
        entry, method = _run(run, name)
        if stored_results(folder(run, name)) is None:
            for feature in method.features.values():
                if part_of(feature, run.config, entry):
                    with explained(run.config, "features"):
                        feature.make(
                            contexts[inputs_of(feature, run.config, entry)], entry, folder(run, name)
                        )


def _select_one(run: Run, contexts: Contexts, name: str) -> None:
    entry, method = _run(run, name)
    context = _losses_of(contexts, run.config, entry)
    pool = context.pool
    made_from: dict[str, Any] = {}
    for feature in method.features.values():
        made_from |= settings_of(feature, run.config, entry)
        made_from |= feature.content(contexts[inputs_of(feature, run.config, entry)], entry)
    if pool is not None:
        made_from["pool.ids_sha256"] = ids_sha256(pool.ids)
        if entry["budget_tokens"]:
            made_from["pool.token_counts"] = pool.fingerprint
    record = Record(folder(run, name), f"selection/{name}", deciding_run(run.config, name, made_from))
    if record.done:
        _export(run, record.folder, None, pool)
        return
    if entry["prefix_of"]:
        outer = Selection.load(folder(run, entry["prefix_of"]))
        if entry["budget_tokens"]:  # those of the larger one may have been counted for another model
            outer = dataclasses.replace(outer, num_tokens=_inputs(context).num_tokens)
        selection = outer.first(**_budget(entry))
    else:
        try:
            with explained(run.config, "features"), waiting(f"selecting {name}"):
                selection = _run_method(run.config, contexts, entry, record.folder)
        except Exception as error:
            error.add_note(f"This was in selection.runs.{name}, method {entry['method']!r}.")
            raise
    if processes.is_writer():
        losses = context.trajectories
        if losses is not None and run.config.selection.table_losses:
            selection.save(record.folder, trajectories=losses.losses, rows=context.rows)
        else:
            selection.save(record.folder)
        _export(run, record.folder, selection, pool)
    sizes, asked, size = selection.cluster_sizes, selection.num_asked, len(selection.labels)
    inputs = proxy_inputs(run.config, entry)
    proxy = proxy_part(run.config, inputs) if inputs is not None else ""
    parts = [proxy, *(part_of(feature, run.config, entry) for feature in method.features.values())]
    record.finish(
        {
            "method": selection.method,
            # Comparisons go by examples that there are; how else the budget was said is in `asked`.
            "budget": min(selection.budget, asked) if _in_examples(selection) else len(selection.indices),
            **({} if _in_examples(selection) else {"asked": _budget(entry)}),
            "size": len(selection.indices),
            "seed": selection.seed,
            "options": selection.options,
            "num_clusters": len(sizes),
            "cluster_sizes": sizes,
            "picked_per_cluster": selection.picked_per_cluster,
            "sources": {name: picked for name, (_, picked) in selection.source_counts.items()},
            "indices_sha256": hashlib.sha256(selection.indices.tobytes()).hexdigest(),
            # The parts of the workdir that the subset was made with, whose cost it is charged.
            **({"used": used} if (used := [part for part in parts if part]) else {}),
            **({} if asked == size else {"slice": {"size": asked, "pool": size}}),
            **({"num_left_out": left_out} if (left_out := selection.num_left_out) else {}),
        }
    )
    say(f"selection {name}: {_described(selection)}")


def _run_method(
    config: ConfigDict, contexts: Contexts, entry: dict[str, Any], place: epath.Path
) -> Selection:
    """The subset of one entry of `selection.runs` (`resolved_run`) by its method, whose folder is `place`."""
    method, context = method_of(entry), _losses_of(contexts, config, entry)
    given = ("method", "seed", "drop_unlearnt", "drop_rising", *method.own_options)
    arguments = {name: entry[name] for name in given} | _budget(entry)
    pool = _inputs(context)
    arrays: dict[str, Any] = {}
    for feature in method.features.values():
        arrays |= feature.make(contexts[inputs_of(feature, config, entry)], entry, place)
    if context.pool is not None and context.rows is not None and "trajectories" in method.needs:
        losses = {"trajectories": arrays.pop("trajectories")}
        inputs = pool.replace(**arrays).rows(context.rows).replace(**losses)
        chosen = select_from_slice(pool, context.rows, inputs, **arguments)
    else:
        chosen = select(pool.replace(**arrays), **arguments)
    chosen.options |= {name: entry[name] for name in method.feature_options}
    chosen.options |= {"proxy": entry["proxy"]} if entry["proxy"] else {}
    return chosen


def _inputs(context: SelectionContext) -> SelectionInputs:
    """What is known of the pool whatever the method."""
    pool = context.pool
    if pool is None:
        assert context.trajectories is not None
        return SelectionInputs(trajectories=context.trajectories.losses, ids=context.trajectories.ids)
    lengths = np.asarray(pool.lengths, np.int64)
    return SelectionInputs(
        ids=np.asarray(pool.ids),
        sources=np.asarray(pool.source_names)[np.asarray(pool.source_codes)],
        num_tokens=lengths if lengths.any() else None,  # a pool without a tokeniser has none
    )


def _budget(entry: dict[str, Any]) -> dict[str, Any]:
    """A run's budget as `select` takes it."""
    if entry["budget_tokens"]:
        return {"budget": entry["budget_tokens"], "unit": "tokens"}
    return {"budget": entry["budget_fraction"] or entry["budget"], "unit": "examples"}


def _in_examples(selection: Selection) -> bool:
    return selection.unit == "examples" and not isinstance(selection.budget, float)


def _described(selection: Selection) -> str:
    """One line on a selection."""
    size, asked, pool = len(selection.indices), selection.num_asked, len(selection.labels)
    text = f"{size} of {asked} examples"
    if selection.unit == "tokens" and selection.num_tokens is not None:
        text += f", {int(selection.num_tokens[selection.indices].sum())} tokens"
    if asked < pool:
        text += f", a slice of the pool's {pool}"
        if _in_examples(selection) and selection.budget > asked:
            text += f": all of it, for the budget of {selection.budget} is above it"
    if selection.num_left_out:
        text += f", {selection.num_left_out} left out beforehand"
    count = len(selection.centroids)
    return f"{text}, {count} clusters" if count else text


def _export(run: Run, place: epath.Path, selection: Selection | None, pool: PreparedPool | None) -> None:
    """Write the files of the chosen rows that the config asks for and that are not there, or damaged."""
    if pool is None or not processes.is_writer():
        return
    if lacking := missing_exports(place, run.config.selection.exports):
        selection = selection or Selection.load(place)
        fields = FieldMap(**run.config.pool.fields.to_dict())
        for name in lacking:
            if (place / FILES[name]).exists():
                say(f"{place / FILES[name]} is not as it was written, and is written again")
        write_exports(place, selection, pool.originals, lacking, fields)
