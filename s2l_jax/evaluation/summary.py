"""The numbers of an evaluation: accuracy and loss with intervals, by level, type and source, and averages."""

import collections
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from s2l_jax.evaluation.intervals import mean_interval, wilson
from s2l_jax.evaluation.metrics import text_metrics
from s2l_jax.evaluation.predictions import Prediction, Response

_DOMAINS = {"in": "in_domain", "out": "out_of_domain"}
_GROUP = ("num_examples", "num_without_loss", "accuracy", "interval", "heldout_loss")  # of some of the rows


def benchmark_results(
    predictions: Sequence[Prediction],
    *,
    domain: str,
    mode: str,
    shots: int,
    metrics: Sequence[str] = (),
    bertscore_model: str = "",
) -> dict[str, Any]:
    """What results.json says of a model on one benchmark.

    Args:
      predictions: of every row.
      domain: see `Benchmark`.
      mode: how answers were asked for.
      shots: solved examples that prompts have where they fit.
      metrics: "accuracy", and those of `text_metrics`, which has `bertscore_model` too.
    """
    results = {"domain": domain, "mode": mode, "shots": shots} | summarise(predictions)
    if short := sum(p.shots < shots for p in predictions):
        results["num_with_fewer_shots"] = short
    if names := [name for name in metrics if name != "accuracy"]:
        responses, references = zip(*((p.response, p.reference) for p in predictions), strict=True)
        results["metrics"] = text_metrics(names, responses, references, bertscore_model=bertscore_model)
    return results


def in_words(results: Mapping[str, Any]) -> str:
    """The results of one benchmark in a line."""
    parts = []
    if "accuracy" in results:
        low, high = results["interval"]
        parts.append(f"accuracy {results['accuracy']:.1%} ({low:.1%} to {high:.1%})")
    parts += [f"{name} {found['score']:.1f}" for name, found in results.get("metrics", {}).items()]
    if "heldout_loss" in results:
        parts.append(f"held-out loss {results['heldout_loss']:.3f}")
    return ", ".join(parts)


def summarise(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The numbers of one benchmark, also by source, and by level and type where known."""
    summary = _group(predictions) | {"sources": _by(predictions, lambda p: p.source)}
    for name, key in (("levels", lambda p: p.level), ("types", lambda p: p.type)):
        if groups := _by(predictions, key):
            summary[name] = groups
    attempts = [p.attempt for p in predictions if p.attempt is not None]
    responses: list[Prediction | Response] = [*predictions, *attempts]
    if runs := [each.program for each in responses if each.program is not None]:
        summary["programs"] = {
            "num_run": len(runs),
            "num_failed": sum(bool(run.error) for run in runs),
            "num_fallbacks": len(attempts),
        }
    return summary


def _group(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Accuracy with its 95 % Wilson interval, and the mean held-out loss of rows that have one."""
    losses = [p.loss for p in predictions if p.loss is not None]
    summary: dict[str, Any] = {
        "num_examples": len(predictions),
        "num_without_loss": len(predictions) - len(losses),
    }
    if predictions[0].correct is not None:
        num_correct = sum(bool(p.correct) for p in predictions)
        summary["accuracy"] = num_correct / len(predictions)
        summary["interval"] = list(wilson(num_correct, len(predictions)))
    return summary | ({"heldout_loss": float(np.mean(losses))} if losses else {})


def combine(benchmarks: Mapping[str, Mapping[str, Any]], asked: Collection[str] = ()) -> dict[str, Any]:
    """What results.json says of a model, from the results of its benchmarks.

    `overall` and `averages` are means over benchmarks, each weighing the same, as tables of the field
    have them; the held-out loss is the mean over rows. They are over the benchmarks of `asked` (all that
    there are if left out), and there are none where one is missing: means of models are over the same.
    """
    parts = [found for name, found in benchmarks.items() if name in asked or not asked]
    overall: dict[str, Any] = {
        "num_examples": sum(b["num_examples"] for b in parts),
        "num_without_loss": sum(b["num_without_loss"] for b in parts),
    }
    if missing := [name for name in asked if name not in benchmarks]:
        overall["missing_benchmarks"] = missing
        averages = {}
    else:
        overall |= _means(parts)
        averages = {
            title: _average(members)
            for domain, title in _DOMAINS.items()
            if (members := [b for b in parts if b["domain"] == domain and "accuracy" in b])
        }
    return {
        "overall": overall,
        "averages": averages,
        "sources": _by_source(benchmarks),
        "benchmarks": dict(benchmarks),
    }


def _by_source(benchmarks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Benchmarks of a domain, by name, and the sources of others; "BENCHMARK: SOURCE" where two clash."""
    groups = [
        (name, source, group)
        for name, found in benchmarks.items()
        for source, group in (
            [(name, {key: found[key] for key in _GROUP if key in found})]
            if found["domain"]
            else found["sources"].items()
        )
    ]
    times = collections.Counter(source for _, source, _ in groups)
    return {
        source if times[source] == 1 or source == name else f"{name}: {source}": group
        for name, source, group in groups
    }


def _means(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy and held-out loss over benchmarks, where they have them."""
    means: dict[str, Any] = _average(parts) if all("accuracy" in b for b in parts) else {}
    if with_loss := [b for b in parts if "heldout_loss" in b]:
        weights = [b["num_examples"] - b["num_without_loss"] for b in with_loss]
        means["heldout_loss"] = float(np.average([b["heldout_loss"] for b in with_loss], weights=weights))
    return means


def _average(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    accuracies = [b["accuracy"] for b in parts]
    interval = list(mean_interval(accuracies, [b["interval"] for b in parts]))
    return {"accuracy": sum(accuracies) / len(parts), "interval": interval, "num_benchmarks": len(parts)}


def _by(predictions: Sequence[Prediction], key: Callable[[Prediction], str]) -> dict[str, Any]:
    groups: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        if name := key(prediction):
            groups.setdefault(name, []).append(prediction)
    return {name: _group(groups[name]) for name in sorted(groups)}
