"""Examples like a few of the target task, by their hidden states."""

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from s2l_jax.data.order import priorities
from s2l_jax.selection.baselines.unit_rows import unit_rows
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.method import method
from s2l_jax.selection.ranking import Ranking, by_score

_ROWS_AT_ONCE = 65_536
_QUERIES_AT_ONCE = 16


@method("rds", needs=["hidden_states", "query_states"], pooling="weighted")
def rds(inputs: SelectionInputs, count: int, seed: int) -> Ranking:
    """The examples most like a few of the target task, these taking turns.

    RDS+ (Ivison et al., arXiv 2503.01807, section 3 and algorithm 1): similarity is the cosine of hidden
    states of the last layer, averaged over all tokens with weights that grow with the position. The
    queries take turns, each adding its most similar example; a turn whose example is in the subset
    already adds none. Examples that no query reaches are not ranked.
    """
    rows = unit_rows(inputs.hidden_states, "hidden_states")
    queries = unit_rows(inputs.query_states, "query_states")
    priority = priorities(inputs.ids, seed)
    turn = np.full(len(rows), np.iinfo(np.int64).max)
    best = np.full(len(rows), -1.0, np.float32)
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        for number, similarity in enumerate(
            _similarity(queries[start : start + _QUERIES_AT_ONCE], rows), start
        ):
            np.maximum(best, similarity, out=best)
            ranked = _top(similarity, priority, count)
            turns = np.arange(len(ranked), dtype=np.int64) * len(queries) + number
            turn[ranked] = np.minimum(turn[ranked], turns)
    order = np.argsort(turn, kind="stable")[: int((turn < np.iinfo(np.int64).max).sum())]
    return Ranking(order, scores=best, reasons=("most like an example of the task, in turns",))


def _similarity(
    queries: Float32[np.ndarray, "q d"], rows: Float32[np.ndarray, "n d"]
) -> Float32[np.ndarray, "q n"]:
    parts = [queries @ rows[at : at + _ROWS_AT_ONCE].T for at in range(0, len(rows), _ROWS_AT_ONCE)]
    return np.concatenate(parts, axis=1)


def _top(
    score: Float[np.ndarray, " n"], priority: Int[np.ndarray, " n"], count: int
) -> Int64[np.ndarray, " c"]:
    """The rows of the `count` highest scores, highest first, ties by priority."""
    rows = np.flatnonzero(score >= np.partition(score, -count)[-count])
    return rows[by_score(score[rows], priority[rows])][:count]
