"""Lloyd's algorithm as one pure compiled function, in chunks of rows."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Accelerators would otherwise multiply in 16 or 19 bits, which moves many labels.
PRECISION = jax.lax.Precision.HIGHEST

_GROUP = 128  # most centroids scored together; compiling one much larger takes minutes
_UNROLLED = 16  # centroids compared in one loop over a chunk's rows


class LloydResult(NamedTuple):
    """What `lloyd` returns, for R starts; rows and centroids beyond the real ones carry no meaning."""

    centroids: Float[Array, "r k t"]
    labels: Int[Array, "r n"]
    inertia_parts: Float[Array, "r parts"]  # to be summed in float64
    num_iterations: Int[Array, " r"]
    num_empty: Int[Array, " r"]  # clusters the rule for empty ones could not fill


class _Assignment(NamedTuple):
    counts: Float[Array, " k"]
    labels: Int[Array, " n"]
    distances: Float[Array, " n"]
    inertia_parts: Float[Array, " parts"]


class _Problem(NamedTuple):
    """The rows cut as [shard, row of the shard]: a chunk takes a piece of every shard."""

    points: Float[Array, "p r t"]
    weights: Float[Array, "p r"]
    offset: Float[Array, " t"]
    active: Bool[Array, " k"]
    chunk_rows: int
    exact: bool


@functools.partial(jax.jit, static_argnames=("shards", "chunk_rows", "exact"))
def lloyd(
    points: Float[Array, "n t"],
    weights: Float[Array, " n"],
    starts: Float[Array, "r k t"],
    offset: Float[Array, " t"],
    num_clusters: Int[Array, ""] | int,
    max_iterations: Int[Array, ""] | int,
    tolerance: Float[Array, ""] | float,
    *,
    shards: int = 1,
    chunk_rows: int = 8192,
    exact: bool = False,
) -> LloydResult:
    """k-means by Lloyd's algorithm, squared Euclidean distance, from R sets of given centroids in turn.

    An iteration assigns every row to its nearest centroid (ties to the lowest index) and moves each
    centroid to the weighted mean of its rows; after the last one the rows are assigned once more.

    No cluster stays empty: whenever one has no row, the empty cluster of the lowest index moves to
    the row farthest from its own centroid (the first such row), and the rows are assigned again,
    until none is empty; then the iterations go on. Where `exact` and there are `num_clusters`
    distinct rows, that ends: a centroid on a row keeps that row.

    At most `chunk_rows` x K distances exist per shard at any time. Rows may be sharded over
    the devices of a mesh: with `shards` set to the number of row shards, every device works on its own
    rows, and an iteration has one all-reduce, of the [K, T] sums and the [K] counts together.

    Args:
      points: rows.
      weights: of each row, at least 0; rows of weight 0 count for nothing, but are labelled too.
      starts: where to start; centroids beyond `num_clusters` are ignored.
      offset: a point near the rows' mean. Distances come from one matrix product,
        |c|^2 - 2 x.c, which is only precise near the origin.
      num_clusters: how many of the K centroids are in use (so that K, which is compiled in, can be
        shared by problems of different size).
      max_iterations: most iterations; fewer only where the centroids stop moving.
      tolerance: stop once the centroids' summed squared movement is at most this.
      shards: into how many equal runs of rows the devices divide `points`.
      chunk_rows: rows of each shard handled at a time.
      exact: take distances from the differences themselves: slower, but tells any two rows apart.
    """
    problem = _cut(points, weights, offset, num_clusters, starts.shape[1], shards, chunk_rows, exact=exact)

    def from_start(start):
        return _from_start(problem, start, max_iterations, tolerance)

    if starts.shape[0] == 1:
        return jax.tree.map(lambda leaf: leaf[None], from_start(starts[0]))
    return jax.lax.map(from_start, starts)


def _from_start(problem: _Problem, start, max_iterations, tolerance) -> LloydResult:
    start = jnp.where(problem.active[:, None], start - problem.offset, 0.0)
    nowhere = jnp.full_like(start, jnp.inf)  # nothing to compare with: go on
    most_moves = start.shape[0]  # of centroids without rows, in one iteration

    def going_on(state):
        iteration, now, before, any_empty = state
        # Not in `step`: fused with the division there, it is not 0 for means that stay.
        shift = jnp.square(now - before).sum()
        return (iteration < max_iterations) & (shift > tolerance) & ~any_empty

    def step(state):
        iteration, now, _, _ = state
        sums, counts = _sum_clusters(problem, now)
        any_empty = (problem.active & (counts == 0)).any()
        means = sums / jnp.where(counts > 0, counts, 1.0)[:, None]
        return iteration + ~any_empty, jnp.where(any_empty, now, means), now, any_empty

    def unsettled(state):
        _, _, assignment, moves = state
        return (problem.active & (assignment.counts == 0)).any() & (moves <= most_moves)

    def settle(state):
        """Move one centroid without rows, if there is one; then iterate to the end, or to the next."""
        iteration, now, assignment, moves = state
        empty = problem.active & (assignment.counts == 0)
        moved = _move_empty(problem, now, empty, assignment.distances)
        now = jnp.where(moves > 0, moved, now)
        done, now, _, _ = jax.lax.while_loop(
            going_on, step, (iteration, now, nowhere, jnp.zeros((), jnp.bool_))
        )
        return done, now, _assign(problem, now), jnp.where(done > iteration, 1, moves + 1)

    nothing = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(functools.partial(_assign, problem), start),
    )
    num_iterations, centroids, assignment, _ = jax.lax.while_loop(
        unsettled, settle, (jnp.int32(0), start, nothing, jnp.int32(0))
    )
    return LloydResult(
        centroids=centroids + problem.offset,
        labels=assignment.labels,
        inertia_parts=assignment.inertia_parts,
        num_iterations=num_iterations,
        num_empty=jnp.sum((assignment.counts == 0) & problem.active),
    )


@functools.partial(jax.jit, static_argnames=("shards", "chunk_rows", "exact"))
def nearest_centroids(
    points: Float[Array, "n t"],
    centroids: Float[Array, "k t"],
    offset: Float[Array, " t"],
    num_clusters: Int[Array, ""] | int,
    *,
    shards: int = 1,
    chunk_rows: int = 8192,
    exact: bool = False,
) -> Int[Array, " n"]:
    """The label of each row: its nearest centroid, by the same arithmetic as `lloyd`."""
    weights = jnp.ones(points.shape[0], jnp.float32)
    clusters = centroids.shape[0]
    problem = _cut(points, weights, offset, num_clusters, clusters, shards, chunk_rows, exact=exact)
    return _assign(problem, centroids - problem.offset).labels


def _cut(points, weights, offset, num_clusters, max_clusters, shards, chunk_rows, *, exact: bool) -> _Problem:
    rows_per_shard = points.shape[0] // shards
    return _Problem(
        points=points.reshape(shards, rows_per_shard, -1),
        weights=weights.reshape(shards, rows_per_shard),
        offset=jnp.zeros_like(offset) if exact else offset,
        active=jnp.arange(max_clusters) < num_clusters,
        chunk_rows=min(chunk_rows, rows_per_shard),
        exact=exact,
    )


def _num_chunks(problem: _Problem) -> int:
    return -(-problem.points.shape[1] // problem.chunk_rows)


def _chunk(
    problem: _Problem, index: Int[Array, ""]
) -> tuple[Int[Array, ""], Float[Array, "p c t"], Float[Array, "p c"]]:
    """Where a chunk begins, its rows and their weights.

    The last one begins early enough to be whole; its rows that the one before has too weigh 0.
    """
    due, size, rows = index * problem.chunk_rows, problem.chunk_rows, problem.points.shape[1]
    begin = jnp.minimum(due, rows - size)
    points = jax.lax.dynamic_slice_in_dim(problem.points, begin, size, axis=1) - problem.offset
    weights = jax.lax.dynamic_slice_in_dim(problem.weights, begin, size, axis=1)
    if rows % size:
        weights = jnp.where(begin + jnp.arange(size) >= due, weights, 0.0)
    return begin, points, weights


def _nearest(
    problem: _Problem, points: Float[Array, "p c t"], centroids: Float[Array, "k t"]
) -> Int[Array, "p c"]:
    """The nearest centroid of each row; of equally near ones the first."""
    if problem.exact:
        scores = jnp.square(points[:, :, None, :] - centroids).sum(-1)
        scores = jnp.where(problem.active, scores, jnp.inf)
        numbers = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
        # Two minima instead of argmin, which XLA runs as a scalar loop on the CPU.
        lowest = scores.min(-1, keepdims=True)
        return jnp.where(scores <= lowest, numbers, scores.shape[-1]).min(-1)
    halves = jnp.where(problem.active, jnp.square(centroids).sum(1) / 2, jnp.inf)
    groups = -(-len(centroids) // _GROUP)
    size = -(-len(centroids) // groups)
    extra = groups * size - len(centroids)
    grouped = jnp.pad(centroids, ((0, extra), (0, 0))).reshape(groups, size, -1)
    bases = jnp.pad(halves, (0, extra), constant_values=jnp.inf).reshape(groups, size)
    return _lowest(points, grouped, bases)


def _lowest(
    points: Float[Array, "p c t"], grouped: Float[Array, "g m t"], bases: Float[Array, "g m"]
) -> Int[Array, "p c"]:
    """The centroid of the lowest |c|^2 / 2 - x.c for each row.

    The minimum and its place in one pass over the products, which stay as they are multiplied,
    [centroid, row], so that a CPU compares many rows at once.
    """
    groups, size = bases.shape

    def compare(group, state):
        products = jnp.einsum("mt,pct->mpc", grouped[group], points, precision=PRECISION)
        products = jax.lax.optimization_barrier(products)
        for first in range(0, size, _UNROLLED):
            lowest, label = state
            for place in range(first, min(first + _UNROLLED, size)):
                score = bases[group, place] - products[place]
                label = jnp.where(score < lowest, group * size + place, label)
                lowest = jnp.where(score < lowest, score, lowest)
            state = jax.lax.optimization_barrier((lowest, label))  # one loop over the rows each
        return state

    shape = points.shape[:2]
    start = jnp.full(shape, jnp.inf, points.dtype), jnp.zeros(shape, jnp.int32)
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(groups), compare, start)[1]


def _totals(
    problem: _Problem, points: Float[Array, "p c t"], weights: Float[Array, "p c"], label: Int[Array, "p c"]
) -> Float[Array, "p k t+1"]:
    """For each shard and label the weighted sum of the rows, and after it that of the weights."""
    clusters = len(problem.active)

    def by_product(points, weights, label):
        numbers = jax.lax.broadcasted_iota(jnp.int32, (*label.shape, clusters), 2)
        belongs = jnp.where(numbers == label[..., None], weights[..., None], 0.0)
        sums = jnp.einsum("pck,pct->pkt", belongs, points, precision=PRECISION)
        return jnp.concatenate([sums, belongs.sum(1)[..., None]], -1)

    def by_row(points, weights, label):
        values = jnp.concatenate([points * weights[..., None], weights[..., None]], -1)
        zeros = jnp.zeros((clusters, values.shape[-1]), values.dtype)
        return jax.vmap(lambda label, values: zeros.at[label].add(values))(label, values)

    if problem.exact:
        return by_product(points, weights, label)
    # Accelerators add rows in any order, so that the sums' last bits would differ from run to run.
    return jax.lax.platform_dependent(points, weights, label, cpu=by_row, default=by_product)


def _sum_clusters(
    problem: _Problem, centroids: Float[Array, "k t"]
) -> tuple[Float[Array, "k t"], Float[Array, " k"]]:
    """The weighted sum and count of the rows nearest to each centroid."""
    shards, (clusters, columns) = problem.points.shape[0], centroids.shape

    def add(index, totals):
        _, points, weights = _chunk(problem, index)
        return totals + _totals(problem, points, weights, _nearest(problem, points, centroids))

    # One total per shard, so that devices meet once per pass and not once per chunk.
    zeros = jnp.zeros((shards, clusters, columns + 1), centroids.dtype)
    totals = jax.lax.fori_loop(0, _num_chunks(problem), add, zeros).sum(0)
    return totals[:, :-1], totals[:, -1]


def _assign(problem: _Problem, centroids: Float[Array, "k t"]) -> _Assignment:
    """Label each row, with its squared distance from its centroid (0 for rows of weight 0)."""
    shards, rows = problem.weights.shape

    def label_chunk(index, state):
        labels, distances, counts, parts = state
        begin, points, weights = _chunk(problem, index)
        label = _nearest(problem, points, centroids)
        distance = jnp.square(points - centroids[label]).sum(-1)
        return (
            jax.lax.dynamic_update_slice_in_dim(labels, label, begin, axis=1),
            jax.lax.dynamic_update_slice_in_dim(distances, distance, begin, axis=1),
            counts + _totals(problem, points, weights, label)[..., -1],
            parts.at[index].set((distance * weights).sum(1)),
        )

    start = (
        jnp.zeros((shards, rows), jnp.int32),
        jnp.zeros((shards, rows), centroids.dtype),
        jnp.zeros((shards, len(centroids)), centroids.dtype),
        jnp.zeros((_num_chunks(problem), shards), centroids.dtype),
    )
    labels, distances, counts, parts = jax.lax.fori_loop(0, _num_chunks(problem), label_chunk, start)
    return _Assignment(
        counts=counts.sum(0),
        labels=labels.reshape(-1),
        distances=jnp.where(problem.weights > 0, distances, 0.0).reshape(-1),
        inertia_parts=parts.reshape(-1),
    )


def _move_empty(
    problem: _Problem,
    centroids: Float[Array, "k t"],
    empty: Bool[Array, " k"],
    distances: Float[Array, " n"],
) -> Float[Array, "k t"]:
    """Move the first empty cluster's centroid to the row farthest from its own centroid."""
    row = jnp.argmax(distances)
    shard, place = jnp.divmod(row, problem.points.shape[1])
    candidates = jax.lax.dynamic_index_in_dim(problem.points, place, axis=1, keepdims=False)
    here = jnp.arange(len(candidates)) == shard
    # A masked sum rather than an index, which would gather the shards of all devices.
    point = jnp.where(here[:, None], candidates, 0.0).sum(0) - problem.offset
    return centroids.at[jnp.argmax(empty)].set(point)
