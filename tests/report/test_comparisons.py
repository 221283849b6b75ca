"""Methods against a baseline: pairs, numbers equal to SciPy's by hand, and what is said of them."""

import markupsafe
import numpy as np
import pytest
from scipy import stats

from s2l_jax.report.comparisons import benchmarks_alike, compare, row_scores
from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import group_runs
from s2l_jax.report.section import Section
from s2l_jax.report.sections.differences import budgets
from s2l_jax.report.table import table_rows

ROWS = 60


def results_of(*runs):
    """Results of (name, method, budget, seed, chance of a right answer), and the rows' verdicts."""
    results = {"pool": {"num_examples": 100}, "selections": {}, "targets": {}, "evaluations": {}}
    verdicts = {}
    for i, (name, method, budget, seed, chance) in enumerate(runs):
        right = np.random.default_rng(i).random(ROWS) < chance
        verdicts[name] = {("pool", row): float(r) for row, r in enumerate(right)}
        results["evaluations"][name] = {"overall": {"accuracy": float(right.mean())}}
        if seed is not None:
            results["selections"][name] = {"method": method, "budget": budget, "size": budget, "seed": seed}
            results["targets"][name] = {"steps": 10}
    return results, verdicts


def compared(runs, baseline, measure="accuracy"):
    results, verdicts = results_of(*runs)

    def scores(run, measure):
        return verdicts[run.name] if measure == "accuracy" else {}

    found = compare(group_runs(results), scores, baseline, "random")
    return {(entry["label"], entry["budget"]): entry for entry in found[measure]}, verdicts


RUNS = [
    ("untuned", "untuned", None, None, 0.1),
    *((f"random{s}", "random", 20, s, 0.4) for s in range(3)),
    *((f"s2l{s}", "s2l", 20, s, 0.9) for s in range(3)),
    *((f"longest{s}", "longest", 20, s, 0.42) for s in range(4)),
]


def test_means_and_deviations_are_of_the_replicates():
    found, verdicts = compared(RUNS, {"random0", "random1", "random2"})
    means = [np.mean(list(verdicts[f"s2l{s}"].values())) for s in range(3)]
    entry = found["s2l", 20]
    assert entry["mean"] == pytest.approx(np.mean(means))
    assert entry["standard_deviation"] == pytest.approx(np.std(means, ddof=1))
    assert entry["num_replicates"] == 3
    assert entry["runs"] == ["s2l0", "s2l1", "s2l2"]


def test_runs_are_paired_by_seed_and_row():
    found, verdicts = compared(RUNS, {"random0", "random1", "random2"})
    values = {name: np.array(list(rows.values())) for name, rows in verdicts.items()}
    difference = found["longest", 20]["difference"]  # its fourth seed has no partner
    assert difference["num_replicates"] == 3
    assert difference["num_rows"] == ROWS
    by_hand = np.mean([values[f"longest{s}"] - values[f"random{s}"] for s in range(3)])
    assert difference["mean"] == pytest.approx(by_hand)
    untuned = found["untuned", None]["difference"]
    assert untuned["num_replicates"] == 3
    assert untuned["mean"] == pytest.approx(
        values["untuned"].mean() - np.mean([values[f"random{s}"] for s in range(3)])
    )
    assert "difference" not in found["random", 20]


def test_one_replicate_is_scipys_paired_test_over_rows():
    runs = [("random", "random", 20, 0, 0.4), ("s2l", "s2l", 20, 0, 0.6)]
    found, verdicts = compared(runs, {"random"})
    ours, theirs = (list(verdicts[name].values()) for name in ("s2l", "random"))
    test = stats.ttest_rel(ours, theirs)
    difference = found["s2l", 20]["difference"]
    assert difference["p_value"] == pytest.approx(test.pvalue)
    assert difference["interval"] == pytest.approx(list(test.confidence_interval(0.95)))
    assert "the luck of its seed" in found["s2l", 20]["in_words"]


def test_what_is_said():
    found, _ = compared(RUNS, {"random0", "random1", "random2"})
    assert "points above random at n = 3 (95 % interval +" in found["s2l", 20]["in_words"]
    assert found["longest", 20]["in_words"].startswith("within noise of random at n = 3: ")
    assert "points below random" in found["untuned", None]["in_words"]


def test_p_values_are_corrected_for_the_number_of_comparisons():
    found, _ = compared(RUNS, {"random0", "random1", "random2"})
    differences = sorted(
        (entry["difference"] for entry in found.values() if "difference" in entry),
        key=lambda difference: difference["p_value"],
    )
    assert len(differences) == 3
    assert differences[0]["corrected_p_value"] == pytest.approx(3 * differences[0]["p_value"])


