"""Ablations: which runs make one, what is said of it, and the figures."""

import numpy as np
import pytest

from s2l_jax.report.comparisons import MEASURES
from s2l_jax.report.findings import Findings
from s2l_jax.report.series import find_series, in_words, overlap, overlap_of_seeds, spread
from tests.support.results import drawn, evaluation, filled, make_results, make_rows

pytestmark = pytest.mark.long

ACCURACY, LOSS = MEASURES
LUCK = (-0.01, 0.0, 0.01)


def results_of(accuracies, option="num_clusters", reference=20, num_seeds=3):
    """Runs of each value of an option, the reference named first, and what they have at each seed."""
    results = make_results()
    for part in ("selections", "targets", "evaluations"):
        results[part] = {}
    defaults = {"num_clusters": 20, "every": 1, "num_checkpoints": 0}
    values = (reference, *(value for value in accuracies if value != reference))
    for place, value in enumerate(values):
        for seed in range(num_seeds):
            name = f"s2l_{value}-seed{seed}"
            options = {name: v for name, v in (defaults | {option: value}).items() if v is not None}
            results["selections"][name] = {
                "method": "s2l", "budget": 100, "size": 100, "seed": seed, "options": options,
            }  # fmt: skip
            results["evaluations"][name] = evaluation(
                accuracies[value] + LUCK[(seed + place) % 3], 1.0, ["a"]
            )
    return results


def test_groups_that_differ_in_one_option_are_a_series():
    results = results_of({5: 0.3, 20: 0.5, 80: 0.5})
    results["selections"]["s2l_every2"] = results["selections"]["s2l_20-seed0"] | {
        "options": {"num_clusters": 20, "every": 2, "num_checkpoints": 0}
    }
    (series,) = find_series(Findings(results))  # two values of `every` are none
    assert (series.option, series.values, series.values[series.reference]) == (
        "num_clusters",
        (5, 20, 80),
        20,
    )
    assert [len(group.runs) for group in series.groups] == [3, 3, 3]


def test_runs_that_are_alike_are_of_one_value():
    results = results_of({20: 0.5, 80: 0.5})
    again = results["selections"]["s2l_20-seed0"]
    results["selections"] = {"s2l_again": again, "again": again} | results["selections"]
    results["evaluations"] |= dict.fromkeys(("s2l_again", "again"), evaluation(0.7, 1.0, ["a"]))
    assert find_series(Findings(results)) == []  # four groups of two values
    added = results_of({5: 0.3, 20: 0.5})
    for part in ("selections", "evaluations"):
        results[part] |= added[part]
    (series,) = find_series(Findings(results))
    assert series.values == (5, 20, 80)
    assert series.values[series.reference] == 20  # that of the run named first
    assert [len(group.runs) for group in series.groups] == [3, 3, 3]


def test_all_checkpoints_are_as_many_as_there_are():
    (series,) = find_series(Findings(results_of({0: 0.5, 1: 0.3, 3: 0.4}, "num_checkpoints", reference=0)))
    assert series.values == (1, 3, 4)
    assert series.values[series.reference] == 4


def test_names_come_after_the_one_that_a_run_has_without_the_option():
    accuracies = {None: 0.5, "gpt2": 0.4, "base": 0.45}
    (series,) = find_series(Findings(results_of(accuracies, "proxy", reference=None)))
    assert not series.is_numeric
    assert series.values == ("the run's own", "gpt2", "base")


def test_a_difference_beyond_luck_is_told_from_one_within():
    (series,) = find_series(Findings(results_of({5: 0.3, 20: 0.5, 80: 0.5})))
    text = in_words(series, ACCURACY)
    assert "30.0 at 5 to 50.0 at 20" in text
    assert "-20.0 points" in text
    assert "at 80" not in text
    assert "Others are within" in text
    none = results_of({5: 0.5, 20: 0.5, 80: 0.5})
    for seed, luck in enumerate((0.04, -0.05, 0.03)):
        none["evaluations"][f"s2l_5-seed{seed}"]["overall"]["accuracy"] += luck
    assert "None is told apart from 20 by 3 seeds" in in_words(find_series(Findings(none))[0], ACCURACY)


