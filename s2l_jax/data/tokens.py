"""Tokenising prompt and response into one example, with the response marked."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from s2l_jax.errors import InputError

BOUNDARIES = ("separate", "official")


@dataclasses.dataclass(frozen=True)
class TokenizedExample:
    """Token ids of prompt, response and end-of-sequence, cut at the length limit."""

    tokens: Int32[np.ndarray, "l"]
    prompt_length: int  # tokens that are masked; equal to the length when no response is left
    cut: bool  # part of it fell behind the length limit
    boundary_merged: bool  # a token spans the end of the prompt and the start of the response


def tokenize(
    tokenizer: Any, texts: Sequence[tuple[str, str]], *, max_length: int, boundary: str = "separate"
) -> list[TokenizedExample]:
    """Tokenise (prompt, response) pairs and append the end-of-sequence token.

    Args:
      tokenizer: a transformers tokeniser.
      texts: prompts and responses.
      max_length: tokens kept of each example.
      boundary: "separate" tokenises the two apart. "official" tokenises the joined text and masks
        as many tokens as the prompt alone has, as the authors' code does; a token that spans the
        boundary is then masked, or unmasked with part of the prompt.

    Raises:
      InputError: unknown boundary rule.
    """
    if boundary not in BOUNDARIES:
        raise InputError(f"tokenize.boundary={boundary!r}: choose one of {', '.join(BOUNDARIES)}.")
    prompts = tokenize_prompts(tokenizer, [prompt for prompt, _ in texts])
    if boundary == "separate":
        responses = tokenizer([r for _, r in texts], add_special_tokens=False)["input_ids"]
        whole = [p + r for p, r in zip(prompts, responses, strict=True)]
    else:
        whole = tokenizer([prompt + response for prompt, response in texts])["input_ids"]
    examples = []
    for prompt, ids in zip(prompts, whole, strict=True):
        ids = _with_end(ids, tokenizer)
        examples.append(
            TokenizedExample(
                np.asarray(ids[:max_length], np.int32),
                min(len(prompt), len(ids), max_length),
                cut=len(ids) > max_length,
                boundary_merged=ids[: len(prompt)] != prompt,
            )
        )
    return examples


def tokenize_prompts(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts alone, as a response may follow them: no end-of-sequence token."""
    ids = tokenizer(list(prompts))["input_ids"]
    # A letter tells, since the beginning-of-sequence token may be the same one.
    appends_end = tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    return [each[:-1] for each in ids] if appends_end else ids


class TokenizedList:
    """Tokenised examples held in memory, as `data.batching` and the loss sweep read them."""

    def __init__(self, examples: Iterable[TokenizedExample]):
        self._examples = list(examples)
        self.lengths = np.array([len(e.tokens) for e in self._examples], np.int32)
        self.prompt_lengths = np.array([e.prompt_length for e in self._examples], np.int32)

    def read(self, numbers: Sequence[int]) -> list[Int32[np.ndarray, "_"]]:
        """Token ids of some examples."""
        return [self._examples[n].tokens for n in numbers]


def _with_end(ids: list[int], tokenizer: Any) -> list[int]:
    # A response may spell the token out, and some tokenisers append it themselves.
    return ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]
