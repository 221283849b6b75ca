"""Stage `selection`: one subset for every entry of `selection.runs`."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64

from s2l_jax import artifacts
from s2l_jax.config import resolved_run
from s2l_jax.config_selection import OF_INPUTS, OPTIONS, RUN_SCHEMA
from s2l_jax.console import say
from s2l_jax.data.identity import data_identity
from s2l_jax.data.pool import FieldMap
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.parallel import processes
from s2l_jax.records import Record, stored_results
from s2l_jax.selection import METHODS, Selection, SelectionInputs, select
from s2l_jax.selection.export import missing_exports, write_exports
from s2l_jax.stages import gradients
from s2l_jax.stages.diverse_evol import embeddings
from s2l_jax.stages.models import open_model
from s2l_jax.stages.run import Run, what_decides
from s2l_jax.stages.states import FOLDER as STATES
from s2l_jax.stages.states import made_with, part_name, pool_states, query_rows, query_states, wanted_states
from s2l_jax.stages.trajectories import tracked_rows
from s2l_jax.trajectories.load import Trajectories

_INDICES = "indices.npy"
# Options that records have always held; later ones are in them where they are not at their default.
_ALWAYS = ("num_clusters", "every", "stratify_by")


@dataclasses.dataclass(frozen=True)
class Known:
    """What there is to select by."""

    pool: PreparedPool | None  # with the token counts that budgets go by
    trajectories: Trajectories | None
    rows: Int64[np.ndarray, "s"] | None  # of the pool that the trajectories are of; None for all
    pools: dict[str, PreparedPool]  # by the model that tokenised them

    def inputs(self, needs: frozenset[str]) -> SelectionInputs:
        """What a method of these needs gets, of the whole pool; trajectories of a slice are not in it."""
        losses = None
        if self.trajectories is not None and "trajectories" in needs and self.rows is None:
            losses = self.trajectories.losses
        if self.pool is None:
            assert self.trajectories is not None
            return SelectionInputs(trajectories=self.trajectories.losses, ids=self.trajectories.ids)
        return SelectionInputs(
            trajectories=losses,
            ids=np.asarray(self.pool.ids),
            sources=_sources(self.pool),
            **_tokens(self.pool),
        )


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
            model = open_model(run, run.config.selection.states.model)
            wanted_states(entry).check(model.config)
            if _in_rounds(entry) and run.config.selection.states.model != "target":
                raise InputError(
                    f"selection.runs.{name}.rounds={entry.rounds}: it is the target that is trained between "
                    "rounds; set selection.states.model='target'."
                )
        if "gradients" in needs:
            open_model(run, "target")
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
        if "hidden_states" in needs and not made and not _in_rounds(entry):
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
    if _in_rounds(entry):
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
        selection = _given(run, pool)
    elif entry["within"]:
        selection = Selection.load(folder(run, str(entry["within"]))).first(**_budget(entry))
    else:
        selection = _chosen(run, entry, settings, known, needs, record.folder)
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
            **({} if _in_examples(selection) else {"asked": _budget(entry)}),
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
    shared = "hidden_states" in needs and not _in_rounds(entry)
    return [f"{STATES}/{part_name(run, wanted_states(entry))}"] if shared else []


def _in_rounds(entry: dict[str, Any]) -> bool:
    """Whether a method trains targets of its own."""
    return entry["method"] == "diverse_evol" and entry["rounds"] > 1


def _budget(entry: dict[str, Any]) -> dict[str, Any]:
    """A run's budget as `select` takes it."""
    if entry["budget_tokens"]:
        return {"budget": entry["budget_tokens"], "unit": "tokens"}
    return {"budget": entry["budget_fraction"] or entry["budget"], "unit": "examples"}


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


def _chosen(
    run: Run,
    entry: dict[str, Any],
    settings: dict[str, Any],
    known: Known,
    needs: frozenset[str],
    place: epath.Path,
) -> Selection:
    arguments = {k: v for k, v in settings.items() if not k.startswith("budget") and k not in OF_INPUTS}
    arguments |= _budget(entry)
    inputs = known.inputs(needs)
    if "hidden_states" in needs:
        wanted, tokenized = wanted_states(entry), known.pools[run.config.selection.states.model]
        if _in_rounds(entry):
            inputs = dataclasses.replace(inputs, embed=embeddings(run, tokenized, place / "rounds", wanted))
        else:
            inputs = dataclasses.replace(inputs, hidden_states=pool_states(run, tokenized, wanted))
        if "query_states" in needs:
            inputs = dataclasses.replace(inputs, query_states=query_states(run, wanted))
    if "gradients" in needs:
        of_queries, tasks, rates = gradients.query_gradients(run, known.pools["target"])
        inputs = dataclasses.replace(
            inputs,
            gradients=gradients.pool_gradients(run, known.pools["target"]),
            query_gradients=of_queries,
            query_tasks=tasks,
            checkpoint_weights=rates,
        )
    if "trajectories" in needs and known.trajectories is not None and known.rows is not None:
        return select_from_slice(inputs, known.rows, known.trajectories.losses, arguments)
    chosen = select(inputs, **arguments)
    given = {option: entry[option] for option in OF_INPUTS if option in OPTIONS.get(chosen.method, ())}
    if "pooling" in given:
        given["pooling"] = wanted_states(entry).pooling
    return dataclasses.replace(chosen, options=chosen.options | given)


