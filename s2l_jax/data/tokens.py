"""Tokenising prompt and response into one example, with the response marked."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from s2l_jax.data.chat import CHAT, closing_tokens
from s2l_jax.data.responses import Gaps, Span, loss_places
from s2l_jax.errors import InputError

BOUNDARIES = ("separate", "official")


@dataclasses.dataclass(frozen=True)
class TokenizedExample:
    """Token ids of prompt, response and end-of-sequence, cut at the length limit.

    With several responses `prompt_length` is of what comes before the first.
    """

    tokens: Int32[np.ndarray, "l"]
    prompt_length: int  # tokens that are masked; equal to the length when no response is left
    cut: bool  # part of it fell behind the length limit
    boundary_merged: bool  # a token spans the end of the prompt and the start of the response
    gaps: tuple[Span, ...] = ()  # tokens between responses

    @property
    def loss_places(self) -> Int64[np.ndarray, "m"]:
        """The places of its tokens that have a loss."""
        return loss_places(len(self.tokens), self.prompt_length, self.gaps)

    @property
    def has_response(self) -> bool:
        """Whether any of its tokens has a loss."""
        return bool(len(self.loss_places))


def tokenize(
    tokenizer: Any,
    texts: Sequence[tuple[str, ...]],
    *,
    max_length: int,
    boundary: str = "separate",
    template: str = "",
) -> list[TokenizedExample]:
    """Tokenise (prompt, response) pairs and append the end-of-sequence token.

    A conversation of which several responses are learnt is (prompt, response, prompt, response, ...). What
    comes after its first prompt is tokenised as one response would be; a token across the end of a later
    part counts to the earlier one.

    Args:
      tokenizer: a transformers tokeniser.
      texts: prompts and responses, as `data.prompts.render` gives them.
      max_length: tokens kept of each example.
      boundary: "separate" tokenises the two apart. "official" tokenises the joined text and masks
        as many tokens as the prompt alone has, as the authors' code does; a token that spans the
        boundary is then masked, or unmasked with part of the prompt.
      template: what the texts were rendered with. Those of "chat" hold their special tokens, so
        none are added but the end of sequence, and that only where the template closes the
        response with none of `end_tokens`. Under "separate" a response is then tokenised apart
        only where the joined text does not begin with the prompt's tokens.

    Raises:
      InputError: unknown boundary rule, or a chat template that cannot be used.
    """
    if boundary not in BOUNDARIES:
        raise InputError(f"tokenize.boundary={boundary!r}: choose one of {', '.join(BOUNDARIES)}.")
    if not texts:
        return []
    chat = template == CHAT
    ends = end_tokens(tokenizer, template)
    prompts = tokenize_prompts(tokenizer, [prompt for prompt, *_ in texts], template)
    if boundary == "official" or chat:
        joined = ["".join(parts) for parts in texts]
        whole = tokenizer(joined, add_special_tokens=not chat)["input_ids"]
        are_joint = [
            boundary == "official" or ids[: len(p)] == p for p, ids in zip(prompts, whole, strict=True)
        ]
    if boundary == "separate":
        responses = tokenizer(["".join(rest) for _, *rest in texts], add_special_tokens=False)["input_ids"]
        apart = [p + r for p, r in zip(prompts, responses, strict=True)]
        if chat:
            # Some tokenisers put a space before whatever they begin with, the response too.
            whole = [ids if joint else both for ids, both, joint in zip(whole, apart, are_joint, strict=True)]
        else:
            whole, are_joint = apart, [False] * len(texts)
    examples = []
    for parts, prompt, ids, joint in zip(texts, prompts, whole, are_joint, strict=True):
        merged = ids[: len(prompt)] != prompt
        gaps: list[Span] = []
        if len(parts) > 2:
            gaps, merged_later = _gaps(tokenizer, parts, ids, [] if joint else prompt)
            merged |= merged_later
        # A response may spell the token out, and some tokenisers append it themselves.
        if not ids or ids[-1] not in ends:
            ids = [*ids, tokenizer.eos_token_id]
        examples.append(
            TokenizedExample(
                np.asarray(ids[:max_length], np.int32),
                min(len(prompt), len(ids), max_length),
                cut=len(ids) > max_length,
                boundary_merged=merged,
                gaps=tuple((start, min(end, max_length)) for start, end in gaps if start < max_length),
            )
        )
    return examples


def _gaps(tokenizer: Any, parts: Sequence[str], ids: list[int], apart: list[int]) -> tuple[list[Span], bool]:
    """The later prompts of a conversation among its tokens, and whether a token spans one of their ends.

    `apart` are the tokens of the first prompt where what follows was tokenised apart from it.
    """
    first = 1 if apart else 0
    heads = ["".join(parts[first:number]) for number in range(2, len(parts))]
    found = [apart + head for head in tokenizer(heads, add_special_tokens=False)["input_ids"]]
    ends = np.maximum.accumulate([min(len(head), len(ids)) for head in found]).tolist()
    merged = any(ids[: len(head)] != head for head in found)
    return [(start, end) for start, end in zip(ends[::2], ends[1::2], strict=True) if start < end], merged


def tokenize_prompts(tokenizer: Any, prompts: Sequence[str], template: str = "") -> list[list[int]]:
    """Token ids of prompts alone, as a response may follow them: no end-of-sequence token.

    `template` is what they were rendered with; those of "chat" hold their special tokens.
    """
    if template == CHAT:
        return tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    ids = tokenizer(list(prompts))["input_ids"]
    # A letter tells, since the beginning-of-sequence token may be the same one.
    appends_end = tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    return [each[:-1] for each in ids] if appends_end else ids


def end_tokens(tokenizer: Any, template: str = "") -> tuple[int, ...]:
    """The tokens at which an answer ends: end-of-sequence first, then what closes a turn in "chat".

    Raises:
      InputError: a chat template that cannot be used.
    """
    closing = closing_tokens(tokenizer) if template == CHAT else ()
    return tuple(dict.fromkeys((tokenizer.eos_token_id, *closing)))


class CommonPrefix:
    """The tokens that all sequences begin with that it was shown; none before the first."""

    def __init__(self) -> None:
        self._tokens: Int32[np.ndarray, "p"] | None = None

    def add(self, tokens: Int32[np.ndarray, "l"]) -> None:
        """Keep what this sequence begins with too."""
        if self._tokens is None:
            self._tokens = tokens
        elif not np.array_equal(tokens[: len(self._tokens)], self._tokens):
            size = min(len(tokens), len(self._tokens))
            differ = np.flatnonzero(tokens[:size] != self._tokens[:size])
            self._tokens = self._tokens[: differ[0] if len(differ) else size]

    @property
    def tokens(self) -> Int32[np.ndarray, "p"]:
        """What they share."""
        return np.zeros(0, np.int32) if self._tokens is None else self._tokens


class TokenizedList:
    """Tokenised examples held in memory, as `data.batching` and the loss sweep read them."""

    def __init__(self, examples: Iterable[TokenizedExample]):
        self._examples = list(examples)
        self.lengths = np.array([len(e.tokens) for e in self._examples], np.int32)
        self.prompt_lengths = np.array([e.prompt_length for e in self._examples], np.int32)
        self.gaps = Gaps.of((n, *gap) for n, e in enumerate(self._examples) for gap in e.gaps)
        shared = CommonPrefix()
        for example in self._examples:
            shared.add(example.tokens)
        self.common_prefix = shared.tokens

    def read(self, indices: Sequence[int]) -> list[Int32[np.ndarray, "_"]]:
        """Token ids of some examples."""
        return [self._examples[n].tokens for n in indices]
