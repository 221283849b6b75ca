"""The key-value cache that generation decodes with."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.attention import softmax_attention


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of every layer, in slots that all rows fill in step.

    Rows differ in what their slots hold: `positions` says which token of its own text a slot has,
    -1 for none. So a row may begin at any slot, and another text may take a finished row's place.
    """

    keys: tuple[Float[Array, "b h s d"], ...]  # by layer
    values: tuple[Float[Array, "b h s d"], ...]
    positions: Int32[Array, "b s"]
    end: Int32[Array, ""]  # the slot that comes next

    @classmethod
    def empty(cls, config: DecoderConfig, batch: int, slots: int, dtype: Any) -> "KeyValueCache":
        """A cache of `slots` tokens a row, none filled."""
        shape = (batch, config.num_kv_heads, slots, config.head_dim)
        keys, values = (tuple(jnp.zeros(shape, dtype) for _ in range(config.num_layers)) for _ in range(2))
        return cls(keys, values, jnp.full((batch, slots), -1, jnp.int32), jnp.int32(0))

    def place(self, positions: Int32[Array, "b"]) -> "KeyValueCache":
        """The next slot holds these positions, -1 where a row has nothing to say."""
        filled = jax.lax.dynamic_update_slice_in_dim(self.positions, positions[:, None], self.end, axis=1)
        return dataclasses.replace(self, positions=filled)

    def write(
        self, layer: int, key: Float[Array, "b 1 h d"], value: Float[Array, "b 1 h d"]
    ) -> "KeyValueCache":
        """One layer's key and value of the next slot."""
        keys, values = list(self.keys), list(self.values)
        for held, new in ((keys, key), (values, value)):
            held[layer] = jax.lax.dynamic_update_slice_in_dim(
                held[layer], new.swapaxes(1, 2).astype(held[layer].dtype), self.end, axis=2
            )
        return dataclasses.replace(self, keys=tuple(keys), values=tuple(values))

    def attend(
        self,
        layer: int,
        query: Float[Array, "b 1 h d"],
        positions: Int32[Array, "b"],
        window: int | None,
    ) -> Float[Array, "b 1 h d"]:
        """Attention of one query a row over what its slots hold up to its position."""
        distance = positions[:, None] - self.positions
        visible = (self.positions >= 0) & (distance >= 0)
        if window is not None:
            visible &= distance < window
        return softmax_attention(query, self.keys[layer], self.values[layer], visible[:, None])

    def advance(self) -> "KeyValueCache":
        """The cache with its next slot filled."""
        return dataclasses.replace(self, end=self.end + 1)
