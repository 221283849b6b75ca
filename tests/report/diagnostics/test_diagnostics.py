"""Diagnostics: what is planted is caught, a sound run is left in peace."""

import ast
import dataclasses
import re

import numpy as np
import pytest

from s2l_jax.config import default, find_field
from s2l_jax.data.datasets.synthetic import pool_rows
from s2l_jax.report.diagnostic import FAULT, WARNING, diagnose
from s2l_jax.report.diagnostics.rows import repeated, unlearnt
from s2l_jax.report.findings import Findings
from s2l_jax.report.rows import PoolRows, RowText
from s2l_jax.report.runs import clusters_losses
from s2l_jax.report.section import Section
from s2l_jax.report.sections.diagnostics import diagnostics, rows_of
from tests.support.paths import GOLDEN, REPOSITORY

KINDS = 4  # of rows in each source, learnt at rates of their own


def sound(seed=0, num_rows=600, columns=10):
    """Two sources, whose kinds of rows are learnt sooner or later; each is a cluster."""
    rng = np.random.default_rng(seed)
    source = (np.arange(num_rows) % 3 == 0).astype(int)
    kind = rng.integers(0, KINDS, num_rows)
    rate = 0.25 * (kind + 1)
    start = np.where(source == 0, 2.0, 3.0) * rng.gamma(400, 1 / 400, num_rows)
    losses = start[:, None] * np.exp(-rate[:, None] * np.arange(columns))
    losses += 0.1 + rng.gamma(50, 0.0004, losses.shape)
    labels = source * KINDS + kind
    taken = rng.random(num_rows) < 0.3
    sizes, picked = np.bincount(labels), np.bincount(labels[taken])
    selection = {
        "method": "s2l",
        "budget": int(taken.sum()),
        "size": int(taken.sum()),
        "seed": 0,
        "options": {},
    }
    selection |= {"cluster_sizes": sizes.tolist(), "picked_per_cluster": picked.tolist()}
    names = np.where(source == 0, "large", "small")
    results = {
        "pool": {
            "num_examples": num_rows,
            "num_cut": 0,
            "num_without_loss": 0,
            "sources": {name: int((names == name).sum()) for name in ("large", "small")},
        },
        "trajectories": {"refreshes": [{"columns": n, "adjusted_rand": 0.97} for n in (9, 10)]},
        "selections": {"s2l": selection},
        "targets": {"s2l": {"epochs": 3.0, "final_loss": 0.5}},
        "evaluations": {"s2l": {"overall": {"heldout_loss": 0.7}}},
    }
    rows = PoolRows(
        ids=np.arange(num_rows, dtype=np.uint64),
        sources=names,
        tokens=rng.integers(20, 60, num_rows),
        texts=lambda indices: [RowText(f"asked {i}", f"answered {i}") for i in indices],
    )
    steps = list(range(10, 10 * columns + 1, 10))
    return Findings(
        results,
        losses.astype(np.float32),
        steps,
        {"s2l": labels},
        {"s2l": taken},
        rows,
        by_source={"s2l"},
    )


def titles(found):
    return [verdict.title for verdict in diagnose(found)[0]]


def changed(found, losses):
    return dataclasses.replace(found, trajectories=losses.astype(np.float32))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_said_of_a_sound_run(seed):
    verdicts, measured = diagnose(sound(seed))
    assert verdicts == []
    assert len(measured) > 10


def test_mislabelled_rows_are_found_and_listed_with_their_texts():
    found = sound()
    wrong = np.random.default_rng(1).choice(600, 20, replace=False)
    losses = found.trajectories.copy()
    losses[wrong] = 2.5
    found = changed(found, losses)
    rows = unlearnt(found.measured_losses, found.source_codes)
    assert set(rows) == set(wrong)
    (verdict,) = diagnose(found)[0]
    assert "mislabelled" in verdict.title
    assert "20 of 600 rows" in verdict.words
    listed = rows_of(found, verdict)
    assert len(listed) == 12
    assert listed[0][1:] == (f"asked {rows[0]}", f"answered {rows[0]}")


def test_rows_that_are_there_twice_are_found():
    found = sound()
    losses, tokens = found.trajectories.copy(), found.rows.tokens.copy()
    losses[500:520], tokens[500:520] = losses[:20] + 1e-6, tokens[:20]
    assert set(repeated(losses.astype(np.float64), tokens)) >= set(range(500, 519))
    found = dataclasses.replace(changed(found, losses), rows=dataclasses.replace(found.rows, tokens=tokens))
    assert titles(found) == ["Rows are there several times"]


