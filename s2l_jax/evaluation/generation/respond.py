"""A model's responses to prompts, as text."""

from collections.abc import Sequence
from typing import Any

from s2l_jax.data.tokens import end_tokens
from s2l_jax.errors import InputError
from s2l_jax.evaluation.generation.generate import Stops, generate
from s2l_jax.models.decoder import Decoder


def respond(
    model: Decoder,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    template: str,
    stop: Sequence[str] = (),
    **options: Any,
) -> list[str]:
    """The model's responses as text.

    Args:
      model: on a mesh.
      tokenizer: a transformers tokeniser.
      prompts: token ids.
      template: what the prompts were rendered with.
      stop: texts that end a response; what is kept ends before the first of them.
      options: those of `generate`, its `end_tokens` and `stops` excepted.

    Raises:
      InputError: the tokeniser has more tokens than the model's embedding, or see `generate`.
    """
    check_vocabulary(model, tokenizer)
    answers = generate(
        model,
        prompts,
        end_tokens=end_tokens(tokenizer, template),
        stops=_stops(tokenizer, stop) if stop else None,
        **options,
    )
    return [_text(tokenizer, answer, stop) for answer in answers]


def check_vocabulary(model: Decoder, tokenizer: Any) -> None:
    """Refuse, by an InputError, a tokeniser with tokens that the model lacks."""
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
