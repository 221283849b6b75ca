"""Summaries are scored as the metrics' own packages score them, with intervals."""

import sys

import numpy as np
import pytest

from s2l_jax.errors import InputError
from s2l_jax.evaluation.metrics import check_metrics, text_metrics

RESPONSES = ["No acute process.", "Stable small left effusion", "The cat sat", ""] * 8
REFERENCES = ["No acute process in the chest.", "Small left effusion, stable", "Normal chest", "Normal"] * 8


def test_bleu_and_rouge_are_those_of_their_packages():
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import corpus_bleu

    found = text_metrics(["bleu", "rouge"], RESPONSES, REFERENCES)
    assert found["bleu"]["score"] == corpus_bleu(RESPONSES, [REFERENCES]).score
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    rows = [scorer.score(t, r)["rougeL"].fmeasure for r, t in zip(RESPONSES, REFERENCES, strict=True)]
    assert found["rougeL"]["score"] == pytest.approx(100 * np.mean(rows))
    for each in found.values():
        assert each["interval"][0] < each["score"] < each["interval"][1]
    assert found == text_metrics(["bleu", "rouge"], RESPONSES, REFERENCES)
    assert text_metrics(["bleu", "rouge"], REFERENCES, REFERENCES)["rougeL"]["score"] == 100


def test_bleus_interval_is_a_resampled_corpus():
    """The sums of counts that are resampled give sacrebleu's own score on the resampled rows."""
    from sacrebleu import corpus_bleu

    rows = np.random.default_rng(0).integers(len(RESPONSES), size=(200, len(RESPONSES)))
    scores = [corpus_bleu([RESPONSES[i] for i in r], [[REFERENCES[i] for i in r]]).score for r in rows]
    interval = text_metrics(["bleu"], RESPONSES, REFERENCES)["bleu"]["interval"]
    assert interval == pytest.approx(np.percentile(scores, [2.5, 97.5]), abs=1)


def test_bertscore_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bert_score", None)
    check_metrics(["bleu", "rouge"])
    with pytest.raises(InputError, match="pip install bert-score"):
        check_metrics(["bleu", "bertscore"])


def test_bertscore_with_a_local_model(tmp_path):
    pytest.importorskip("bert_score")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    words = sorted(
        {word for text in RESPONSES + REFERENCES for word in text.lower().replace(".", "").split()}
    )
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *words])
    )
    tokenizer = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"), model_max_length=512)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=len(tokenizer), **shape))
    model.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    same = text_metrics(["bertscore"], REFERENCES, REFERENCES, bertscore_model=str(tmp_path / "bert"))
    assert same["bertscore"]["score"] == pytest.approx(100, abs=1e-3)
    other = text_metrics(["bertscore"], RESPONSES, REFERENCES, bertscore_model=str(tmp_path / "bert"))
    assert other["bertscore"]["score"] < 75  # a quarter of them are blank
    with pytest.raises(InputError, match="cannot load its model"):
        text_metrics(["bertscore"], ["a"], ["b"], bertscore_model=str(tmp_path / "none"))
