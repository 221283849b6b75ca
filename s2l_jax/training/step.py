"""One optimiser step as one compiled, sharded program."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float32

from s2l_jax.data.packing import PackedRows
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.lora import dropout_noise
from s2l_jax.models.parameters import Params, abstract_params, joined, nest_params, trained
from s2l_jax.parallel.attention import attention_on
from s2l_jax.parallel.placement import model_shardings
from s2l_jax.parallel.sharding import replicated, row_constraint
from s2l_jax.training.loss import LOSSES, LossFunction, training_loss
from s2l_jax.training.optimizer import OptimizerSettings, make_optimizer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step changes (or the shardings of it); `step` counts finished steps."""

    step: Any
    params: Params  # float32; with LoRA the adapters alone
    opt_state: optax.OptState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """What a step reports."""

    loss: Float32[Array, ""]
    grad_norm: Float32[Array, ""]  # before clipping
    example_losses: Float32[Array, "a g e"] | None = None  # by slot, before the step; where asked for


def abstract_state(
    config: DecoderConfig, settings: OptimizerSettings, num_steps: int, mesh: Mesh
) -> TrainState:
    """Shapes, dtypes and shardings of the state; optimiser moments lie as their parameters do."""

    def placed(shape: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    optimizer, whole = make_optimizer(settings, num_steps), replicated(mesh)
    params = trained(config, abstract_params(config))
    shardings = trained(config, nest_params(model_shardings(mesh, config)))
    opt_state = optax.tree_utils.tree_map_params(
        optimizer, placed, jax.eval_shape(optimizer.init, params), shardings,
        transform_non_params=lambda shape: placed(shape, whole),
    )  # fmt: skip
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    return TrainState(step, jax.tree.map(placed, params, shardings), opt_state)


def init_state(
    config: DecoderConfig, settings: OptimizerSettings, num_steps: int, mesh: Mesh, params: Params
) -> TrainState:
    """The state before the first step; `params` are used as they are, not copied."""
    shardings = _shardings(abstract_state(config, settings, num_steps, mesh))
    init = make_optimizer(settings, num_steps).init
    opt_state = jax.jit(init, out_shardings=shardings.opt_state)(params)
    return TrainState(jax.device_put(jnp.int32(0), shardings.step), params, opt_state)


def _shardings(state: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: leaf.sharding, state)


@functools.lru_cache(maxsize=8)
def make_train_step(
    config: DecoderConfig,
    settings: OptimizerSettings,
    num_steps: int,
    mesh: Mesh,
    *,
    loss: str | LossFunction = "token",
    dtype: Any = jnp.float32,
    remat: str = "none",
    attention: str = "auto",
    keep_losses: bool = False,
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """The compiled step: gradients summed over microbatches, clipped, applied; the state is donated.

    Its arguments are the state, the batch, and what training leaves as it is: the base below adapters.

    Args:
      num_steps: length of the run, which the schedule depends on.
      loss: what each response token counts: a function, or the name of one in `loss.LOSSES`.
      dtype: of matrix products and activations.
      remat: a name in models.decoder.REMAT_POLICIES.
      attention: "auto" or "xla"; see `parallel.attention.attention_on`.
      keep_losses: report the loss of each example, which the step computes anyway.
    """
    loss_function = LOSSES[loss] if isinstance(loss, str) else loss
    attend = attention_on(mesh, config, dtype, attention)
    constrain = row_constraint(mesh)
    optimizer = make_optimizer(settings, num_steps)
    shardings = _shardings(abstract_state(config, settings, num_steps, mesh))

    def step(
        state: TrainState, rows: PackedRows, frozen: Params | None = None
    ) -> tuple[TrainState, StepMetrics]:
        weights = loss_function(rows)

        @functools.partial(jax.value_and_grad, has_aux=True)
        def loss_and_grads(
            params: Params, rows: PackedRows, weights: jax.Array
        ) -> tuple[jax.Array, jax.Array | None]:
            noise = dropout_noise(config.lora, config.num_layers, state.step, rows.examples, rows.positions)
            whole = joined(frozen, params)
            value, per_example = training_loss(
                config, whole, rows, weights,
                dtype=dtype, remat=remat, constrain=constrain, attend=attend, noise=noise,
            )  # fmt: skip
            return value, per_example if keep_losses else None

        def accumulate(carry: tuple, microbatch: tuple) -> tuple[tuple, jax.Array | None]:
            (value, kept), grads = loss_and_grads(state.params, *microbatch)
            return jax.tree.map(jnp.add, carry, (value, grads)), kept

        if rows.tokens.shape[0] == 1:
            whole = jax.tree.map(lambda x: x[0], (rows, weights))
            (value, kept), grads = loss_and_grads(state.params, *whole)
            kept = jax.tree.map(lambda x: x[None], kept)
        else:
            zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, state.params))
            (value, grads), kept = jax.lax.scan(accumulate, zeros, (rows, weights))
        grads = jax.lax.with_sharding_constraint(grads, shardings.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = StepMetrics(value, optax.tree.norm(grads), kept)
        return TrainState(state.step + 1, params, opt_state), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))
