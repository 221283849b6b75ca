"""AdamW with clipping, and the learning-rate schedules, as the published runs set them."""

import dataclasses
import math

import jax
import optax
from jaxtyping import PyTree


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule; the fields are those of `train` in the config."""

    learning_rate: float = 2e-5
    schedule: str = "cosine"
    warmup_fraction: float = 0.03
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float = 1.0


def learning_rate_schedule(settings: OptimizerSettings, num_steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up from 0 over ceil(fraction x steps), then the decay to 0.

    The same as the Hugging Face Trainer's: step 0 is taken at rate 0 when there is a warm-up.
    """
    warmup = math.ceil(settings.warmup_fraction * num_steps)
    peak, rest = settings.learning_rate, max(1, num_steps - warmup)
    decay = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
        "constant": lambda: optax.constant_schedule(peak),
    }[settings.schedule]()
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def make_optimizer(settings: OptimizerSettings, num_steps: int) -> optax.GradientTransformation:
    """Clip at the global norm, then AdamW; weight decay spares biases and norms."""
    clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()
    return optax.chain(
        clip,
        optax.adamw(
            learning_rate_schedule(settings, num_steps),
            b1=settings.beta1,
            b2=settings.beta2,
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            mask=_decayed,
        ),
    )


_MATRICES = ("kernel", "embedding", "a", "b")  # the last two are an adapter's


def _decayed(params: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in _MATRICES, params)