def test_budgets_are_compared_with_the_baseline_at_their_own():
    runs = [
        *((f"random{b}", "random", b, 0, b / 100) for b in (10, 50)),
        *((f"s2l{b}", "s2l", b, 0, 0.5) for b in (10, 50)),
        ("full", "full", 100, 0, 0.9),
    ]
    found, verdicts = compared(runs, {"random10", "random50"})
    values = {name: np.mean(list(rows.values())) for name, rows in verdicts.items()}
    assert found["s2l", 10]["difference"]["mean"] == pytest.approx(values["s2l10"] - values["random10"])
    assert found["s2l", 50]["difference"]["mean"] == pytest.approx(values["s2l50"] - values["random50"])
    assert found["full", 100]["difference"]["mean"] == pytest.approx(values["full"] - values["random50"])


def test_runs_of_one_budget_in_tokens_are_one_group_and_compared_at_the_nearest_budget():
    runs = [
        *((f"random{b}-{s}", "random", b, s, b / 100) for b in (10, 50) for s in range(2)),
        *((f"tokens-{s}", "random", rows, s, 0.5) for s, rows in enumerate((13, 16))),
    ]
    results, verdicts = results_of(*runs)
    for seed in range(2):
        results["selections"][f"tokens-{seed}"]["asked"] = {"budget": 300, "unit": "tokens"}
    groups = group_runs(results)
    assert [(group.label, group.budget, len(group.runs)) for group in groups] == [
        ("random", 10, 2),
        ("tokens", 14, 2),
        ("random", 50, 2),
    ]
    names = [name for name, *_ in runs if name.startswith("random")]
    found = compare(groups, lambda run, measure: verdicts[run.name], names, "random")["accuracy"]
    values = {name: np.mean(list(rows.values())) for name, rows in verdicts.items()}
    expected = np.mean([values[f"tokens-{s}"] - values[f"random10-{s}"] for s in range(2)])
    assert found[1]["difference"]["mean"] == pytest.approx(expected)
    assert found[1]["difference"]["baseline_budget"] == 10
    assert "random 10 " in found[1]["in_words"]


def test_budgets_in_tokens_are_compared_with_the_same_of_the_baseline():
    # Long rows: 60 of the method are as many tokens as 220 of the baseline, and nearer to its 55.
    rows = {"random": {5_000: 55, 20_000: 220}, "longest": {5_000: 15, 20_000: 60}}
    runs = [(f"{m}{t}", m, r, 0, 0.5) for m, budgets in rows.items() for t, r in budgets.items()]
    results, verdicts = results_of(*runs)
    for name, method, *_ in runs:
        asked = {"budget": int(name.removeprefix(method)), "unit": "tokens"}
        results["selections"][name]["asked"] = asked
    names = {"random5000", "random20000"}
    found = compare(group_runs(results), lambda run, measure: verdicts[run.name], names, "random")
    bases = {entry["runs"][0]: entry.get("difference", {}) for entry in found["accuracy"]}
    assert bases["longest20000"]["baseline_budget"] == 220
    assert bases["longest5000"]["baseline_budget"] == 55


def test_without_a_partner_there_is_no_difference():
    runs = [("random", "random", 20, 0, 0.4), ("s2l", "s2l", 20, 7, 0.6)]
    found, _ = compared(runs, {"random"})
    assert "difference" not in found["s2l", 20]
    found, _ = compared(runs, set())
    assert "difference" not in found["s2l", 20]


def test_benchmarks_weigh_the_same_in_the_accuracy():
    scores = row_scores({"a": [(0, 1.0), (1, 0.0), (2, None)], "b": [(i, 1.0) for i in range(8)]})
    assert ("a", 2) not in scores
    weights = benchmarks_alike([*scores])
    assert np.mean([*scores.values()] * weights) == pytest.approx((0.5 + 1.0) / 2)
    assert np.mean(weights) == pytest.approx(1)


def test_models_are_compared_on_what_both_were_asked():
    """One of them answered another benchmark, too; on that of both they answered the same."""
    results, verdicts = results_of(("random", "random", 20, 0, 0.5), ("s2l", "s2l", 20, 0, 0.5))
    verdicts["s2l"] = dict(verdicts["random"])
    verdicts["random"] |= {("another", row): 1.0 for row in range(7)}
    found = compare(group_runs(results), lambda run, measure: verdicts[run.name], {"random"}, "random")
    (entry,) = [each for each in found["accuracy"] if "difference" in each]
    assert entry["difference"]["mean"] == 0
    assert entry["difference"]["num_rows"] == ROWS


