"""What a model says to prompts, and its loss of reference responses."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from s2l_jax.data.batching import loss_token_counts
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedList, end_tokens, tokenize
from s2l_jax.errors import InputError
from s2l_jax.evaluation.generation.generate import Stops, generate
from s2l_jax.evaluation.generation.sampling import GREEDY, Sampling
from s2l_jax.models.decoder import Decoder
from s2l_jax.trajectories.sweep import tokenized_losses


def respond(
    model: Decoder,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    template: str,
    max_new_tokens: int,
    batch_size: int,
    dtype: Any,
    mesh: Mesh,
    sampling: Sampling = GREEDY,
    stop: Sequence[str] = (),
    numbers: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """The model's responses as text.

    Args:
      model: on `mesh`.
      tokenizer: a transformers tokeniser.
      prompts: token ids.
      template: what they were rendered with.
      max_new_tokens: longest response.
      batch_size: prompts answered at a time.
      dtype: of matrix products.
      mesh: the device mesh.
      sampling: greedy, unless told otherwise.
      stop: texts that end a response; what is kept ends before the first of them.
      numbers: see `generate`.
      progress: called with the number of prompts answered so far.

    Raises:
      InputError: the tokeniser has more tokens than the model's embedding, or see `generate`.
    """
    _check_fit(model, tokenizer)
    answers = generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        end_tokens=end_tokens(tokenizer, template),
        mesh=mesh,
        batch_size=batch_size,
        dtype=dtype,
        sampling=sampling,
        stops=_stops(tokenizer, stop) if stop else None,
        numbers=numbers,
        progress=progress,
    )
    return [_text(tokenizer, answer, stop) for answer in answers]


def reference_losses(
    model: Decoder,
    tokenizer: Any,
    rows: Sequence[PoolRow],
    *,
    template: str,
    boundary: str,
    max_length: int,
    dtype: Any,
    mesh: Mesh,
) -> list[float | None]:
    """The loss of each row's response, nats a token; None where max_length cuts all of it away.

    Args:
      model: on `mesh`.
      tokenizer: a transformers tokeniser.
      rows: with the responses that are measured.
      template: name of the prompt template.
      boundary: see `data.tokens.tokenize`.
      max_length: tokens kept of each row.
      dtype: of matrix products.
      mesh: the device mesh.

    Raises:
      InputError: the tokeniser has more tokens than the model's embedding.
    """
    _check_fit(model, tokenizer)
    texts = [render(template, row, tokenizer) for row in rows]
    examples = TokenizedList(
        tokenize(tokenizer, texts, max_length=max_length, boundary=boundary, template=template)
    )
    has_loss = loss_token_counts(examples, np.arange(len(rows))) > 0
    if not has_loss.any():
        return [None] * len(rows)
    losses = tokenized_losses(model, examples, max_length=max_length, dtype=dtype, mesh=mesh)
    return [float(loss) if has else None for loss, has in zip(losses, has_loss, strict=True)]


def _check_fit(model: Decoder, tokenizer: Any) -> None:
    if len(tokenizer) > model.config.vocab_size:
        raise InputError(
            f"the tokeniser has {len(tokenizer)} tokens, the model's vocabulary {model.config.vocab_size}: "
            "they do not belong together."
        )


def _stops(tokenizer: Any, stop: Sequence[str]) -> Stops:
    def found(answer: list[int]) -> bool:
        text = tokenizer.decode(answer)  # with special tokens, which a stop text may name
        return any(each in text for each in stop)

    return found


def _text(tokenizer: Any, answer: list[int], stop: Sequence[str]) -> str:
    """An answer's text up to the first stop text, without special tokens."""
    if not stop:
        return tokenizer.decode(answer, skip_special_tokens=True)
    text = tokenizer.decode(answer)
    text = text[: min([text.find(each) for each in stop if each in text], default=len(text))]
    for special in tokenizer.all_special_tokens:
        text = text.replace(special, "")
    return text
