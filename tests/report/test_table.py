"""The results table: seeds grouped into rows, gaps that are dashes, times as people write them."""

import io
import math

import hypothesis
import hypothesis.strategies as st
import pytest
import rich.console

from s2l_jax.report.runs import Statistic, group_runs
from s2l_jax.report.table import COLUMNS, format_seconds, results_table, show_table, table_rows
from tests.support.results import (
    evaluation,
    make_results,
)


def rows_by_label(results):
    return {(row.group.label, row.group.budget): row.cells for row in table_rows(results)}


def test_runs_that_differ_in_seed_are_one_row():
    cells = rows_by_label(make_results())
    assert len(cells) == 5
    s2l = cells["s2l", 100]
    assert s2l[1:6] == ("100 (12%)", "3", "40", "50.0 ± 10.0", "1.500")
    assert cells["random", 100][4] == "32.0 ± 2.8"
    assert cells["random", 50][4] == "20.0"


def test_proxy_and_sweeps_are_charged_to_the_method_that_used_them():
    cells = rows_by_label(make_results())
    assert cells["s2l", 100][6:] == ("26s", "31s")  # 20 + 5 + 1, and the mean of 30, 31, 32
    assert cells["random", 100][6] == "-"


def test_rows_are_sorted_with_the_references_at_the_ends():
    results = make_results()
    results["selections"]["all"] = dict(results["selections"]["random-50"], budget=10_000)
    results["evaluations"]["from elsewhere"] = evaluation(0.9, 1.0, [])
    labels = [(group.label, group.budget) for group in group_runs(results)]
    assert labels[:2] == [("untuned", None), ("from elsewhere", None)]
    assert labels[2:6] == [("random", 50), ("s2l", 100), ("random", 100), ("random", 10_000)]
    assert labels[-1][0] == "full"


def test_a_budget_above_the_pool_is_shown_as_the_rows_there_were():
    results = make_results()
    results["selections"] = {
        "s2l-100-seed0": dict(results["selections"]["s2l-100-seed0"], budget=10_000, size=800)
    }
    del results["pool"]
    assert rows_by_label(results)["s2l", 10_000][1] == "800"


def test_rows_are_named_as_their_entry_is():
    results = make_results()
    s2l = results["selections"].pop("s2l-100-seed0")
    other = s2l | {"options": {"num_clusters": 9, "init": "random"}}
    results["selections"] |= {"s2l-12pct": s2l, "other": other, "other-seed5": other | {"seed": 5}}
    labels = [group.label for group in group_runs(results)]
    assert {"s2l", "random", "other"} < set(labels)
    assert labels.count("other") == 1


def test_options_name_rows_where_several_entries_are_alike_or_one_has_others():
    results = make_results()
    other = dict(results["selections"]["s2l-100-seed0"], options={"num_clusters": 9, "init": "random"})
    results["selections"] |= {
        "again": results["selections"]["s2l-100-seed0"] | {"seed": 9},
        "other": other,
        "other-seed5": other | {"seed": 5, "options": {"init": "random"}},
    }
    labels = {group.label for group in group_runs(results)}
    assert {
        "s2l (num_clusters=5)",
        "s2l (init=random, num_clusters=9)",
        "s2l (init=random)",
        "random",
    } <= labels


def test_where_options_are_many_a_group_has_its_runs_name():
    results = make_results()
    for seed in range(3):
        options = {"num_clusters": 5, "features": "trajectories", "stratify_by": "source"}
        for budget in (100, 50):  # one label, whatever the budget
            own = {"budget": budget, "options": options, "seed": seed}
            results["selections"][f"whole-{'abc'[seed]}-{budget}"] = (
                results["selections"]["s2l-100-seed0"] | own
            )
    labels = [group.label for group in group_runs(results)]
    assert labels.count("whole") == 2
    assert "s2l" in labels  # which has no more options than the others of its method
    assert "random" in labels


def test_the_seed_in_options_does_not_split_a_row():
    results = make_results()
    for selection in results["selections"].values():
        selection["options"]["seed"] = selection["seed"]
    assert len(group_runs(results)) == 5


def test_what_was_not_measured_is_a_dash_and_never_zero():
    results = make_results()
    results["evaluations"]["random-50"]["overall"] = {"accuracy": math.nan, "heldout_loss": None}
    del results["targets"]["random-50"]
    del results["timing"]
    cells = rows_by_label(results)["random", 50]
    assert cells == ("random", "50 (6%)", "1", "-", "-", "-", "-", "-")


def test_a_nan_seed_is_left_out_of_the_mean():
    results = make_results()
    results["evaluations"]["s2l-100-seed2"]["overall"]["accuracy"] = math.nan
    assert rows_by_label(results)["s2l", 100][4] == "45.0 ± 7.1"


def test_the_terminal_table_holds_every_cell_and_cuts_no_number():
    results = make_results()
    for width in (80, 200):
        console = rich.console.Console(width=width, record=True, file=io.StringIO())
        console.print(results_table(results))
        text = console.export_text()
        assert "…" not in text
        for cell in (cell for row in table_rows(results) for cell in row.cells):
            assert all(word in text for word in cell.split())


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_no_column_is_cut_off_whatever_the_width(width, terminal):
    console = rich.console.Console(width=width, record=True, file=io.StringIO(), force_terminal=terminal)
    show_table(make_results(), console)
    text = console.export_text()
    for cell in (cell for row in table_rows(make_results()) for cell in (*row.cells, *COLUMNS)):
        assert all(word in text for word in cell.split())
    if not terminal:
        assert all(
            any(row.cells[0] in line for line in text.splitlines()) for row in table_rows(make_results())
        )


def test_names_with_markup_are_printed_as_they_are():
    results = {"evaluations": {"[red]x[/red]": {"overall": {"accuracy": 0.5}}}}
    console = rich.console.Console(width=100, record=True, file=io.StringIO())
    console.print(results_table(results))
    assert "[red]x[/red]" in console.export_text()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.004, "<0.01s"), (0.42, "0.42s"), (59.6, "1m 00s"), (38, "38s"), (245, "4m 05s")],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_format_hours():
    assert format_seconds(3600 * 2 + 60 * 10) == "2h 10m"


@hypothesis.given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-1000, 1000))))
@hypothesis.settings(max_examples=60, deadline=None)
def test_statistic_covers_exactly_the_finite_values(values):
    finite = [v for v in values if v is not None and math.isfinite(v) and abs(v) < 1e300]
    hypothesis.assume(all(v is None or not math.isfinite(v) or abs(v) < 1e300 for v in values))
    statistic = Statistic.of(values)
    if not finite:
        assert statistic is None
        return
    assert statistic is not None
    assert statistic.count == len(finite)
    assert (statistic.low, statistic.high) == (min(finite), max(finite))
    assert statistic.mean == pytest.approx(sum(finite) / len(finite), rel=1e-9, abs=1e-9)
