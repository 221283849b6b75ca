"""Stage `selection`: one subset for every entry of `selection.runs`."""

import hashlib
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int64
from ml_collections import ConfigDict

from s2l_jax import records
from s2l_jax.config import deciding_run, resolved_run
from s2l_jax.config.runs import method_of
from s2l_jax.console import say
from s2l_jax.data.pool import FieldMap
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.features.feature import SelectionContext
from s2l_jax.features.response_tokens import counting_models
from s2l_jax.parallel import processes
from s2l_jax.pipeline.stages.trajectories import tracked_rows
from s2l_jax.records import Record, stored_results
from s2l_jax.selection import Method, Selection, SelectionInputs, select
from s2l_jax.selection.budget import Budget
from s2l_jax.selection.export import FILES, missing_exports, write_exports
from s2l_jax.selection.known import Known
from s2l_jax.selection.selector import select_from_slice
from s2l_jax.training.run import Run
from s2l_jax.trajectories.load import Trajectories


def select_all(run: Run, pools: dict[str, PreparedPool], trajectories: Trajectories | None) -> None:
    """Make every subset that is not there yet.

    `pools` has the pool as each model tokenises it, and under "rows" as any does; it is empty without one.

    Raises:
      InputError: nothing to select from, an input of a method that is missing, or a workdir that has
        another subset under a run's name.
    """
    runs = run.config.selection.runs
    if runs and not pools and trajectories is None:
        raise InputError("selection needs a pool (pool.path) or trajectories (trajectories.path).")
    rows = tracked_rows(trajectories, np.asarray(pools["rows"].ids) if pools else None)
    context = context_of(run, pools, trajectories, rows)
    check_known(context, None if trajectories is None else trajectories.losses.shape[1])
    _make_parts(context)
    for name in sorted(runs, key=lambda name: bool(runs[name].prefix_of)):  # after what they are prefixes of
        _select_one(context, name)


def check_content(run: Run, pools: dict[str, PreparedPool], trajectories: Trajectories | None) -> None:
    """Raise an InputError if a subset was made from other trajectories, queries or lists than there are now.

    What goes by tokens is compared by the settings that they follow from (`pipeline.plan`).
    """
    rows = tracked_rows(trajectories, np.asarray(pools["rows"].ids) if pools else None)
    context = context_of(run, pools, trajectories, rows)
    for name in run.config.selection.runs:
        entry, method = _run(run, name)
        content: dict[str, Any] = {}
        for feature in method.features.values():
            if not feature.models(run.config):
                content |= feature.content(context, entry)
        records.check_content(folder(run, name), f"selection/{name}", content)


def context_of(
    run: Run,
    pools: dict[str, PreparedPool],
    trajectories: Trajectories | None,
    rows: Int64[np.ndarray, "s"] | None,
) -> SelectionContext:
    """What the run's selections are from; `rows` of the pool are those that trajectories are of."""
    runs = run.config.selection.runs
    counting = counting_models(run.config) if any(_counts_tokens(run, name) for name in runs) else ()
    pool = next((pools[model] for model in (*counting, "rows") if model in pools), None)
    return SelectionContext(run, pool, trajectories, rows, pools)


def check_known(context: SelectionContext, num_columns: int | None) -> None:
    """Raise an InputError for what methods say they cannot work with, of the selections that are to be made.

    `num_columns` is that of the trajectories, where known.
    """
    run = context.run
    missing = [name for name in run.config.selection.runs if stored_results(folder(run, name)) is None]
    if not missing:
        return
    pool = _inputs(context)
    for name in missing:
        entry, method = _run(run, name)
        if entry["prefix_of"]:
            continue
        by_losses = "trajectories" in method.needs
        inputs = pool.rows(context.rows) if by_losses and context.rows is not None else pool
        size = inputs.num_examples
        count = size if method.takes_all else Budget(*_budget(entry).values()).most(size, inputs.num_tokens)
        known = Known(size, count, inputs.sources, num_columns if by_losses else None)
        try:
            method.check(known, **{option: entry[option] for option in method.own_options})
        except InputError as error:
            raise InputError(f"selection.runs.{name}: {error}") from None


def needs_trajectories(config: ConfigDict) -> bool:
    """Whether a method of the config goes by trajectories."""
    entries = [resolved_run(config, name) for name in config.selection.runs]
    return any("trajectories" in method_of(entry).needs for entry in entries)


