"""What other numbers of clusters would have given."""

from s2l_jax.report.runs import finite_number
from s2l_jax.report.section import Findings, Section, report_section
from s2l_jax.report.style import line_panels, style


@report_section("Other numbers of clusters", place=110)
def cluster_counts(section: Section, found: Findings) -> None:
    """Inertia, silhouette and label stability against the number of clusters, where they were asked for."""
    if not (compared := found.results.get("cluster_counts")):
        return
    section.intro = (
        "All trajectories clustered with several K, from several first centroids each. Inertia falls with "
        "every cluster: look for where it falls less. The silhouette (on a sample) says how well clusters "
        "are separated, stability how alike labels from other first centroids are (adjusted Rand index)."
    )
    x = [fit["num_clusters"] for fit in compared]
    measures = ("inertia", "silhouette", "stability")
    panels = {name: [finite_number(fit.get(name)) for fit in compared] for name in measures}
    figure = line_panels(x, panels, "with K =", 0.07)
    figure.update_xaxes(title_text="clusters", type="log", tickvals=x, ticktext=[f"{k:,}" for k in x])
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    section.show(style(figure, 280))
