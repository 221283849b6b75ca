"""Reading a Hugging Face config.json so that no field of it is passed over in silence."""

from typing import Any

from s2l_jax.errors import InputError
from s2l_jax.models.architecture import RopeScaling

HFConfig = dict[str, Any]

# Fields that say nothing about what the model computes in one forward pass.
# fmt: off
_METADATA = frozenset({
    "_attn_implementation", "_attn_implementation_autoset", "_model_name_or_path", "_name_or_path",
    "architectures", "attn_implementation", "auto_map", "bos_token_id", "chunk_size_feed_forward",
    "classifier_dropout", "dtype", "eos_token_id", "finetuning_task", "id2label", "is_decoder",
    "is_encoder_decoder", "keys_to_ignore_at_inference", "label2id", "model_type", "n_ctx", "num_labels",
    "original_max_position_embeddings", "output_attentions", "output_hidden_states", "pad_token_id",
    "predict_special_tokens", "pretraining_tp", "problem_type", "return_dict", "sep_token_id",
    "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
    "summary_use_proj", "task_specific_params", "tokenizer_class", "torch_dtype", "torchscript",
    "transformers_version", "transformers_weights", "unk_token_id", "use_bfloat16", "use_cache",
    "use_return_dict",
})
# fmt: on


class Fields:
    """The fields of a config.json, which remembers those that were asked for."""

    def __init__(self, config: HFConfig):
        self._config = config
        self._read: set[str] = set()
        self.dropout: dict[str, float] = {}  # dropout that the config asks for

    def __getitem__(self, name: str) -> Any:
        """A field that must be there; KeyError if not."""
        self._read.add(name)
        return self._config[name]

    def __contains__(self, name: str) -> bool:
        return name in self._config

    def get(self, name: str, default: Any) -> Any:
        """A field, or `default` where it is absent or null."""
        self._read.add(name)
        value = self._config.get(name)
        return default if value is None else value

    def require(self, name: str, allowed: Any) -> None:
        """Refuse a field whose value is another than the supported one; absent and null are fine."""
        value = self.get(name, allowed)
        if value != allowed:
            raise InputError(f"{name}={value!r} is not supported; it must be {allowed!r}.")

    def note_dropout(self, *names: str) -> None:
        """Take notice of dropout rates, which are the training run's affair and not the model's."""
        for name in names:
            if rate := self.get(name, 0.0):
                self.dropout[name] = rate

    def unknown(self) -> list[str]:
        """Fields that were not asked for and may matter."""
        rest = self._config.keys() - self._read - _METADATA
        return sorted(name for name in rest if self._config[name] not in (None, False, {}, []))


def _read_rope(
    fields: Fields, head_dim: int, fraction: float, fraction_field: str, theta_field: str
) -> dict[str, Any]:
    """Rotary settings from `rope_parameters` (transformers 5) or the flat fields that hub configs carry."""
    flat_fraction, flat_theta = fields.get(fraction_field, fraction), fields.get(theta_field, 10000.0)
    newer, older = fields.get("rope_parameters", {}), fields.get("rope_scaling", {})
    rope = older or newer
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaling = None
    if kind == "linear":
        scaling = RopeScaling("linear", float(rope["factor"]))
    elif kind == "llama3":
        scaling = RopeScaling(
            "llama3",
            float(rope["factor"]),
            float(rope["low_freq_factor"]),
            float(rope["high_freq_factor"]),
            int(rope.get("original_max_position_embeddings") or fields["max_position_embeddings"]),
        )
    elif kind != "default":
        raise InputError(f"rope type {kind!r} is not supported; known: default, linear, llama3.")
    rotary_dim = int(head_dim * rope.get("partial_rotary_factor", flat_fraction))
    if rotary_dim % 2 or not 0 < rotary_dim <= head_dim:
        raise InputError(f"{rotary_dim} of the {head_dim} dimensions of a head cannot be rotated.")
    theta = float(rope.get("rope_theta", flat_theta))
    return {"rotary_dim": rotary_dim, "rope_theta": theta, "rope_scaling": scaling}


def read_common(
    fields: Fields,
    head_dim: int,
    *,
    max_positions: int,
    tied: bool = False,
    rotary: float = 1.0,
    rotary_field: str = "partial_rotary_factor",
    theta_field: str = "rope_theta",
) -> dict[str, Any]:
    """Settings of the decoder from fields that all families but GPT-2 have.

    Args:
      fields: of the config.
      head_dim: dimensions of a head.
      max_positions: the family's default, as `tied` and `rotary` are.
      tied: whether the embedding is the output matrix too.
      rotary: share of a head's dimensions that is rotated.
      rotary_field: older name of that share.
      theta_field: older name of the base.

    Raises:
      InputError: rotary settings that are not supported.
    """
    return {
        "vocab_size": fields["vocab_size"],
        "hidden_size": fields["hidden_size"],
        "num_layers": fields["num_hidden_layers"],
        "num_heads": fields["num_attention_heads"],
        "head_dim": head_dim,
        "intermediate_size": fields["intermediate_size"],
        "max_positions": fields.get("max_position_embeddings", max_positions),
        **_read_rope(fields, head_dim, rotary, rotary_field, theta_field),
        "tied_embeddings": fields.get("tie_word_embeddings", tied),
        "initializer_range": fields.get("initializer_range", 0.02),
    }


def read_head_dim(fields: Fields) -> int:
    """Dimensions of a head: named, or what hidden_size leaves each."""
    hidden, heads = fields["hidden_size"], fields["num_attention_heads"]
    named = fields.get("head_dim", 0)
    if not named and hidden % heads:
        raise InputError(f"hidden_size {hidden} does not divide into {heads} attention heads.")
    return named or hidden // heads


def read_windows(fields: Fields, *, used: bool = True, first: int = 0) -> tuple[int, ...]:
    """The sliding window of each layer, from `sliding_window` and, where it is there, `layer_types`.

    Args:
      fields: of the config.
      used: whether the model uses windows at all.
      first: layer from which on it does, where neither `layer_types` nor `max_window_layers` says.
    """
    layers, window = fields["num_hidden_layers"], fields.get("sliding_window", 0)
    kinds = fields.get("layer_types", [])
    first = fields.get("max_window_layers", first)
    if not used and "sliding_attention" in kinds:
        raise InputError("layer_types has sliding_attention, though use_sliding_window is false.")
    if not (used and window):
        return ()
    if not kinds:
        kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    if strange := set(kinds) - {"sliding_attention", "full_attention"}:
        raise InputError(f"layer_types has {sorted(strange)}; known: full_attention, sliding_attention.")
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