def test_a_replicate_that_lacks_a_benchmark_is_left_out_and_not_the_benchmark():
    """As where one of several processes failed: it has no mean, and the others are compared on all rows."""
    random = [(f"random{s}", "random", 20, s, 0.4) for s in range(3)]
    results, verdicts = results_of(*random, *((f"s2l{s}", "s2l", 20, s, 0.9) for s in range(3)))
    for name, found in verdicts.items():
        found |= {("another", row): 0.5 for row in range(7)}
        results["evaluations"][name]["overall"]["accuracy"] = 0.5
    verdicts["s2l1"] = {("another", 0): 1.0}
    results["evaluations"]["s2l1"]["overall"] = {"missing_benchmarks": ["pool"]}
    baseline = {name for name, *_ in random}
    found = compare(group_runs(results), lambda run, measure: verdicts[run.name], baseline, "random")
    (entry,) = [each for each in found["accuracy"] if "difference" in each]
    assert entry["difference"]["num_rows"] == ROWS + 7
    assert entry["difference"]["num_replicates"] == entry["num_replicates"] == 2
    (line,) = [row for row in table_rows(results) if row.group.method == "s2l"]
    assert "2 of 3" in line.cells


def page_of(results):
    from s2l_jax.report.findings import Findings
    from s2l_jax.report.page import render_report

    return render_report(Findings(results))


def test_the_page_shows_differences_and_budgets():
    runs = [
        ("full", "full", 100, 0, 0.8),
        *((f"random{b}{s}", "random", b, s, 0.3) for b in (10, 50) for s in range(2)),
        *((f"s2l{b}{s}", "s2l", b, s, 0.5 + b / 200) for b in (10, 50) for s in range(2)),
    ]
    results, verdicts = results_of(*runs)
    without = page_of(results)
    assert (
        "Differences from the baseline" in without.partition("report.baseline")[0][-400:]
    )  # why it is absent
    baseline = {name for name in verdicts if name.startswith("random")}
    results["comparisons"] = compare(
        group_runs(results),
        lambda run, measure: verdicts[run.name] if measure == "accuracy" else {},
        baseline,
        "random",
    )
    page = page_of(results)
    for entry in results["comparisons"]["accuracy"]:
        if "in_words" in entry:
            assert str(markupsafe.escape(entry["in_words"])) in page
    shown = page.replace("\\u0027", "'")
    assert "accuracy (% of full data's)" in shown
    loss_against_budget = '"title":"held-out loss (nats per token)"'
    assert loss_against_budget not in shown
    for evaluation in results["evaluations"].values():
        evaluation["overall"]["heldout_loss"] = 1.5
    assert loss_against_budget in page_of(results)


def test_names_in_comparisons_stay_text():
    results, verdicts = results_of(
        ("r", "random", 10, 0, 0.3), ("<script>alert(1)</script>", "<script>alert(2)</script>", 10, 0, 0.9)
    )
    results["comparisons"] = compare(
        group_runs(results), lambda run, measure: verdicts[run.name], {"r"}, "<script>alert(3)</script>"
    )
    page = page_of(results)
    for number in (1, 2, 3):
        assert f"<script>alert({number})" not in page


def test_points_of_one_budget_are_beside_one_another_and_ticks_are_the_budgets():
    names = [f"method{n}" for n in range(9)]
    runs = [(f"{name}{budget}", name, budget, 0, 0.5) for name in names for budget in (10, 50)]
    results, _ = results_of(*runs)
    section = Section("budgets", "Accuracy and loss against budget")
    budgets(section, Findings(results))
    (panel,) = section.views["accuracy"]
    encoding = panel.spec["layer"][0]["encoding"]
    assert encoding["x"]["axis"]["values"] == [10, 50]
    drawn = sorted(row["x"] for row in panel.spec["data"]["values"])
    near = np.array(drawn[: len(names)]), np.array(drawn[len(names) :])
    for places, budget in zip(near, (10, 50), strict=True):
        assert len(set(places)) == len(names)
        assert np.abs(places / budget - 1).max() < 0.03


def test_two_runs_of_one_seed_are_no_replicates():
    seeds = {"random": 0, "again": 0, "more": 1}
    results, _ = results_of(*((name, "random", 20, seed, 0.5) for name, seed in seeds.items()))
    found = {group.label: [run.name for run in group.runs] for group in group_runs(results)}
    assert found == {"random": ["again", "more"], "random, random": ["random"]}
