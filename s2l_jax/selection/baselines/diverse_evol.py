"""k-center greedy on hidden states, as DiverseEvol chooses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int64

from s2l_jax.errors import InputError
from s2l_jax.selection.balanced import priorities
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.methods import Choice, method


@method("diverse_evol", needs={"hidden_states"})
def diverse_evol(
    inputs: SelectionInputs, count: int, seed: int, *, initial: int = 100, rounds: int = 1
) -> Choice:
    """The examples farthest from all that are chosen, one after the other (k-center greedy).

    DiverseEvol (Wu et al., arXiv 2311.08182, algorithm 1); a baseline of arXiv 2403.07384, section 5. It
    begins with random examples and goes in rounds: the model is trained on what is chosen, embeds the
    pool anew, and an equal part of the budget is chosen by the new embeddings. `inputs.embed` does the
    first two; without it `hidden_states` stay the same, and rounds change nothing.

    Options:
      initial: random examples to begin with (100 in the paper).
      rounds: in how many parts the rest is chosen (10 in the paper).

    Raises:
      InputError: an option out of range, or embeddings that are not one finite vector an example.
    """
    if initial < 1 or rounds < 1:
        raise InputError(f"diverse_evol: initial and rounds must be at least 1, got {initial} and {rounds}")
    assert inputs.ids is not None
    order = np.argsort(priorities(inputs.ids, seed), kind="stable")[: min(initial, count)]
    for size in np.linspace(len(order), count, rounds + 1).round().astype(int)[1:]:
        states = inputs.hidden_states if inputs.embed is None else inputs.embed(order)
        states = np.zeros(0) if states is None else np.asarray(states)
        if states.ndim != 2 or len(states) != len(inputs.ids) or not np.isfinite(states).all():
            raise InputError(
                "diverse_evol: embeddings must be finite, and one vector an example, at each round"
            )
        order, radius = k_center(states, order, int(size))
    return Choice(order, reasons=("farthest from what was chosen before",), notes={"radius": radius})


def k_center(
    rows: Float[np.ndarray, "n d"], chosen: Int[np.ndarray, " m"], count: int
) -> tuple[Int64[np.ndarray, " c"], float]:
    """`chosen` and after it the rows that are each farthest from all before, to `count` in all.

    Distances are Euclidean; of equally far rows the first is taken (Sener & Savarese, arXiv 1708.00489,
    algorithm 1, which is within twice the best radius).

    Args:
      rows: of all examples.
      chosen: at least one, at most `count`.
      count: at most N.

    Returns:
      The order, and the largest distance of a row from the rows in it.
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
