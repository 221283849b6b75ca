"""What is where in the run's working directory."""

from s2l_jax.report.section import Findings, Section, report_section

# (part of the results, path, what is in it)
FILES = (
    ("pool", "pool/", "the tokenised pool and its manifest"),
    ("proxy", "proxy/", "checkpoints and metrics of the proxy"),
    ("trajectories", "trajectories.zarr", "losses of each example at each checkpoint, and row ids"),
    ("selections", "selection/<name>/indices.npy", "the chosen rows of the pool, sorted"),
    ("selections", "selection/<name>/subset.jsonl", "the same rows with their original fields"),
    ("selections", "selection/<name>/clusters.parquet", "the cluster of each example"),
    ("selections", "selection/<name>/summary.json", "settings, counts and hashes"),
    ("targets", "target/<name>/", "checkpoints and metrics of the target"),
    ("targets", "target/<name>/hf/", "the trained target, which transformers loads"),
    ("evaluations", "evaluation/<name>/<benchmark>/predictions.jsonl", "each prompt, response and verdict"),
)


@report_section("Files", place=140)
def files(section: Section, found: Findings) -> None:
    """A row for each file that this run left."""
    section.intro = "Paths are under the run's working directory."
    section.header = ("path", "holds")
    section.rows = [
        ("config.json", "every setting, versions and the seed"),
        ("results.json", "every number of this page"),
        *((path, what) for part, path, what in FILES if found.results.get(part)),
    ]
    section.scroll = True
