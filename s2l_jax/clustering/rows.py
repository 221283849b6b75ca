"""Rows made ready for the compiled k-means: checked, padded to few sizes, with their sharding."""

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from s2l_jax.errors import InputError
from s2l_jax.parallel.platform import platform

# A host's rows are spread over all devices, of all processes, where each gets at least as many; fewer are
# quicker on one.
_ROWS_A_DEVICE = 2**16


@dataclasses.dataclass(frozen=True)
class Rows:
    """Points [M, T] on the devices: the first `num_rows` are given, the rest is padding."""

    points: Float[Array, "m t"]
    weights: Float[Array, " m"]  # 0 for padding
    num_rows: int
    shards: int = 1


def whole(name: str, value: SupportsIndex, least: int) -> int:
    """A setting as a plain int, at least `least` (InputError if not); NumPy's integers are welcome."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise InputError(f"{name} must be at least {least}, got {number}")
    return number


def check_shape(points: ArrayLike) -> np.ndarray | Array:
    """The array that `points` are; InputError if it is not numbers [N, T] with N and T at least 1."""
    array = points if isinstance(points, jax.Array) else np.asarray(points)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(
            f"k-means needs rows as an [N, T] array with N and T at least 1, got shape "
            f"{tuple(array.shape)}; one column is array[:, None]"
        )
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise InputError(f"k-means needs rows of numbers, got dtype {array.dtype}")
    return array


def prepare_rows(points: ArrayLike, weights: ArrayLike | None = None, *, at_least: int = 1) -> Rows:
    """Rows for the compiled functions, at least `at_least` of them after padding.

    Arrays of the host or of one device are padded to one of few sizes, so that pools of many sizes
    share few compiled programs. Many rows of the host are spread over all devices: each process, all of
    which have them, sends its own the rows that these get. An array sharded over the rows stays where it
    is; rows that only make it divide over the devices should be finite and have weight 0.

    Raises:
      InputError: not [N, T] with N and T at least 1, rows with NaN or infinity (their number and
        the first), or weights that are not N numbers of at least 0 with a positive one among them.
    """
    array = check_shape(points)
    num_rows = array.shape[0]
    given = check_weights(weights, num_rows)
    sharding = row_sharding(array)
    spread: NamedSharding | None
    if sharding is not None:
        spread = NamedSharding(sharding.mesh, PartitionSpec(sharding.spec[0]))
        device_points = jnp.asarray(array, jnp.float32)
        rows = Rows(device_points, _put(given, num_rows, spread), num_rows, _row_shards(sharding))
    elif isinstance(array, np.ndarray) and (spread := spread_over(jax.devices(), num_rows)) is not None:
        shards = _row_shards(spread)
        size = padded_rows(max(num_rows, at_least), shards)
        rows = Rows(_put(array, size, spread), _put(given, size, spread), num_rows, shards)
    else:
        with np.errstate(over="ignore"):  # too large for float32: reported as infinite below
            array = array.astype(np.float32, copy=False)
        if extra := bucket(max(num_rows, at_least)) - num_rows:
            pad = jnp.pad if isinstance(array, jax.Array) else np.pad
            array, given = pad(array, ((0, extra), (0, 0))), np.pad(given, (0, extra))
        # Not jnp.asarray, which may copy twice; this shares memory that is aligned as XLA wants it.
        rows = Rows(jax.device_put(array), jax.device_put(given), num_rows)
    count, first = jax.device_get(_bad_rows(rows.points))
    if count:
        raise InputError(
            f"{count} of {num_rows} rows have NaN or infinite values, the first is row {first}; "
            f"drop them or set them to a number before clustering"
        )
    return rows


def bucket(num_rows: int) -> int:
    """The padded size: powers of two from 256 to 16,384, then eight steps to each doubling.

    From 262,144 on as many as they are: a fit takes longer than compiling, and a copy is large.
    """
    if num_rows >= 262_144:
        return num_rows
    if num_rows <= 16_384:
        return max(256, 1 << (num_rows - 1).bit_length())
    step = 1 << ((num_rows - 1).bit_length() - 4)
    return -(-num_rows // step) * step


def padded_rows(num_rows: int, shards: int) -> int:
    """`bucket`, so that it divides over the shards."""
    return -(-bucket(num_rows) // shards) * shards


def default_chunk_rows(num_clusters: int) -> int:
    """Rows per chunk: enough for all cores of a CPU, few enough for its cache; or to fill an accelerator."""
    least, elements = (16_384, 2**20) if platform() == "cpu" else (256, 2**26)
    return max(least, 1 << (max(1, elements // num_clusters).bit_length() - 1))


def row_sharding(array: ArrayLike) -> NamedSharding | None:
    """The sharding of an array whose first axis is divided over several devices, else None."""
    if not isinstance(array, jax.Array) or not isinstance(array.sharding, NamedSharding):
        return None
    return array.sharding if _row_shards(array.sharding) > 1 else None


def count_distinct(points: ArrayLike, *, at_least: int, weights: Array | None = None) -> int:
    """The number of distinct rows of [N, T] in float32, counted no further than `at_least`.

    Args:
      points: an array of the host or of jax; of one that is sharded each process looks at its own rows.
      at_least: where counting stops.
      weights: of each row, sharded as they are; rows of weight 0 do not count. None: all do.
    """
    if not isinstance(points, jax.Array):
        array = np.asarray(points)
        return len(_distinct([(array, None)], array.shape[1], at_least))
    shards = [shard.data for shard in points.addressable_shards]
    kept = [None] * len(shards) if weights is None else [each.data for each in weights.addressable_shards]
    found = _distinct(zip(shards, kept, strict=True), points.shape[1], at_least)
    if not points.is_fully_addressable:
        mine = np.zeros((at_least, points.shape[1]), np.float32)
        mine[: len(found)] = found
        gathered, counts = multihost_utils.process_allgather((mine, np.array(len(found), np.int32)))
        of_each = [(rows[:count], None) for rows, count in zip(gathered, counts, strict=True)]
        found = _distinct(of_each, points.shape[1], at_least)
    return len(found)


def _distinct(
    parts: Iterable[tuple[np.ndarray | Array, Array | None]], columns: int, at_least: int
) -> Float[np.ndarray, "m t"]:
    """The first distinct rows of some arrays with weights, at most `at_least`."""
    distinct, step = np.zeros((0, columns), np.float32), max(4096, 4 * at_least)
    for array, weights in parts:
        for start in range(0, array.shape[0], step):
            # Adding 0 makes -0.0 the same as 0.0.
            piece = np.asarray(array[start : start + step]).astype(np.float32) + np.float32(0)
            if weights is not None:
                piece = piece[np.asarray(weights[start : start + step]) > 0]
            distinct = np.unique(np.concatenate([distinct, piece]), axis=0)
            if len(distinct) >= at_least:
                return distinct[:at_least]
    return distinct


def check_weights(weights: ArrayLike | None, num_rows: int) -> Float[np.ndarray, " n"]:
    """Weights as float32 [N], as `prepare_rows` asks for them; 1 each where none are given."""
    if weights is None:
        return np.ones(num_rows, np.float32)
    given = np.asarray(weights, np.float32)
    if given.shape != (num_rows,):
        raise InputError(f"sample_weight has shape {given.shape}, the rows need ({num_rows},)")
    bad = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
    if len(bad):
        raise InputError(
            f"sample_weight has {len(bad)} values that are not finite and at least 0; the first is "
            f"{given[bad[0]]} at row {bad[0]}"
        )
    if not given.any():
        raise InputError("sample_weight is 0 for every row: nothing is left to cluster")
    return given


def spread_over(devices: Sequence[jax.Device], num_rows: int) -> NamedSharding | None:
    """Rows of a host spread over devices; None where there is one, or too few rows."""
    if len(devices) == 1 or num_rows < _ROWS_A_DEVICE * len(devices):
        return None
    return NamedSharding(Mesh(np.array(devices), ("rows",)), PartitionSpec("rows"))


def _put(array: np.ndarray, size: int, sharding: NamedSharding) -> Array:
    """The array in float32 with zeros after it, `size` rows in all; no process makes others' shards."""

    def shard(index: Any) -> np.ndarray:
        begin, end, _ = index[0].indices(size)
        part = np.zeros((end - begin, *array.shape[1:]), np.float32)
        own = array[begin:end]
        with np.errstate(over="ignore"):  # too large for float32: reported as infinite
            part[: len(own)] = own
        return part

    return jax.make_array_from_callback((size, *array.shape[1:]), sharding, shard)


def _row_shards(sharding: NamedSharding) -> int:
    axes = sharding.spec[0] if len(sharding.spec) else None
    names = axes if isinstance(axes, tuple) else (axes,)
    return int(np.prod([sharding.mesh.shape[name] for name in names if name is not None]))


@jax.jit
def _bad_rows(points: Float[Array, "n t"]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    bad = ~jnp.isfinite(points).all(1)
    return bad.sum(), jnp.argmax(bad)
