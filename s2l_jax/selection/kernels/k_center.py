"""k-center greedy: the rows that are each farthest from all chosen before."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int64


def k_center(
    rows: Float[np.ndarray, "n d"], chosen: Int[np.ndarray, " m"], count: int
) -> tuple[Int64[np.ndarray, " c"], float]:
    """`chosen` and after it the rows that are each farthest from all before, to `count` in all.

    Distances are Euclidean; of equally far rows the first is taken (Sener & Savarese, arXiv 1708.00489,
    algorithm 1, which is within twice the best radius). At least one is chosen, and `count` is at most N.
    Gives the order, and the largest distance of a row from the rows in it.
    """
    chosen = np.asarray(chosen, np.int64)
    device = jnp.asarray(np.asarray(rows, np.float32))
    squares = (device * device).sum(1)
    nearest = jnp.full(len(rows), jnp.inf, jnp.float32)
    for row in chosen:
        nearest = _nearer(device, squares, nearest, np.int32(row))
    more = count - len(chosen)
    picked = np.zeros(0, np.int64)
    if more:
        added, nearest = _farthest(device, squares, nearest, more)
        picked = np.asarray(added, np.int64)
    left = float(jnp.sqrt(jnp.maximum(nearest, 0).max()))
    return np.concatenate([chosen, picked]), left


@jax.jit
def _nearer(
    rows: Float[Array, "n d"],
    squares: Float[Array, " n"],
    nearest: Float[Array, " n"],
    row: Int[Array, ""],
) -> Float[Array, " n"]:
    """Squared distances to the nearest chosen row, with one more chosen; -1 for chosen rows themselves."""
    products = jnp.dot(rows, rows[row], precision=jax.lax.Precision.HIGHEST)
    distance = jnp.maximum(squares - 2 * products + squares[row], 0)
    return jnp.minimum(nearest, distance).at[row].set(-1)


@functools.partial(jax.jit, static_argnums=3)
def _farthest(
    rows: Float[Array, "n d"], squares: Float[Array, " n"], nearest: Float[Array, " n"], count: int
) -> tuple[Int[Array, " c"], Float[Array, " n"]]:
    def step(nearest: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        # `argmax` of XLA's CPU back end is a scalar loop; this is not.
        far = nearest >= nearest.max()
        row = jnp.where(far, jnp.arange(len(nearest), dtype=jnp.int32), len(nearest)).min()
        return _nearer(rows, squares, nearest, row), row

    nearest, order = jax.lax.scan(step, nearest, None, length=count)
    return order, nearest
