"""How several proxies compare: what each cost and what its subsets are worth, and how far they agree."""

from collections.abc import Mapping
from typing import Any

from s2l_jax.report.findings import Findings
from s2l_jax.report.runs import RunResult, Statistic
from s2l_jax.report.section import Section, report_section
from s2l_jax.report.table import NOT_MEASURED


@report_section("Proxies compared", place=17)
def proxies(section: Section, found: Findings) -> None:
    """A line for each group of runs of each proxy: its cost, and the target's results."""
    if not (compared := found.part("proxy_comparison")):
        return
    section.intro = (
        "Each proxy with the targets trained on its subsets. Its operations, of training and of all its "
        "sweeps, are charged to each of its selections, wherever it was trained."
    )
    section.header = ("proxy", "selection", "parameters", "operations", "accuracy %", "held-out loss")
    section.rows = [
        [
            proxy["name"],
            group.full_label,
            _number(proxy["parameters"], ",.0f"),
            _operations(proxy),
            _spread([run for run in group.runs if run.name in proxy["runs"]], "accuracy", 100, ".1f"),
            _spread([run for run in group.runs if run.name in proxy["runs"]], "heldout_loss", 1, ".3f"),
        ]
        for proxy in compared["proxies"]
        for group in found.groups
        if any(run.name in proxy["runs"] for run in group.runs)
    ]


@report_section("Agreement of proxies", place=18)
def proxy_agreement(section: Section, found: Findings) -> None:
    """A line for each two proxies, and for two seeds of one: their losses, clusters and subsets."""
    if not (pairs := found.part("proxy_comparison").get("pairs")):
        return
    section.intro = (
        "Two proxies at one seed, and for comparison one proxy at two seeds. Losses: Spearman's rank "
        "correlations within sources, of a row's mean loss, of its fall, and of distances between two rows. "
        "Clusters: adjusted Rand index (0: as by chance), within sources where these were clustered apart. "
        "Subsets: Jaccard index; by chance, that with a random draw by the seed, as many rows of each source."
    )
    section.header = ("proxies", "mean loss", "fall", "distances", "clusters", "subsets", "subsets by chance")
    section.rows = [
        [
            " and ".join(pair["proxies"])
            if len(set(pair["proxies"])) > 1
            else f"{pair['proxies'][0]}, two seeds",
            *(_number(pair["trajectories"].get(name), "+.2f") for name in ("mean_loss", "fall", "distances")),
            *(_number(pair[name], ".2f") for name in ("adjusted_rand", "jaccard", "jaccard_by_chance")),
        ]
        for pair in pairs
    ]


def _operations(proxy: Mapping[str, Any]) -> str:
    if proxy["training_flops"] is None:
        return "not known"
    return f"{proxy['training_flops'] + (proxy['sweep_flops'] or 0):.3g}"


def _spread(runs: list[RunResult], name: str, scale: float, form: str) -> str:
    statistic = Statistic.of(getattr(run, name) for run in runs)
    if statistic is None:
        return NOT_MEASURED
    spread = f" ± {scale * statistic.deviation:{form}}" if statistic.count > 1 else ""
    return f"{scale * statistic.mean:{form}}{spread}"


def _number(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else f"{value:{form}}"