def test_an_untrained_proxy_is_found():
    found = sound()
    flat = np.repeat(found.trajectories[:, :1], 10, axis=1)
    verdicts = diagnose(changed(found, flat + np.random.default_rng(0).normal(0, 1e-4, flat.shape)))[0]
    assert verdicts[0].grade == FAULT
    assert verdicts[0].title == "The proxy did not learn"


def test_trajectories_that_are_all_alike_are_found():
    found = sound()
    alike = np.tile(found.trajectories[:1], (600, 1))
    noise = np.random.default_rng(0).normal(0, 1e-3, alike.shape)
    assert "All trajectories are alike" in titles(changed(found, alike + noise))


@pytest.mark.parametrize(("field", "what"), [("tokens", "rows"), ("response_tokens", "responses")])
def test_losses_that_follow_lengths_are_found(field, what):
    found = sound()
    tokens = np.round(100 * found.trajectories.mean(axis=1)).astype(int)
    rows = dataclasses.replace(found.rows, **{field: tokens})
    assert f"Losses mostly follow the length of {what}" in titles(dataclasses.replace(found, rows=rows))


def test_rows_that_are_learnt_too_soon_are_found():
    found = sound()
    losses = found.trajectories.copy()
    losses[:400] *= 0.01
    assert "Most rows were learnt before the first checkpoint" in titles(changed(found, losses))


@pytest.mark.parametrize(("columns", "grade"), [(1, FAULT), (3, WARNING), (4, None)])
def test_trajectories_of_few_checkpoints_are_found(columns, grade):
    found = sound(columns=columns)
    verdicts = [verdict.grade for verdict in diagnose(found)[0] if verdict.title == "Few checkpoints"]
    assert verdicts == ([grade] if grade else [])


def test_far_too_many_clusters_are_found():
    found = sound()
    labels = np.arange(600) // 2
    selection = found.results["selections"]["s2l"] | {
        "cluster_sizes": np.bincount(labels).tolist(),
        "picked_per_cluster": np.bincount(labels[found.taken["s2l"]], minlength=300).tolist(),
    }
    many = dataclasses.replace(
        found, results=found.results | {"selections": {"s2l": selection}}, labels={"s2l": labels}
    )
    assert titles(many)[0] == "There are far too many clusters"


def test_a_budget_that_does_not_reach_all_clusters_is_found():
    found = sound()
    taken = found.taken["s2l"] & (found.labels["s2l"] > 1)
    picked = {"picked_per_cluster": np.bincount(found.labels["s2l"][taken]).tolist()}
    few = found.results | {"selections": {"s2l": found.results["selections"]["s2l"] | picked}}
    few = dataclasses.replace(found, results=few, taken={"s2l": taken})
    assert titles(few) == ["The budget does not reach all clusters"]


def test_clusters_by_chance_are_found():
    found = sound()
    by_chance = np.random.default_rng(2).integers(0, 8, 600)
    assert "Clusters are hardly separated" in titles(dataclasses.replace(found, labels={"s2l": by_chance}))


def with_another_seed(found, labels, by_source):
    selection = found.results["selections"]["s2l"]
    return dataclasses.replace(
        found,
        results=found.results | {"selections": {"s2l": selection, "again": selection | {"seed": 1}}},
        labels=found.labels | {"again": labels},
        by_source=by_source,
    )


def test_clusters_that_depend_on_the_seed_are_found():
    found = sound()
    by_chance = np.random.default_rng(2).integers(0, 8, 600)
    assert titles(with_another_seed(found, by_chance, ())) == ["Clusters depend on the seed"]


@pytest.mark.parametrize("by_source", [True, False])
def test_seeds_agree_within_the_sources_that_were_clustered(by_source):
    """One source by chance, one taken whole: by source no agreement, and as clusters of all rows some."""
    found = sound()
    small = found.labels["s2l"] >= KINDS
    first = np.where(small, KINDS, found.labels["s2l"])
    again = np.where(small, KINDS, np.random.default_rng(2).integers(0, KINDS, 600))
    names = {"s2l", "again"} if by_source else set()
    found = with_another_seed(dataclasses.replace(found, labels={"s2l": first}), again, names)
    verdicts, measured = diagnose(found)
    assert [verdict.title for verdict in verdicts] == ["Clusters depend on the seed"] * by_source
    (line,) = (each for each in measured if "over seeds" in each.name)
    assert ("within sources" in line.name) == by_source
    assert abs(float(line.value)) < 0.05 if by_source else float(line.value) > 0.5


