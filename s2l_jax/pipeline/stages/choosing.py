"""One subset of the pool: what a method gets and chooses, from all of it or a slice, or a list of rows."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32, Int64

from s2l_jax import artifacts
from s2l_jax.config.selection import OF_INPUTS, OPTIONS
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.features import gradients
from s2l_jax.features.embeddings import embeddings
from s2l_jax.features.hidden_states import part_name, pool_states, query_states, wanted_states
from s2l_jax.selection import Selection, SelectionInputs, select
from s2l_jax.training.run import Run
from s2l_jax.trajectories.load import Trajectories

_INDICES = "indices.npy"
# What s2l calls options that the config has another name for: to go when it has the same.
_NAMED = {"num_checkpoints": "first", "cluster_small_sources": "cluster_whole"}


@dataclasses.dataclass(frozen=True)
class Known:
    """What there is to select by."""

    pool: PreparedPool | None  # with the token counts that budgets go by
    trajectories: Trajectories | None
    rows: Int64[np.ndarray, "s"] | None  # of the pool that the trajectories are of; None for all
    pools: dict[str, PreparedPool]  # by the model that tokenised them
    _made: dict[str, Any] = dataclasses.field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, made when the first run asks for it and kept for the others."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

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


def in_rounds(entry: dict[str, Any]) -> bool:
    """Whether a method trains targets of its own."""
    return entry["method"] == "diverse_evol" and entry["rounds"] > 1


def budget_of(entry: dict[str, Any]) -> dict[str, Any]:
    """A run's budget as `select` takes it."""
    if entry["budget_tokens"]:
        return {"budget": entry["budget_tokens"], "unit": "tokens"}
    return {"budget": entry["budget_fraction"] or entry["budget"], "unit": "examples"}


def chosen_by(
    run: Run,
    entry: dict[str, Any],
    known: Known,
    needs: frozenset[str],
    place: epath.Path,
) -> Selection:
    """The subset of one entry of `selection.runs`, by its method.

    Args:
      run: the run.
      entry: with what it leaves to the config filled in.
      known: what there is to select by.
      needs: of the method.
      place: the selection's folder, where methods that train leave their models.
    """
    options = {name: entry[name] for name in OPTIONS.get(entry["method"], ()) if name not in OF_INPUTS}
    if entry["method"] == "s2l":
        options["min_cluster_size"] = run.config.selection.min_cluster_size
    options = {_NAMED.get(name, name): value for name, value in options.items()}
    arguments = {"method": entry["method"], "seed": entry["seed"]} | options | budget_of(entry)
    inputs = known.inputs(needs)
    if "hidden_states" in needs:
        wanted, tokenized = wanted_states(entry), known.pools[run.config.selection.states.model]
        if in_rounds(entry):
            inputs = dataclasses.replace(inputs, embed=embeddings(run, tokenized, place / "rounds", wanted))
        else:
            inputs = dataclasses.replace(inputs, hidden_states=pool_states(run, tokenized, wanted))
        if "query_states" in needs:
            queries = known.once(part_name(run, wanted), lambda: query_states(run, wanted))
            inputs = dataclasses.replace(inputs, query_states=queries)
    if "gradients" in needs:
        of_queries, tasks, rates = known.once(
            gradients.FOLDER, lambda: gradients.query_gradients(run, known.pools["target"])
        )
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


def chosen_by_hand(run: Run, pool: PreparedPool | None) -> Selection:
    """The rows that selection.path names.

    Raises:
      InputError: no such file, or one that is not a list of distinct rows of the pool.
    """
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


def _tokens(pool: PreparedPool) -> dict[str, Any]:
    """Tokens of each row and of its response; nothing for a pool without a tokeniser."""
    lengths = np.asarray(pool.lengths, np.int64)
    if not lengths.any():
        return {}
    responses = lengths - np.asarray(pool.prompt_lengths, np.int64)
    return {"num_tokens": lengths, "response_tokens": responses}


def _sources(pool: PreparedPool) -> np.ndarray:
    return np.asarray(pool.source_names)[np.asarray(pool.source_codes)]