def check_methods(run: Run) -> None:
    """Raise an InputError now for a pool, model or queries that a method will lack."""
    for name in run.config.selection.runs:
        entry, method = _run(run, name)
        for feature in method.features.values():
            if feature.needs_pool and not run.config.pool.path:
                raise InputError(
                    f"selection.runs.{name}: method {method.name!r} needs a pool: set pool.path."
                )
            feature.check(run, name, entry)


def folder(run: Run, name: str) -> epath.Path:
    """Where a selection's artifacts are."""
    return run.workdir / "selection" / name


def _run(run: Run, name: str) -> tuple[dict[str, Any], Method]:
    entry = resolved_run(run.config, name)
    return entry, method_of(entry)


def _counts_tokens(run: Run, name: str) -> bool:
    entry, method = _run(run, name)
    return bool(entry["budget_tokens"]) or "response_tokens" in method.needs


def _make_parts(context: SelectionContext) -> None:
    """Make now what several runs may share, so that its time is its own and not the first one's."""
    run = context.run
    for name in run.config.selection.runs:
        entry, method = _run(run, name)
        if stored_results(folder(run, name)) is None:
            for feature in method.features.values():
                if feature.part(run.config, entry):
                    feature.make(context, entry, folder(run, name))


def _select_one(context: SelectionContext, name: str) -> None:
    run, pool = context.run, context.pool
    entry, method = _run(run, name)
    made_from: dict[str, Any] = {}
    for feature in method.features.values():
        made_from |= feature.settings(run.config, entry) | feature.content(context, entry)
    if pool is not None:
        made_from["pool.ids_sha256"] = hashlib.sha256(np.asarray(pool.ids).tobytes()).hexdigest()
        if entry["budget_tokens"]:
            made_from["pool.token_counts"] = pool.fingerprint
    record = Record(folder(run, name), f"selection/{name}", deciding_run(run.config, name, made_from))
    if record.done:
        _export(run, record.folder, None, pool)
        return
    if entry["prefix_of"]:
        selection = Selection.load(folder(run, entry["prefix_of"])).first(**_budget(entry))
    else:
        selection = run_method(context, entry, record.folder)
    if processes.is_writer():
        losses = context.trajectories
        if losses is not None and run.config.selection.table_losses:
            selection.save(record.folder, trajectories=losses.losses, rows=context.rows)
        else:
            selection.save(record.folder)
        _export(run, record.folder, selection, pool)
    sizes, candidates, size = selection.cluster_sizes, selection.num_candidates, len(selection.labels)
    parts = (feature.part(run.config, entry) for feature in method.features.values())
    record.finish(
        {
            "method": selection.method,
            # Comparisons go by examples; how else the budget was said is in `asked`.
            "budget": selection.budget if _in_examples(selection) else len(selection.indices),
            **({} if _in_examples(selection) else {"asked": _budget(entry)}),
            "size": len(selection.indices),
            "seed": selection.seed,
            "options": selection.options,
            "num_clusters": len(sizes),
            "cluster_sizes": sizes,
            "picked_per_cluster": selection.picked_per_cluster,
            "sources": {name: picked for name, (_, picked) in selection.source_counts.items()},
            "indices_sha256": hashlib.sha256(selection.indices.tobytes()).hexdigest(),
            # The parts of the workdir, other than the proxy and its sweeps, that the subset was made with.
            **({"used": used} if (used := [part for part in parts if part]) else {}),
            **({} if candidates == size else {"slice": {"size": candidates, "pool": size}}),
        }
    )
    say(f"selection {name}: {_described(selection)}")


def run_method(context: SelectionContext, entry: dict[str, Any], place: epath.Path) -> Selection:
    """The subset of one entry of `selection.runs` (`resolved_run`) by its method, whose folder is `place`."""
    method = method_of(entry)
    given = ("method", "seed", "drop_unlearnt", *method.own_options)
    arguments = {name: entry[name] for name in given} | _budget(entry)
    pool = _inputs(context)
    arrays: dict[str, Any] = {}
    for feature in method.features.values():
        arrays |= feature.make(context, entry, place)
    if context.pool is not None and context.rows is not None and "trajectories" in method.needs:
        losses = {"trajectories": arrays.pop("trajectories")}
        inputs = pool.replace(**arrays).rows(context.rows).replace(**losses)
        chosen = select_from_slice(pool, context.rows, inputs, **arguments)
    else:
        chosen = select(pool.replace(**arrays), **arguments)
    chosen.options |= {name: entry[name] for name in method.feature_options}
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
