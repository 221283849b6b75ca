"""One vector per example: the gradient of its loss in the trained parameters, LESS's adapters or all."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int, Int64

from s2l_jax.data.batching import Examples, example_places
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.parameters import Params, bind, flatten_params, joined
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.sharding import local_groups, put_rows, replicated

_BLOCK = 4096  # parameters projected at a time
_LENGTHS = 32  # rows are padded to a power of two of these


@dataclasses.dataclass(frozen=True)
class AdamMoments:
    """The state of Adam at a checkpoint, which turns a gradient into the update it would make."""

    mean: Params
    square: Params
    count: int  # updates so far
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


class ExampleGradients:
    """Gradients of single examples in the trained parameters of a model, randomly projected.

    The loss of an example is the mean over its response tokens. `vmap` over padded rows gives a batch of
    gradients at once; each is projected to `dims` numbers by a matrix of random signs over sqrt(dims),
    which keeps dot products up to 1 / sqrt(dims) (LESS, arXiv 2402.04333, section 4.1). The matrix is
    made again, a block at a time, from the seed: it never exists as a whole.

    Args:
      config: of a decoder; with LoRA the adapters are what is trained.
      dims: of the projection; 0: none, the gradient itself.
      seed: of the projection.
      batch_tokens: tokens that a device works on at a time.
    """

    def __init__(
        self,
        config: DecoderConfig,
        mesh: Mesh,
        *,
        dims: int,
        seed: int = 0,
        batch_tokens: int = 2048,
        dtype: Any = jnp.float32,
    ):
        self._mesh, self._batch_tokens, self._key = mesh, batch_tokens, jax.random.key(seed)
        self._compiled = _program(config, mesh, dims, dtype)

    def of(
        self,
        frozen: Params | None,
        adapters: Params,
        examples: Examples,
        indices: Int64[np.ndarray, " c"],
        moments: AdamMoments | None = None,
    ) -> Float32[np.ndarray, "c p"]:
        """The projected gradients of some examples; zeros for one without a response.

        Args:
          frozen: the parameters below the adapters, on the mesh; None: there are none.
          adapters: where gradients are taken; without adapters all parameters.
          indices: of those wanted.
          moments: with them Adam's next update for each example is projected, not its gradient.
        """
        result: np.ndarray | None = None
        state = () if moments is None else (moments.mean, moments.square, moments.count)
        betas = None if moments is None else (moments.beta1, moments.beta2, moments.epsilon)
        for places, batch in self._rows(examples, indices):
            local = put_rows(self._mesh, batch, axis=0)
            found = np.asarray(self._compiled(frozen, adapters, state, self._key, *local, betas=betas))
            if result is None:
                result = np.zeros((len(indices), found.shape[-1]), np.float32)
            held = places >= 0
            result[places[held]] = found.reshape(*places.shape, -1)[held]
        assert result is not None
        return result

    def _rows(
        self, examples: Examples, indices: Int64[np.ndarray, " c"]
    ) -> Iterator[tuple[Int64[np.ndarray, "g b"], tuple[np.ndarray, ...]]]:
        """Padded rows of like length: places in `indices` (-1: none), tokens, which have a loss, lengths."""
        groups, local = row_groups(self._mesh), local_groups(self._mesh)
        lengths = np.asarray(examples.lengths)[indices]
        order = np.argsort(-lengths, kind="stable")
        while len(order):
            length = _LENGTHS << max(0, -(-int(lengths[order[0]]) // _LENGTHS) - 1).bit_length()
            per_group = max(1, self._batch_tokens // length)
            some, order = order[: groups * per_group], order[groups * per_group :]
            flat = np.full(groups * per_group, -1, np.int64)
            flat[: len(some)] = some
            places = flat.reshape(groups, per_group)
            mine = places[list(local)]
            tokens = np.zeros((*mine.shape, length), np.int32)
            wanted = np.zeros(tokens.shape, np.bool_)
            sizes = np.where(mine >= 0, lengths[mine], 0).astype(np.int32)
            held = mine[mine >= 0]
            numbers = [int(indices[n]) for n in held]
            for at, number, ids in zip(np.argwhere(mine >= 0), numbers, examples.read(numbers), strict=True):
                tokens[(*at, slice(len(ids)))] = ids
                wanted[(*at, example_places(examples, number))] = True
            yield places, (tokens, wanted, sizes)


@functools.lru_cache(maxsize=4)
def _program(config: DecoderConfig, mesh: Mesh, dims: int, dtype: Any) -> Callable[..., jax.Array]:
    """What every sweep of these settings runs, so that pool and queries, and later sweeps, share it."""
    batch = functools.partial(_batch, config, dims, dtype)
    return jax.jit(batch, static_argnames="betas", out_shardings=replicated(mesh))


def _batch(
    config: DecoderConfig,
    dims: int,
    dtype: Any,
    frozen: Params | None,
    adapters: Params,
    moments: tuple,
    key: Array,
    tokens: Int[Array, "g b l"],
    wanted: Bool[Array, "g b l"],
    lengths: Int[Array, "g b"],
    betas: tuple[float, float, float] | None,
) -> Float[Array, "n p"]:
    def loss(adapters: Params, *row: Array) -> Array:
        return _loss(config, dtype, frozen, adapters, *row)

    flat = (*(each.reshape(-1, tokens.shape[-1]) for each in (tokens, wanted)), lengths.reshape(-1))
    grads = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0, 0))(adapters, *flat)
    if betas is not None:
        mean, square, count = moments
        grads = _adam(grads, mean, square, count, *betas)
    vectors = [leaf.reshape(len(flat[0]), -1) for _, leaf in sorted(flatten_params(grads).items())]
    has_response = flat[1].any(axis=1)[:, None]
    if not dims:
        return jnp.where(has_response, jnp.concatenate(vectors, axis=1), 0.0)
    parts = [_project(jax.random.fold_in(key, n), each, dims) for n, each in enumerate(vectors)]
    return jnp.where(has_response, sum(parts), 0.0)


def _loss(
    config: DecoderConfig,
    dtype: Any,
    frozen: Params | None,
    adapters: Params,
    tokens: Int[Array, " l"],
    wanted: Bool[Array, " l"],
    length: Int[Array, ""],
) -> Float[Array, ""]:
    """Of one example in a padded row: the mean over its response tokens."""
    model = bind(config, jax.tree.map(lambda p: p.astype(dtype), joined(frozen, adapters)))
    places = jnp.arange(len(tokens))
    hidden = model(tokens[None], places[None], (places < length).astype(jnp.int32)[None])[0]
    logits = model.logits(hidden[:-1])
    picked = jnp.take_along_axis(logits, tokens[1:, None], axis=1)[:, 0]
    losses = jax.nn.logsumexp(logits, axis=1) - picked
    return jnp.where(wanted[1:], losses, 0.0).sum() / jnp.maximum(wanted.sum(), 1)


def _project(key: Array, vectors: Float[Array, "b s"], dims: int) -> Float[Array, "b p"]:
    size = vectors.shape[1]
    blocks = -(-size // _BLOCK)
    padded = jnp.pad(vectors, ((0, 0), (0, blocks * _BLOCK - size)))
    padded = padded.reshape(len(vectors), blocks, _BLOCK).swapaxes(0, 1)

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        number, block = part
        signs = jax.random.rademacher(jax.random.fold_in(key, number), (_BLOCK, dims), dtype=jnp.float32)
        return total + jnp.dot(block, signs, precision=jax.lax.Precision.HIGHEST), None

    start = jnp.zeros((len(vectors), dims), jnp.float32)
    total, _ = jax.lax.scan(add, start, (jnp.arange(blocks), padded))
    return total / jnp.sqrt(jnp.float32(dims))


def _adam(
    grads: Params, mean: Params, square: Params, count: Any, beta1: float, beta2: float, epsilon: float
) -> Params:
    """Adam's next update for each gradient, up to the learning rate's sign (LESS, section 3.1).

    Like the paper, and Adam, it adds epsilon to the root and corrects both moments for their start at
    zero; LESS's published code adds epsilon under the root, where it weighs more, and corrects neither.
    """
    steps = count + 1.0

    def update(grad: jax.Array, mean: jax.Array, square: jax.Array) -> jax.Array:
        first = (beta1 * mean + (1 - beta1) * grad) / (1 - beta1**steps)
        second = (beta2 * square + (1 - beta2) * grad**2) / (1 - beta2**steps)
        return first / (jnp.sqrt(second) + epsilon)

    return jax.tree.map(update, grads, mean, square)
