"""Overlap of summaries with references: BLEU, ROUGE and BERTScore, by their authors' packages."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from s2l_jax.errors import InputError
from s2l_jax.evaluation.intervals import bootstrap

Scores = dict[str, dict[str, Any]]


def text_metrics(
    names: Sequence[str], responses: Sequence[str], references: Sequence[str], *, bertscore_model: str = ""
) -> Scores:
    """Corpus scores, 0 to 100, each with a 95 % bootstrap interval over rows.

    Args:
      names: of "bleu" (sacrebleu's corpus BLEU, its signature is kept), "rouge" (mean F1 of ROUGE-1, -2
        and -L, stemmed) and "bertscore" (mean F1, arXiv 1904.09675).
      responses: what the model wrote.
      references: one for each response.
      bertscore_model: a hub id or a directory; "" for bert-score's default for English.

    Raises:
      InputError: bertscore without the package, or a model that cannot be loaded.
    """
    metrics = _METRICS | {"bertscore": functools.partial(_bertscore, model=bertscore_model)}
    scores: Scores = {}
    for name in names:
        scores |= metrics[name](responses, references)
    return scores


def check_metrics(names: Sequence[str]) -> None:
    """Find now that a metric's package is missing: an InputError."""
    if "bertscore" in names:
        _bert_score()


def _bleu(responses: Sequence[str], references: Sequence[str]) -> Scores:
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    # It takes spaces before full stops for tokenised text.
    logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    found = metric.corpus_score(list(responses), [list(references)])
    rows = [metric.corpus_score([r], [[t]]) for r, t in zip(responses, references, strict=True)]
    counts = np.array([[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in rows], np.int64)

    def of_rows(chosen: np.ndarray) -> float:
        *ngrams, said, wanted = counts[chosen].sum(axis=0).tolist()
        orders = len(ngrams) // 2
        correct, total = ngrams[:orders], ngrams[orders:]
        return BLEU.compute_bleu(correct, total, said, wanted, smooth_method=metric.smooth_method).score

    interval = list(bootstrap(of_rows, len(rows)))
    signature = str(metric.get_signature())
    return {"bleu": {"score": found.score, "interval": interval, "signature": signature}}


def _rouge(responses: Sequence[str], references: Sequence[str]) -> Scores:
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(kinds), use_stemmer=True)
    rows = [scorer.score(target, response) for response, target in zip(responses, references, strict=True)]
    return {kind: _mean(np.array([row[kind].fmeasure for row in rows])) for kind in kinds}


def _bertscore(responses: Sequence[str], references: Sequence[str], model: str) -> Scores:
    score = _bert_score()
    # A blank response scores 0, and bert-score 0.3 with transformers 5 cannot encode one.
    said = [n for n, response in enumerate(responses) if response.strip()]
    values = np.zeros(len(responses))
    try:
        options = {"model_type": model, "num_layers": _num_layers(model)} if model else {"lang": "en"}
        if said:
            of = ([texts[n] for n in said] for texts in (responses, references))
            values[said] = score(*of, verbose=False, **options)[2].numpy()
    except (OSError, ValueError, OverflowError) as error:  # the last: a tokeniser without model_max_length
        raise InputError(
            f"evaluation.metrics: bertscore cannot load its model ({error}). Set evaluation.bertscore_model "
            "to a hub id or a directory with the model and its tokeniser, whose tokenizer_config.json has a "
            "model_max_length."
        ) from error
    return {"bertscore": _mean(values) | {"model": model or "default for English"}}


def _num_layers(model: str) -> int | None:
    """The layer whose states are compared: bert-score's choice for models it knows, else the last."""
    from bert_score.utils import model2layers
    from transformers import AutoConfig

    return (
        None
        if model in model2layers
        else AutoConfig.from_pretrained(model, trust_remote_code=False).num_hidden_layers
    )


def _bert_score() -> Callable[..., Any]:
    try:
        from bert_score import score
    except ImportError as error:
        raise InputError(
            f"evaluation.metrics: bertscore needs PyTorch and bert-score ({error}): pip install bert-score, "
            "or leave it out."
        ) from None
    return score


def _mean(values: Float[np.ndarray, "n"]) -> dict[str, Any]:
    interval = bootstrap(lambda rows: 100 * float(values[rows].mean()), len(values))
    return {"score": 100 * float(values.mean()), "interval": list(interval)}


_METRICS = {"bleu": _bleu, "rouge": _rouge}
