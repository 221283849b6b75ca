"""Results, trajectories and a page of them that the tests of the report share."""

import json
import math

import numpy as np

from s2l_jax.report.comparisons import compare
from s2l_jax.report.findings import Findings
from s2l_jax.report.page import render_report
from s2l_jax.report.rows import PoolRows, RowText
from s2l_jax.report.runs import group_runs
from s2l_jax.report.section import SECTIONS, Section


def evaluation(accuracy, loss, sources):
    scores = {"accuracy": accuracy, "heldout_loss": loss, "num_examples": 20}
    return {"overall": dict(scores), "sources": {source: dict(scores) for source in sources}}


def make_results(num_sources=4, num_clusters=5, steps=(10, 20, 30, 40)):
    """Results of s2l and random at two budgets with three and two seeds, full data and untuned."""
    sources = {f"group/source {i}": 400 // (i + 1) for i in range(num_sources)}
    num_examples = sum(sources.values())
    curve = {"step": list(range(1, 41)), "loss": [3 * math.exp(-i / 9) + 0.5 for i in range(40)]}
    results = {
        "config_name": "example",
        "seed": 11,
        "pool": {
            "num_examples": num_examples,
            "num_without_loss": 2,
            "num_tokens": 51_000,
            "sources": sources,
        },
        "proxy": {"steps": 40, "parameters": 120_000, "final_loss": 0.6, "curve": curve}
        | {"training_flops": 2e11, "sweep_flops": 1e11},
        "trajectories": {
            "steps": list(steps),
            "num_examples": num_examples,
            "refreshes": [
                {"columns": 2, "inertia": 90.0, "adjusted_rand": math.nan},
                {"columns": 3, "inertia": 120.0, "adjusted_rand": 0.7},
                {"columns": 4, "inertia": 140.0, "adjusted_rand": 0.97},
            ],
        },
        "selections": {},
        "targets": {},
        "evaluations": {"untuned": evaluation(0.05, 2.5, sources)},
        "timing": {"pool": 1.0, "proxy": 20.0, "trajectories": 5.0, "evaluation": 3.0},
    }

    def add(name, method, budget, seed, accuracy, options=()):
        size = min(budget, num_examples)
        results["selections"][name] = {
            "method": method,
            "budget": budget,
            "size": size,
            "seed": seed,
            "options": dict(options),
            "sources": dict.fromkeys(sources, size // num_sources),
        }
        if method == "s2l":
            sizes = [num_examples // num_clusters] * num_clusters
            picked = [budget // num_clusters] * num_clusters
            extra = {"cluster_sizes": sizes, "picked_per_cluster": picked}
            extra["used"] = ["proxy", "trajectories"]
            results["selections"][name] |= {"num_clusters": num_clusters, **extra}
            results["timing"][f"selection/{name}"] = 1.0
        results["targets"][name] = {
            "steps": 40,
            "epochs": 2.0,
            "examples_seen": 640,
            "tokens_seen": 30_000,
            "training_flops": 1e12,
            "final_loss": 0.5,
            "parameters": 900_000,
            "curve": curve,
        }
        results["evaluations"][name] = evaluation(accuracy, 2 - accuracy, sources)
        results["timing"][f"target/{name}"] = 30.0 + seed

    for seed, accuracy in enumerate((0.40, 0.50, 0.60)):
        add(f"s2l-100-seed{seed}", "s2l", 100, seed, accuracy, {"num_clusters": num_clusters})
    for seed, accuracy in enumerate((0.30, 0.34)):
        add(f"random-100-seed{seed}", "random", 100, seed, accuracy)
    add("random-50", "random", 50, 0, 0.2)
    add("full", "full", num_examples, 0, 0.7)

    def verdicts(run, measure):
        right = {("pool", row): float(row < 20 * run.accuracy) for row in range(20)}
        return right if measure == "accuracy" else {}

    baseline = {name for name in results["selections"] if name.startswith("random")}
    results["comparisons"] = compare(group_runs(results), verdicts, baseline, "random")
    return results


def hostile_results(text):
    """Results with a text as the name of the config, a source, a run, a benchmark, and as options' values."""
    written = json.dumps(make_results())
    for name in ("group/source 1", "random-50"):
        written = written.replace(json.dumps(name), json.dumps(text))
    results = json.loads(written) | {"config_name": text}
    for seed in range(3):  # an ablation by three of them
        results["selections"][f"s2l-100-seed{seed}"]["options"]["pick"] = f"{text} {seed}"
    part = {"accuracy": 0.5, "num_examples": 20}
    benchmark = part | {"domain": "in", "levels": {text: part}}
    results["evaluations"]["full"]["benchmarks"] = {text: benchmark}
    results["comparisons"]["baseline"] = text
    return results


def make_trajectories(results, num_clusters=5, num_steps=4):
    rng = np.random.default_rng(3)
    num_examples = results["pool"]["num_examples"]
    labels = rng.integers(0, num_clusters, num_examples)
    falling = np.exp(-np.arange(num_steps) / 2)
    rows = 1 + labels[:, None] * falling + rng.normal(0, 0.05, (num_examples, num_steps))
    return rows.astype(np.float32), labels


def make_rows(num_examples, text="text"):
    """Rows of two sources whose texts are made of `text`."""
    return PoolRows(
        ids=np.arange(num_examples, dtype=np.uint64) * 7919,
        sources=np.array([f"group/source {i % 2}" for i in range(num_examples)]),
        tokens=np.full(num_examples, 12),
        texts=lambda indices: [RowText(f"{text} asked {i}", f"{text} answered {i}") for i in indices],
    )


def make_findings(results, trajectories=None, labels=None, steps=(10, 20, 30, 40), text="text"):
    """Findings of which s2l-100-seed0 clustered the rows, every fifth of which it took."""
    if labels is None:
        return Findings(results, trajectories, steps)
    taken = {"s2l-100-seed0": np.arange(len(labels)) % 5 == 0, "random-50": np.arange(len(labels)) % 9 == 0}
    named = {"s2l-100-seed0": labels, "random-50": np.zeros(len(labels), int)}
    return Findings(results, trajectories, steps, named, taken, make_rows(len(labels), text))


def render(results, *arguments, **options):
    return render_report(make_findings(results, *arguments, **options))


def drawn(figure):
    """All rows of data of a figure."""
    if isinstance(figure, dict):
        rows = [row for row in figure.get("values", ()) if isinstance(row, dict)]  # a legend has values, too
        return [*rows, *(row for key, part in figure.items() if key != "values" for row in drawn(part))]
    if isinstance(figure, list):
        return [row for part in figure for row in drawn(part)]
    return drawn(figure.to_dict()) if hasattr(figure, "to_dict") else []


def filled(name, found):
    """A section of the page by itself."""
    section = Section(name, SECTIONS[name].title)
    SECTIONS[name].fill(section, found)
    return section
