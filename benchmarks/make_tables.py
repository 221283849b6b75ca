"""Writes the tables and figures of the documents again from what benchmarks/results has of each study.

    python benchmarks/make_tables.py            # writes them
    python benchmarks/make_tables.py --check    # exit status 1 if a document has other ones

A page has a table between `<!-- table: KIND ARGUMENTS -->` and `<!-- end of table -->`; the kinds are the
functions of `TABLES`. A measure is accuracy or heldout_loss; with @NAME it is of one benchmark, and with
/as_pool each source counts for its share of the pool. A figure that a page shows as figures/STUDY/FILE is
that of the report, in docs/results; figures/STUDY/BENCHMARK/FILE is that of one benchmark.
"""

import argparse
import collections
import functools
import math
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from store_study import RESULTS
from studies import ALL, NONE, Judged, Study, name_of, study_of

from s2l_jax.config.replicates import entry_of
from s2l_jax.data.datasets.synthetic import pool_rows
from s2l_jax.evaluation.paired import PairedDifference, holm
from s2l_jax.report.comparisons import ALPHA, MEASURES, Measure, paired
from s2l_jax.report.findings import Findings
from s2l_jax.report.page import write_figures
from s2l_jax.report.runs import RunGroup, RunResult, Statistic, part_results, selection_flops
from s2l_jax.report.section import Section, all_sections
from s2l_jax.report.table import format_seconds

REPOSITORY = RESULTS.parent.parent
FIGURES = REPOSITORY / "docs" / "results" / "figures"
DRAWN = ("budgets", "differences")  # sections of the report whose figures the documents show
COMPARED = ("s2l", "s2l_whole", "s2l_layers", "random", "random_by_source", "full")  # those that figures show
_TABLE = re.compile(r"(<!-- table: ([^>\n]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_FIGURE = re.compile(r"figures/(\w+(?:/\w+)?)/([\w-]+\.svg)\)")


def spread(study: str, measure: str, *names: str) -> Iterator[Sequence[str]]:
    """A line for each selection, a column for each budget: means and standard deviations over replicates.

    `names` are the selections that have a line, all unless given.
    """
    found, judged = study_of(study), Judged.by(measure)
    of, value = judged.measure, functools.partial(found.value, judged=judged)
    yield ["selection", "replicates", NONE, *found.columns.values(), ALL]
    lines = []
    for name in names or dict.fromkeys(name_of(group) for group in found.groups):
        groups = [(group, s) for group in found.named(name) if (s := group.statistic(value))]
        cells = {found.column(group): _deviating(statistic, of) for group, statistic in groups}
        if not groups:
            raise SystemExit(
                f"{study} has no {measure} of {name}: it has {', '.join(map(name_of, found.groups))}"
            )
        mean = np.mean([statistic.mean for _, statistic in groups])
        count = max(statistic.count for _, statistic in groups)
        lines.append((mean, [name, str(count), *found.line(cells)]))
    yield from (line for _, line in sorted(lines, key=lambda each: -each[0] * _better(of)))


def _deviating(statistic: Statistic, of: Measure) -> str:
    deviation = f" ± {of.amount(statistic.deviation)}" if statistic.count > 1 else ""
    return f"{of.amount(statistic.mean)}{deviation}"


def _better(of: Measure) -> int:
    return 1 if of.name == "accuracy" else -1


def differences(study: str, measure: str, baseline: str, *names: str) -> Iterator[Sequence[str]]:
    """A line for each selection, a column for each budget: mean differences from a baseline, with intervals.

    `baseline` is a run of the study, or of another: "STUDY:RUN"; `names` are the selections that have a line,
    all unless given. Bold is what is not chance by Holm's method over all selections, shown or not, and has
    several replicates. All rows, and the untuned model, are compared with the largest budget of the baseline;
    every budget with a baseline of all rows.
    """
    found, of = study_of(study), Judged.by(measure).measure
    said = {
        key: _said(difference, of, bold=p < ALPHA and difference.num_replicates > 1)
        for key, (difference, p) in compared(study, measure, baseline).items()
    }
    yield [f"against {baseline}", *found.columns.values(), ALL]
    shown = [name for name, column in said if column != NONE and (not names or name in names)]
    if missing := set(names) - set(shown):
        raise SystemExit(f"{study} has no {measure} of {', '.join(sorted(missing))} beside {baseline}")
    for name in dict.fromkeys(shown):
        yield [name, *found.line({column: cell for (own, column), cell in said.items() if own == name})[1:]]


