"""Lengths of responses in tokens, and whose tokeniser counts tokens."""

from typing import Any, ClassVar

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from s2l_jax.features.arrays import counts
from s2l_jax.features.feature import FEATURES, Feature, SelectionContext


class ResponseTokens(Feature):
    """How many tokens each response has; nothing for a pool without tokens."""

    arrays: ClassVar = {"response_tokens": counts()}
    source = "run the pool stage with a model's tokeniser, or pass SelectionInputs(response_tokens=...)"

    def models(self, config: ConfigDict) -> tuple[str, ...]:
        return counting_models(config)

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        assert context.pool is not None
        return {"pool.token_counts": context.pool.fingerprint}

    def make(self, context: SelectionContext, options: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
        assert context.pool is not None
        if not np.asarray(context.pool.lengths).any():
            return {}
        return {"response_tokens": context.pool.response_lengths()}


def counting_models(config: ConfigDict) -> tuple[str, ...]:
    """The model whose tokeniser counts: the target, or the proxy where no target is named; none without."""
    named = [model for model in ("target", "proxy") if config[model].checkpoint or config[model].tokenizer]
    return tuple(named[:1])


FEATURES.enter("response_tokens", ResponseTokens())