@pytest.mark.parametrize(
    ("part", "value", "title"),
    [
        ("trajectories", {"refreshes": [{"adjusted_rand": 0.5}] * 2}, "The trajectory was not long enough"),
        (
            "pool",
            {"num_examples": 600, "sources": {"large": 400, "small": 199, "alone": 1}},
            "Some sources have at most 2 rows",
        ),
        (
            "pool",
            {"num_examples": 600, "sources": {f"row {i}": 1 for i in range(600)}},
            "There are about as many sources as rows",
        ),
        ("pool", {"num_examples": 600, "num_cut": 90}, "Many rows are cut off"),
        ("targets", {"s2l": {"epochs": 60.0, "final_loss": 0.01}}, "The target of s2l"),
        ("targets", {"s2l": {"num_without_loss": 30}}, "Many rows of s2l cannot be trained on"),
    ],
)
def test_what_the_results_say_is_judged(part, value, title):
    found = sound()
    (said,) = titles(dataclasses.replace(found, results=found.results | {part: value}))
    assert said.startswith(title)  # the label of a group has its budget


def test_a_subset_of_long_rows_is_found():
    found = sound()
    taken = found.taken["s2l"]
    tokens = np.where(taken, 90, 30)
    assert titles(dataclasses.replace(found, rows=dataclasses.replace(found.rows, tokens=tokens))) == [
        "The rows of s2l are longer than the pool's"
    ]


def test_a_run_of_which_little_is_known_is_judged_by_that():
    assert diagnose(Findings({}))[0] == []
    found = sound()
    assert diagnose(dataclasses.replace(found, rows=None, trajectories=None, labels={}, taken={}))[0] == []


@pytest.fixture(scope="module")
def embedded():
    """The embedded pool's rows and what the quickstart's proxy measured of them (to 0.00015 nats)."""
    kept = np.load(GOLDEN / "quickstart_losses.npz")
    return pool_rows(), kept["losses"] * float(kept["unit"])


def test_mislabelled_rows_of_the_embedded_pool_are_found(embedded):
    rows, losses = embedded
    wrong = {i for i, row in enumerate(rows) if not row["clean"]}
    sources = np.unique([row["source"] for row in rows], return_inverse=True)[1]
    said = set(unlearnt(losses, sources).tolist())
    assert len(wrong) == 125
    assert len(said & wrong) / len(said) > 0.95  # precision
    assert len(said & wrong) / len(wrong) > 0.58  # recall


def test_a_few_hard_rows_are_no_verdict():
    found = sound(num_rows=1000)
    losses = found.trajectories.copy()
    losses[[100, 300]] = 2.5  # 0.2 %
    verdicts, measured = diagnose(changed(found, losses))
    assert verdicts == []
    assert {each.name: each.value for each in measured}["rows that were never learnt"] == "2"


def test_rows_of_the_embedded_pool_that_are_there_twice_are_found(embedded):
    rows, losses = embedded
    texts = [(row["instruction"], row["output"]) for row in rows]
    again = {i for i, text in enumerate(texts) if text in texts[:i]}
    said = set(repeated(losses, None).tolist())
    assert said >= again
    assert len(said) <= len(again) + 6


def said_in(file):
    """The texts of a module, those of f-strings among them."""
    return [n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(getattr(n, "value", 0), str)]


def test_advice_names_fields_that_there_are():
    groups = "|".join(default().keys())
    files = sorted((REPOSITORY / "s2l_jax" / "report" / "diagnostics").glob("*.py"))
    named = {
        field
        for file in files
        for text in said_in(file)
        for field in re.findall(rf"\b((?:{groups})\.[a-z_.]*[a-z_])", text)
    }
    assert len(named) > 8
    groups_of_fields = {"pool.fields"}
    assert {field for field in named - groups_of_fields if find_field(field) is None} == set()


def test_what_is_wrong_with_many_targets_is_said_once():
    found = sound()
    results = {part: dict(value) for part, value in found.results.items()}
    for name in ("more", "most"):
        results["selections"][name] = results["selections"]["s2l"] | {"options": {"name": name}}
        results["targets"][name] = {"epochs": 40.0, "final_loss": 0.01}
        results["evaluations"][name] = {"overall": {"heldout_loss": 2.0}}
    section = Section("diagnostics", "Diagnostics")
    diagnostics(section, dataclasses.replace(found, results=results))
    ((verdict, _, others),) = section.content["verdicts"]
    assert "overfits" in verdict.title
    assert ["overfits" in each.title for each in others] == [True]
    assert verdict.title != others[0].title


@pytest.mark.parametrize(
    ("selection", "does"),
    [
        ({"method": "s2l"}, True),
        ({"method": "s2l", "options": {"features": "hidden_states"}}, False),
        ({"method": "semdedup", "options": {"num_clusters": 9}}, False),
        ({"method": "confidence_curriculum"}, False),  # its labels are stages
        ({"method": "nobody:knows_this"}, True),
    ],
)
def test_which_clusters_are_of_trajectories(selection, does):
    assert clusters_losses(selection) is does
