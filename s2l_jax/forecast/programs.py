"""The programs of a run as they are compiled, with arrays that are described and not there."""

import dataclasses
import functools
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from s2l_jax.clustering.lloyd import lloyd
from s2l_jax.clustering.rows import default_chunk_rows, padded_rows, spread_over
from s2l_jax.data.packing import PackedRows
from s2l_jax.evaluation.generation.decoding import DecodingPrograms, state_shardings
from s2l_jax.evaluation.generation.sampling import GREEDY
from s2l_jax.forecast.collectives import Collective
from s2l_jax.forecast.exchanges import of_gradients, of_passes
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.parameters import abstract_params, flatten_params, nest_params, unstacked
from s2l_jax.models.weights import DTYPES
from s2l_jax.parallel.mesh import row_groups
from s2l_jax.parallel.placement import model_shardings
from s2l_jax.parallel.sharding import replicated, row_sharding
from s2l_jax.training.loop import TrainSettings
from s2l_jax.training.step import abstract_state, make_train_step
from s2l_jax.trajectories.sweep import sweep_programs

PARAMETERS, OPTIMISER = "parameters", "optimiser state"


class Program(Protocol):
    """One compiled program of a run."""

    def arguments(self, mesh: Mesh) -> dict[str, Any]:
        """What it takes, described, by what it is."""

    def exchanges(self, mesh: Mesh) -> list[Collective]:
        """What it sends by count, where it is not compiled."""

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        """The program, ready to be compiled for the mesh's devices."""


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """An optimiser step (`training.step.make_train_step`); `rows` are described, those of all row groups."""

    config: DecoderConfig
    settings: TrainSettings
    num_steps: int
    rows: PackedRows
    keep_losses: bool = False

    def arguments(self, mesh: Mesh) -> dict[str, Any]:
        state = abstract_state(self.config, self.settings.optimizer, self.num_steps, mesh)
        rows = jax.tree.map(lambda x: described(x, row_sharding(mesh, 1)), self.rows)
        found = {PARAMETERS: state.params, OPTIMISER: state.opt_state, "rows": rows}
        if self.config.lora is not None:
            base = dataclasses.replace(self.config, lora=None)
            found["frozen parameters"] = placed_params(base, mesh, DTYPES[self.settings.dtype])
        return found

    def exchanges(self, mesh: Mesh) -> list[Collective]:
        width, times = width_of(self.settings.dtype), self.rows.tokens.shape[0]
        # Of a layer that is computed again what it gives is not needed, but what its MLP is given is.
        again = self.settings.remat == "full" and not self.config.parallel_residual
        found = of_passes(
            self.config,
            mesh,
            width,
            tokens=_tokens_of_group(self.rows),
            gathers=2,
            sums=4 + again,
            times=times,
        )
        return found + of_gradients(self.config, mesh, width, times)

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        state = abstract_state(self.config, self.settings.optimizer, self.num_steps, mesh)
        found = self.arguments(mesh)
        step = make_train_step(
            self.config,
            self.settings.optimizer,
            self.num_steps,
            mesh,
            loss=self.settings.loss,
            dtype=DTYPES[self.settings.dtype],
            remat=self.settings.remat,
            attention=self.settings.attention,
            keep_losses=self.keep_losses,
        )
        program: Any = step
        return program.lower(state, found["rows"], found.get("frozen parameters"))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A block of a loss sweep (`trajectories.sweep.sweep_programs`).

    Attributes:
      column: rows of the whole sweep.
      prefix: tokens that all rows begin with and that none holds.
      rows: described, those of all row groups, as `slots` are.
    """

    config: DecoderConfig
    dtype: str
    attention: str
    column: int
    prefix: int
    rows: PackedRows
    slots: jax.ShapeDtypeStruct

    def arguments(self, mesh: Mesh) -> dict[str, Any]:
        rows, slots = jax.tree.map(lambda x: described(x, row_sharding(mesh, 1)), (self.rows, self.slots))
        column = jax.ShapeDtypeStruct((self.column,), jnp.float32, sharding=replicated(mesh))
        return {PARAMETERS: placed_params(self.config, mesh), "column": column, "rows": rows, "slots": slots}

    def exchanges(self, mesh: Mesh) -> list[Collective]:
        width, times = width_of(self.dtype), self.rows.tokens.shape[0]
        return of_passes(self.config, mesh, width, tokens=_tokens_of_group(self.rows), times=times)

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        found = self.arguments(mesh)
        sweep, read = sweep_programs(self.config, mesh, jnp.dtype(DTYPES[self.dtype]), self.attention)
        prefix = None
        if self.prefix:
            prefix = jax.eval_shape(read, found[PARAMETERS], jax.ShapeDtypeStruct((self.prefix,), jnp.int32))
            prefix = jax.tree.map(lambda x: described(x, replicated(mesh)), prefix)
        program: Any = sweep
        return program.lower(found[PARAMETERS], prefix, found["column"], found["rows"], found["slots"])


@dataclasses.dataclass(frozen=True)
class Lloyd:
    """The k-means of all columns of the rows of a source (`clustering.lloyd`)."""

    rows: int
    columns: int
    clusters: int

    def arguments(self, mesh: Mesh) -> dict[str, Any]:
        spread = spread_over(list(mesh.devices.flat), self.rows)
        size = padded_rows(max(self.rows, self.clusters), mesh.size if spread else 1)
        points, weights = _one((size, self.columns), mesh), _one((size,), mesh)
        if spread is not None:
            points, weights = described(points, spread), described(weights, spread)
        return {"trajectories": points, "weights": weights}

    def exchanges(self, mesh: Mesh) -> list[Collective]:
        """None: sums of the clusters are small."""
        return []

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        found = self.arguments(mesh)
        start, offset = _one((1, self.clusters, self.columns), mesh), _one((self.columns,), mesh)
        shards = mesh.size if spread_over(list(mesh.devices.flat), self.rows) else 1
        if shards > 1:
            start, offset = (described(each, replicated(mesh)) for each in (start, offset))
        chunk = default_chunk_rows(self.clusters)
        return lloyd.lower(
            *found.values(), start, offset, self.clusters, 20, 0.0, shards=shards, chunk_rows=chunk
        )


@dataclasses.dataclass(frozen=True)
class Decode:
    """The decoding loop of generation (`evaluation.generation.decoding`).

    Attributes:
      batch: prompts answered together, of all row groups.
      slots: tokens of the cache, a row.
    """

    config: DecoderConfig
    dtype: str
    batch: int
    slots: int
    max_new_tokens: int

    def arguments(self, mesh: Mesh) -> dict[str, Any]:
        state = jax.eval_shape(functools.partial(self._programs(mesh).empty, self.batch, self.slots))
        state = jax.tree.map(described, state, state_shardings(mesh, self.config))
        return {PARAMETERS: self._params(mesh), "cache": state}

    def exchanges(self, mesh: Mesh) -> list[Collective]:
        tokens = self.batch // row_groups(mesh)
        return of_passes(self.config, mesh, width_of(self.dtype), tokens=tokens)

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        found = self.arguments(mesh)
        number = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh))
        return self._programs(mesh).decode.lower(*found.values(), number, number)

    def _programs(self, mesh: Mesh) -> Any:
        return DecodingPrograms(self.config, self.max_new_tokens, (0,), GREEDY, DTYPES[self.dtype], mesh)

    def _params(self, mesh: Mesh) -> Any:
        """As `DecodingPrograms.prepare` gives them: in their dtype, the layers apart."""
        whole = placed_params(self.config, mesh, DTYPES[self.dtype])
        shapes = jax.eval_shape(functools.partial(unstacked, self.config), whole)
        shardings = {
            path: NamedSharding(mesh, PartitionSpec(*leaf.sharding.spec[path.startswith("layers/") :]))
            for path, leaf in flatten_params(whole).items()
        }
        nested = nest_params(shardings)
        nested["layers"] = dict.fromkeys(range(self.config.num_layers), nested["layers"])
        return jax.tree.map(described, shapes, nested)


def placed_params(config: DecoderConfig, mesh: Mesh, dtype: Any = jnp.float32) -> Any:
    """A model's parameters, described."""

    def placed(leaf: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)

    return jax.tree.map(placed, abstract_params(config), nest_params(model_shardings(mesh, config)))


def bytes_a_device(described: Any) -> int:
    """What a device holds of described arrays, by their shardings; of those without one, all."""
    total = 0
    for leaf in jax.tree.leaves(described):
        shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        total += math.prod(shape) * leaf.dtype.itemsize
    return total


def width_of(dtype: str) -> int:
    """Bytes of a number, of a name in `DTYPES`."""
    return jnp.dtype(DTYPES[dtype]).itemsize


def described(array: Any, sharding: Sharding | None = None) -> jax.ShapeDtypeStruct:
    """An array's shape and type, and where it lies."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def _tokens_of_group(rows: PackedRows) -> int:
    return rows.tokens.shape[2] * rows.tokens.shape[3]


def _one(shape: tuple[int, ...], mesh: Mesh) -> jax.ShapeDtypeStruct:
    device = mesh.devices.flat[0]
    sharding = SingleDeviceSharding(device) if isinstance(device, jax.Device) else None
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)
