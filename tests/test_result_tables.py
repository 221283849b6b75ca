"""The documents' tables are those of the stored studies, whose numbers are what the runs reported."""

import collections
import importlib
import re

import numpy as np
import pytest

from s2l_jax.config.replicates import entry_of
from s2l_jax.data.datasets.synthetic import pool_rows
from s2l_jax.report.comparisons import MEASURES
from tests.support.paths import REPOSITORY

STUDIES = sorted(file.parent.name for file in (REPOSITORY / "benchmarks" / "results").glob("*/results.json"))


@pytest.fixture
def made(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    return importlib.import_module("make_tables")


def test_the_documents_have_the_tables_of_the_stored_results(made):
    shown = [page for page in made.pages() if "<!-- table: " in page.read_text()]
    assert shown
    for page in shown:
        assert made.tables_of(page.read_text()) == page.read_text(), (
            f"python benchmarks/make_tables.py: {page}"
        )


def test_every_stored_study_is_in_a_document(made):
    text = "".join(page.read_text() for page in made.pages())
    shown = re.findall(r"<!-- table: (.+) -->", text)
    assert all(any(study in re.split(r"[ :]", each) for each in shown) for study in STUDIES)


def test_figures_are_those_of_the_stored_results(made, tmp_path):
    made.draw(tmp_path)
    drawn, stored = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (tmp_path, made.FIGURES)
    )
    assert drawn == stored != {}


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_differences_are_those_that_the_run_reported(made, study, measure):
    stored = made.study_of(study)
    reported = stored.results["comparisons"]
    groups = {tuple(run.name for run in group.runs): group for group in stored.groups}
    found = made.compared(study, measure.name, reported["baseline"])
    told = [entry for entry in reported[measure.name] if "difference" in entry]
    assert len(told) == len(found) > 0
    for entry in told:
        group = groups[tuple(entry["runs"])]
        assert group.statistic(measure.of).mean == pytest.approx(entry["mean"])
        difference, p_value = found[entry_of(entry["runs"][0]), stored.column(group)]
        assert difference.mean == pytest.approx(entry["difference"]["mean"], abs=1e-6)
        assert difference.interval == pytest.approx(entry["difference"]["interval"], abs=1e-5)
        assert p_value == pytest.approx(entry["difference"]["corrected_p_value"], rel=1e-2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("spread quickstart accuracy s2ll", "quickstart has no accuracy of s2ll"),
        ("differences quickstart accuracy random_by_source s2ll", "no accuracy of s2ll beside random_by"),
        ("by_source quickstart rows 15% s2l s2ll", "quickstart has not each of s2l, s2ll once at 15%"),
        ("cost quickstart 15% s2l s2ll", "quickstart has no s2ll at 15%"),
        ("cost quickstart 20% s2l", "quickstart has no s2l at 20%"),
        ("cost smollm_lora 5% s2l+math:proxi", "math has no operations of proxi to charge"),
        ("differences quickstart accuracy randon s2l", "no accuracy of s2l beside randon"),
        ("differences quickstart accuracy math:random s2l", "quickstart and math were not judged"),
        (
            "spread quickstart accuracy/as_a_pool s2l",
            "accuracy/as_a_pool: a measure is one of accuracy, heldout",
        ),
        ("by_source quickstart accuracy/as_pool 15% s2l", "a source by itself has no share"),
        ("mislabelled quickstart s2ll", "quickstart has no s2ll"),
        ("mislabelled math s2l", "math is not of the embedded pool"),
    ],
)
def test_a_table_of_what_there_is_not_is_refused(made, table, message):
    with pytest.raises(SystemExit, match=message):
        made.tables_of(f"<!-- table: {table} -->\n<!-- end of table -->")


def test_one_benchmark_is_what_all_are_where_there_is_one(made):
    alone, all_of = (list(made.spread("quickstart", f"heldout_loss{part}")) for part in ("@synthetic", ""))
    assert alone == all_of
    asked = [made.compared("quickstart", f"accuracy{part}", "random") for part in ("@synthetic", "")]
    assert asked[0] == asked[1]


def test_a_baseline_of_fewer_budgets_is_compared_at_its_largest(made):
    """As the run's report does: this method of study 2 is at 11 % alone."""
    found = made.compared("math", "heldout_loss@gsm8k", "middle_perplexity")
    assert ("full", made.ALL) in found
    assert ("untuned", made.NONE) in found
    assert not [key for key in found if key[1] in ("5 %", "33 %")]


def test_operations_of_a_proxy_that_another_run_trained_are_not_known(made):
    lines = {line[0]: line[2:5] for line in list(made.cost("smollm_lora", "each", "s2l", "random"))[1:]}
    assert lines["s2l"][0] == lines["s2l"][2] == "not known"
    assert float(lines["s2l"][1]) > 0
    assert lines["random"] == ["0.000", lines["random"][1], lines["random"][1]]


def test_what_another_study_paid_for_is_charged(made):
    """Study 3's S2L goes by the losses of study 2's first proxy; at one pool every proxy takes as much."""
    (line,) = list(made.cost("smollm_lora", "each", "s2l+math:proxy"))[1:]
    (alone,) = list(made.cost("smollm_lora", "each", "s2l"))[1:]
    (of_study_2,) = list(made.cost("math", "5%", "s2l"))[1:]
    assert line[2] == of_study_2[2]
    assert float(line[4]) == pytest.approx(float(line[2]) + float(line[3]), abs=2e-3)
    assert line[5] != alone[5]


def test_sources_count_for_their_share_of_the_pool(made):
    """By hand from the means of each source, which the report's evaluation has no part in."""
    stored = made.study_of("quickstart")
    (group,) = [each for each in stored.named("s2l") if stored.column(each) == "15 %"]
    lines = list(made.by_source("quickstart", "heldout_loss", "15%", "s2l"))[1:]
    sizes = [int(line[1].replace(",", "")) for line in lines]
    by_hand = np.average([float(line[2]) for line in lines], weights=sizes)
    judged = made.Judged.by("heldout_loss/as_pool")
    weighted = group.statistic(lambda run: stored.value(run, judged)).mean
    assert weighted == pytest.approx(by_hand, abs=5e-4)
    assert abs(weighted - group.statistic(lambda run: run.heldout_loss).mean) > 0.05


def test_mislabelled_rows_are_counted_by_hand(made):
    """The stored rows are of the pool as it is made today: of the sources that the run counted."""
    pool, stored = pool_rows(4000), made.study_of("quickstart")
    (group,) = [each for each in stored.named("s2l") if stored.column(each) == "15 %"]
    wrong = []
    for run in group.runs:
        chosen = [pool[row] for row in stored.rows(run)]
        counted = collections.Counter(row["source"] for row in chosen)
        assert counted == stored.results["selections"][run.name]["sources"]
        wrong.append(sum(row["output"].split()[-1] != row["answer"] for row in chosen) / len(chosen))
    (line,) = list(made.mislabelled("quickstart", "s2l"))[1:]
    assert line[2] == f"{100 * np.mean(wrong):.1f}"