def compared(
    study: str, measure: str, baseline: str
) -> dict[tuple[str, str], tuple[PairedDifference, float]]:
    """The difference of each selection and column from a baseline, and its p value by Holm's method."""
    found, judged = study_of(study), Judged.by(measure)
    elsewhere, _, entry = baseline.rpartition(":")
    others = study_of(elsewhere or study)
    if found.sources.keys() != others.sources.keys():
        raise SystemExit(f"{study} and {elsewhere} were not judged by the same rows")
    bases = {others.column(base): base for base in others.named(entry)}
    largest = max(bases.values(), key=lambda base: base.budget or 0, default=None)
    measured: dict[tuple[str, str], PairedDifference] = {}
    for group in found.groups:
        column = found.column(group)
        base = largest if column in (NONE, ALL) else bases.get(column, bases.get(ALL))
        if base is not None and group is not base:
            scores, base_scores = (functools.partial(each.scores, judged=judged) for each in (found, others))
            weights = functools.partial(found.weights, judged=judged)
            if (difference := paired(group, base, scores, base_scores, weights)) is not None:
                if (key := (name_of(group), column)) in measured:
                    raise SystemExit(f"{study} has two budgets of {key[0]} near {column}")
                measured[key] = difference
    corrected = holm([difference.p_value for difference in measured.values()])
    return dict(zip(measured, zip(measured.values(), corrected, strict=True), strict=True))


def _said(difference: PairedDifference, of: Measure, *, bold: bool) -> str:
    low, high = difference.interval
    mean = of.amount(difference.mean, "+")
    return f"{f'**{mean}**' if bold else mean} ({of.amount(low, '+')} to {of.amount(high, '+')})"


def by_source(study: str, what: str, share: str, *names: str) -> Iterator[Sequence[str]]:
    """A line for each source, the largest first, a column for each named selection: means over replicates.

    `what` is rows, of the subsets, or a measure on the source's evaluation rows; `share` a column, as 15%.
    """
    found = study_of(study)
    if what != "rows" and Judged.by(what).as_pool:
        raise SystemExit(f"{what}: a source by itself has no share of the pool to count as")
    column = share.replace("%", " %")
    groups = [group for name in names for group in found.named(name) if found.column(group) == column]
    if len(groups) != len(names):
        raise SystemExit(f"{study} has not each of {', '.join(names)} once at {share}")
    sizes: dict[str, int] = found.results["pool"]["sources"]
    yield ["source", "rows of the pool", *names]
    for source in sorted(sizes, key=lambda name: -sizes[name]):
        values = [np.mean([_of_source(found, run, what, source) for run in group.runs]) for group in groups]
        cells = [
            f"{each:.0f}" if what == "rows" else Judged.by(what).measure.amount(float(each))
            for each in values
        ]
        yield [source, f"{sizes[source]:,}", *cells]


def _of_source(found: Study, run: RunResult, what: str, source: str) -> float:
    if what == "rows":
        return float(found.results["selections"][run.name]["sources"].get(source, 0))
    scores = found.scores(run, Judged.by(what))
    return float(np.mean([score for row, score in scores.items() if found.sources[row] == source]))


def mislabelled(study: str, *names: str) -> Iterator[Sequence[str]]:
    """A line for each selection, a column for each budget: the share of its rows that are mislabelled.

    Of studies of the embedded pool, which knows of each row whether it is.
    """
    found = study_of(study)
    rows = pool_rows(found.results["pool"]["num_examples"])
    if collections.Counter(row["source"] for row in rows) != found.results["pool"]["sources"]:
        raise SystemExit(f"{study} is not of the embedded pool: of its rows it is not known")
    if missing := [name for name in names if not found.named(name)]:
        raise SystemExit(f"{study} has no {', '.join(missing)}")
    wrong = np.array([not row["clean"] for row in rows])
    yield ["selection", *found.columns.values(), ALL]
    for name in names:
        groups = found.named(name)
        shares = {
            found.column(group): np.mean([wrong[found.rows(run)].mean() for run in group.runs])
            for group in groups
        }
        yield [name, *found.line({column: f"{100 * share:.1f}" for column, share in shares.items()})[1:]]


def cost(study: str, share: str, *names: str) -> Iterator[Sequence[str]]:
    """A line for each of the named selections: what it took in operations and time, by part.

    Operations of a proxy that another run trained are not known here, nor is the sum with them, unless the
    name says which study's did: as s2l+STUDY:PART, of which the part's operations and time are charged.
    `share` is the column of the selections' budget, as 15%, or "each": a line for each budget.
    """
    found = study_of(study)
    operations = ["proxy and sweeps, TFLOP", "target, TFLOP", "TFLOP in all"]
    yield ["selection", "rows", *operations, "selecting", "training", "time in all"]
    columns = (*found.columns.values(), ALL) if share == "each" else (share.replace("%", " %"), ALL)
    for each in names:
        name, _, payer = each.partition("+")
        groups = [group for group in found.named(name) if found.column(group) in columns]
        if not groups:
            raise SystemExit(f"{study} has no {name} at {share}")
        for group in groups:
            flops = [
                _mean(group, functools.partial(_known_flops, found)),
                _mean(group, lambda run: run.target.get("training_flops")),
            ]
            seconds = [
                _mean(group, lambda run: run.selection_seconds),
                _mean(group, lambda run: run.target_seconds),
            ]
            if payer:
                payer_study, _, part = payer.partition(":")
                flops[0], paid = _spent(payer_study, part)
                seconds[0] = _sum([seconds[0], paid])
            yield [
                name,
                f"{group.budget:,}" if group.budget else "-",
                *("not known" if part is None else f"{part / 1e12:.3f}" for part in (*flops, _sum(flops))),
                *("-" if part is None else format_seconds(part) for part in (*seconds, _sum(seconds))),
            ]


