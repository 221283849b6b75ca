"""What sets model families apart: their Hugging Face config fields, weight names and layouts."""

from s2l_jax.models.families.registry import FAMILIES, Family, decoder_config

__all__ = ["FAMILIES", "Family", "decoder_config"]