def select_from_slice(
    pool: SelectionInputs,
    rows: Int64[np.ndarray, "s"],
    losses: Float32[np.ndarray, "s t"],
    settings: dict[str, Any],
) -> Selection:
    """A selection from some of the pool's rows, in terms of the pool: indices are its row numbers.

    Clusters, sources and weights are those of the slice; other rows have label -1.

    Args:
      pool: ids and sources of the whole pool, and lengths where known.
      rows: of the slice, sorted.
      losses: their trajectories.
      settings: arguments of `select`.
    """
    assert pool.ids is not None
    assert pool.sources is not None
    size = len(pool.ids)
    of_examples = {
        name: np.asarray(value)
        for name in ("ids", "sources", "num_tokens", "response_tokens")
        if (value := getattr(pool, name)) is not None
    }
    inputs = SelectionInputs(
        trajectories=losses, **{name: value[rows] for name, value in of_examples.items()}
    )
    chosen = select(inputs, **settings)

    def spread(values: Any, missing: float) -> Any:
        if values is None:
            return None
        whole = np.full(size, missing, values.dtype)
        whole[rows] = values
        return whole

    return dataclasses.replace(
        chosen,
        indices=rows[chosen.indices],
        labels=spread(chosen.labels.astype(np.int32), -1),
        ids=of_examples["ids"],
        sources=of_examples["sources"],
        ranks=spread(chosen.ranks, -1),
        scores=spread(chosen.scores, np.nan),
        reason_of=spread(chosen.reason_of, 0),
        num_tokens=of_examples.get("num_tokens"),
        losses=spread(chosen.losses, np.nan),
    )


def _given(run: Run, pool: PreparedPool | None) -> Selection:
    path = epath.Path(run.config.selection.path)
    if not run.config.selection.path or pool is None:
        raise InputError("method='given' needs selection.path, a .npy of pool rows, and pool.path.")
    if path.is_dir():
        path = path / _INDICES
    if not path.exists():
        raise InputError(f"selection.path: {path} does not exist.")
    indices = artifacts.read_npy(path)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise InputError(f"{path}: needs a list of whole numbers, holds {indices.dtype}{indices.shape}.")
    indices = np.asarray(indices, np.int64)
    if len(np.unique(indices)) != len(indices) or not len(indices):
        raise InputError(f"{path}: {len(indices)} rows, {len(np.unique(indices))} of them distinct.")
    if indices.min() < 0 or indices.max() >= len(pool):
        raise InputError(
            f"{path}: rows {indices.min()} to {indices.max()}, but the pool has {len(pool)} rows."
        )
    return Selection(
        indices=np.sort(indices),
        labels=np.zeros(len(pool), np.int32),
        centroids=np.zeros((0, 0), np.float32),
        cluster_sources=None,
        weights=np.ones(len(indices), np.float32),
        ids=np.asarray(pool.ids),
        sources=_sources(pool),
        method="given",
        budget=len(indices),
        seed=run.config.seed,
        options={},
        reasons=("in selection.path",),
        num_tokens=_tokens(pool).get("num_tokens"),
    )


def _export(run: Run, place: epath.Path, selection: Selection | None, pool: PreparedPool | None) -> None:
    """Write the files of the chosen rows that the config asks for and that are not there."""
    if pool is None or not processes.is_writer():
        return
    wanted = [name.strip() for name in run.config.selection.exports.split(",") if name.strip()]
    if lacking := missing_exports(place, wanted):
        selection = selection or Selection.load(place)
        fields = FieldMap(**run.config.pool.fields.to_dict())
        write_exports(place, selection, pool.originals, lacking, fields)


def _tokens(pool: PreparedPool) -> dict[str, Any]:
    """Tokens of each row and of its response; nothing for a pool without a tokeniser."""
    lengths = np.asarray(pool.lengths, np.int64)
    if not lengths.any():
        return {}
    responses = lengths - np.asarray(pool.prompt_lengths, np.int64)
    return {"num_tokens": lengths, "response_tokens": responses}


def _sources(pool: PreparedPool) -> np.ndarray:
    return np.asarray(pool.source_names)[np.asarray(pool.source_codes)]