def _mean(group: RunGroup, value: Callable[[RunResult], float | None]) -> float | None:
    found = group.statistic(value)
    return found.mean if found else None


def _known_flops(found: Study, run: RunResult) -> float | None:
    operations, unknown = selection_flops(found.results, run.name)
    return None if unknown else operations


def _spent(study: str, part: str) -> tuple[float, float]:
    """Operations and seconds of a study's proxy and its sweeps."""
    results = study_of(study).results
    made = part_results(results, part)
    spent = _sum([made.get(kind) for kind in ("training_flops", "sweep_flops")])
    if spent is None:
        raise SystemExit(f"{study} has no operations of {part or 'a part without a name'} to charge")
    return spent, results["timing"][part]


def _sum(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return math.fsum(known) if len(known) == len(parts) else None


def made(study: str) -> Iterator[Sequence[str]]:
    """What made a study: one line."""
    results = study_of(study).results
    yield ["runs with a target", "time of all stages", "commit", "packages", "machine"]
    versions = {name: results["made"]["versions"][name] for name in ("python", "jax", "flax", "transformers")}
    yield [
        str(len(results["targets"])),
        format_seconds(sum(results["timing"].values())),
        results["made"]["commit"],
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        results["made"]["machine"],
    ]


TABLES: Mapping[str, Callable[..., Iterator[Sequence[str]]]] = {
    function.__name__: function for function in (spread, differences, by_source, mislabelled, cost, made)
}


def _markdown(lines: Iterator[Sequence[str]]) -> str:
    header, *rows = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([header, "|".join(["", *[" --- "] * (header.count("|") - 1), ""]), *rows])


def tables_of(page: str) -> str:
    """The text of a page with its tables made anew."""

    def made(match: re.Match[str]) -> str:
        kind, *arguments = match[2].split()
        return f"{match[1]}\n{_markdown(TABLES[kind](*arguments))}\n\n{match[3]}"

    return _TABLE.sub(made, page)


def pages() -> list[pathlib.Path]:
    """The documents that may have tables."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs" / "results").glob("*.md"))]


def draw(folder: pathlib.Path) -> None:
    """Every figure that a document shows, as it stands in docs/results/figures."""
    shown = {found for page in pages() for found in _FIGURE.findall(page.read_text())}
    for place in sorted({place for place, _ in shown}):
        write_figures(folder / place, _sections(*place.split("/")))
    for file in folder.rglob("*.svg"):
        if (file.parent.relative_to(folder).as_posix(), file.name) not in shown:
            file.unlink()


def _sections(name: str, benchmark: str = "") -> list[Section]:
    """Parts of a study's report whose figures are shown, of the selections that all studies compare."""
    study = study_of(name)
    runs = [run for group in study.groups if name_of(group) in COMPARED for run in group.runs]
    kept = {
        part: {run.name: study.results[part][run.name] for run in runs if run.name in study.results[part]}
        for part in ("selections", "targets", "evaluations")
    }
    told = study.results["comparisons"]
    kept["comparisons"] = {
        measure.name: [each for each in told[measure.name] if entry_of(each["runs"][0]) in COMPARED]
        for measure in ([] if benchmark else MEASURES)  # which are of all benchmarks
    } | {of: told[of] for of in ("baseline", "method")}
    if benchmark:
        judged = {measure.name: Judged(measure, benchmark) for measure in MEASURES}
        kept["evaluations"] = {
            run.name: {"overall": {measure: study.value(run, by) for measure, by in judged.items()}}
            for run in runs
        }
    return [each for each in all_sections(Findings(study.results | kept)) if each.key in DRAWN]


def main() -> None:
    """Write the tables, or say which documents have others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; say what differs")
    check = parser.parse_args().check
    stale = [page for page in pages() if tables_of(page.read_text()) != page.read_text()]
    if check:
        sys.exit("".join(f"{page.relative_to(REPOSITORY)} has other tables\n" for page in stale) or 0)
    for page in stale:
        page.write_text(tables_of(page.read_text()))
        print(page)
    draw(FIGURES)


if __name__ == "__main__":
    main()