def test_one_seed_is_said_to_tell_nothing():
    (series,) = find_series(Findings(results_of({5: 0.3, 20: 0.5, 80: 0.5}, num_seeds=1)))
    assert "luck is not known" in in_words(series, ACCURACY)
    assert spread(series.groups[0], ACCURACY)[1] is None
    section = filled("ablations", Findings(results_of({5: 0.3, 20: 0.5, 80: 0.5}, num_seeds=1)))
    (layer,) = section.views["number of clusters"][0].spec["layer"]  # no interval, no single seeds
    assert layer["mark"]["type"] == "line"


def test_nothing_is_said_of_seeds_that_tie():
    results = results_of({5: 0.5, 20: 0.5, 80: 0.5}, num_seeds=2)

    def accuracies(value, *right):
        for seed, number in enumerate(right):
            results["evaluations"][f"s2l_{value}-seed{seed}"]["overall"]["accuracy"] = number / 300
        return in_words(find_series(Findings(results))[0], ACCURACY)

    accuracies(20, 150, 153)
    accuracies(5, 156, 159)
    text = accuracies(80, 150, 150)
    assert "How much is luck at 5 is not known. None of the others is told apart from 20 by 2 seeds" in text
    assert "+2.0" not in text
    assert [row[3] for row in filled("ablations", Findings(results)).rows] == [
        "52.5 (46.1 to 58.9)",
        "50.5 (44.1 to 56.9)",
        "50.0",
    ]
    assert accuracies(80, 156, 159) == (
        "50.5 at 20 to 52.5 at 5. How much of that is luck is not known: to tell takes seeds whose "
        "differences vary."
    )


def test_intervals_are_students():
    (series,) = find_series(Findings(results_of({5: 0.3, 20: 0.5, 80: 0.5})))
    low, high = spread(series.groups[0], ACCURACY)[1]
    half = 4.302653 * 0.01 / np.sqrt(3)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), rel=1e-5)


def test_overlaps_are_of_equal_seeds_and_beside_that_of_two():
    results = results_of({5: 0.3, 20: 0.5, 80: 0.5})
    taken = {name: np.zeros(12, bool) for name in results["selections"]}
    for seed in range(3):
        taken[f"s2l_20-seed{seed}"][4 * seed : 4 * seed + 4] = True
        taken[f"s2l_5-seed{seed}"][4 * seed + 1 : 4 * seed + 4] = True
    found = Findings(results, taken=taken, rows=make_rows(12))
    few, reference, _ = find_series(found)[0].groups
    assert overlap(found, few, reference) == pytest.approx(0.75)
    assert overlap_of_seeds(found, reference) == 0.0
    section = filled("ablations", found)
    assert [panel.title.partition(" (")[0] for panel in section.views["number of clusters"]] == [
        "accuracy",
        "held-out loss",
        "overlap with the subset of 20",
    ]
    scores = drawn(section.views["number of clusters"][0].chart)
    assert {point["x"] for point in scores if "low" in point} == {5, 20, 80}
    assert sum("low" not in point for point in scores) == 9
    assert [row[1] for row in section.rows] == ["5", "20 (compared with)", "80"]
    assert "two seeds of 20 have 0 %" in section.content["said"][0][1]


def test_a_run_without_an_ablation_has_no_such_section():
    section = filled("ablations", Findings(make_results()))
    assert not section.filled
    assert not section.missing


@pytest.mark.parametrize(
    ("accuracies", "option", "reference", "joined"),
    [
        ({5: 0.3, 20: 0.5, 80: 0.4}, "num_clusters", 20, True),
        ({None: 0.5, "a": 0.4, "b": 0.3}, "proxy", None, False),
    ],
)
def test_a_line_joins_numbers_and_no_names(accuracies, option, reference, joined):
    section = filled("ablations", Findings(results_of(accuracies, option, reference=reference)))
    (panel, *_) = next(iter(section.views.values()))
    marks = {layer["mark"]["type"] for layer in panel.spec["layer"]}
    assert ("line" in marks) == joined
    assert ("point" in marks) != joined
