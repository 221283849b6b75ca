"""Which tokens of an example have a loss: those of the response that have a token before them."""

import numpy as np
from jaxtyping import Int, Int64


def response_starts(prompt_lengths: Int[np.ndarray, "*n"] | int) -> Int[np.ndarray, "*n"]:
    """Place of the first token that has a loss: after the prompt, and never the first of all.

    That one has nothing before it to be predicted from.
    """
    return np.maximum(prompt_lengths, 1)


def num_loss_tokens(
    lengths: Int[np.ndarray, "*n"] | int, prompt_lengths: Int[np.ndarray, "*n"] | int
) -> Int64[np.ndarray, "*n"]:
    """How many tokens have a loss; 0 where no response is left."""
    return np.maximum(np.asarray(lengths, np.int64) - response_starts(prompt_lengths), 0)
