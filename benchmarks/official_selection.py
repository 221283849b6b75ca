"""What the official S2L code would select from the same losses, beside what is selected here.

    pip install faiss-cpu
    python benchmarks/official_selection.py                                   # generated trajectories
    python benchmarks/official_selection.py --workdir=runs/quickstart --clusters=20 --budget=600
    python benchmarks/official_selection.py --workdir=runs/quickstart --clusters=20 --budget=600 \\
        --official=S2L/schedules/s2l.py                                       # their file itself; takes torch

`official` tells its rule again (BigML-CS-UCLA/S2L, schedules/s2l.py) in NumPy and faiss. Three things of it
are otherwise here, and each is tried by itself:

  the draw      it is unseeded there (np.random.choice); here a hash of seed and id
  the sample    faiss trains on at most 256 rows a centroid; here all rows do
  the start     faiss begins k-means at random rows, always the same; here by k-means++ of the seed

For each two subsets the Jaccard index, and the adjusted Rand index of the clusterings: the mean over the
sources that are clustered, by size.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import itertools
import pathlib
import sys
import tempfile
import types
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float, Int

from s2l_jax import load_trajectories
from s2l_jax.clustering import adjusted_rand_index
from s2l_jax.selection import Selection, SelectionInputs, jaccard, select

ITERATIONS = 20
DRAWS = 5  # of their file, which is unseeded
SMALL = 2  # rows of clusters that are drawn from last


@dataclasses.dataclass(frozen=True)
class Subset:
    """Rows, and the cluster of every row of the pool (-1: its source was not clustered)."""

    indices: np.ndarray
    labels: np.ndarray
    inertia: float


def official(
    losses: Float[np.ndarray, "n t"],
    sources: np.ndarray,
    budget: int,
    num_clusters: int,
    rng: np.random.Generator,
    *,
    whole: bool = False,
) -> Subset:
    """Its subset. The budget goes to sources and then to clusters, the smallest first, as Algorithm 1 has it.

    Args:
      losses: trajectories.
      sources: of each row.
      budget: rows.
      num_clusters: K of each source that has more rows than its share.
      rng: draws rows of a cluster.
      whole: train the centroids on all rows instead of 256 for each of them.
    """
    labels, taken, inertia = np.full(len(losses), -1), [], 0.0
    names, sizes = np.unique(sources, return_counts=True)
    left = budget
    for position, source in enumerate(np.argsort(sizes)):
        rows = np.flatnonzero(sources == names[source])
        share = left // (len(names) - position)
        if len(rows) > share:
            own = np.ascontiguousarray(losses[rows], np.float32)
            limit = {"max_points_per_centroid": len(rows)} if whole else {}
            kmeans = faiss.Kmeans(own.shape[1], num_clusters, niter=ITERATIONS, **limit)
            kmeans.train(own)
            far, nearest = kmeans.index.search(own, 1)
            labels[rows] = source * num_clusters + nearest[:, 0]
            inertia += float(far.sum())
            rows = rows[_of_clusters(nearest[:, 0], share, rng)]
        taken.append(rows)
        left -= len(rows)
    return Subset(np.sort(np.concatenate(taken)), labels, inertia)


def _of_clusters(labels: Int[np.ndarray, " m"], count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of one source: evenly from clusters of more than two rows, and from the others what is missing."""
    clusters, sizes = np.unique(labels, return_counts=True)
    order = np.argsort(sizes)
    order = order[sizes[order] > SMALL]
    taken = []
    for position, cluster in enumerate(order):
        rows = np.flatnonzero(labels == clusters[cluster])
        share = min(len(rows), count // (len(order) - position))
        taken.append(rng.choice(rows, share, replace=False))
        count -= share
    if count:
        rest = np.flatnonzero(np.isin(labels, clusters[sizes <= SMALL]))
        taken.append(rng.choice(rest, count, replace=False))
    return np.concatenate(taken)


def ours(
    losses: Float[np.ndarray, "n t"], sources: np.ndarray, budget: int, num_clusters: int, **options: Any
) -> Subset:
    """S2L by source as `select` has it."""
    inputs = SelectionInputs(trajectories=losses, sources=sources)
    chosen = select(inputs, budget, num_clusters=num_clusters, max_iterations=ITERATIONS, **options)
    assert chosen.centroids is not None
    assert chosen.cluster_sources is not None
    of_source = np.array([chosen.cluster_sources.count(name) for name in chosen.cluster_sources])
    clustered = of_source[chosen.labels] > 1
    far = ((losses.astype(np.float64) - chosen.centroids[chosen.labels]) ** 2).sum(1)
    labels = np.where(clustered, chosen.labels, -1)
    return Subset(chosen.indices, labels, float(far[clustered].sum()))


def their_own(
    file: pathlib.Path,
    losses: Float[np.ndarray, "n t"],
    sources: np.ndarray,
    budget: int,
    num_clusters: int,
    seed: int,
) -> np.ndarray:
    """The rows that their schedule takes by files of losses; the trainer around it is left out."""
    import torch

    class Schedule:
        def __init__(self, model: object, tokenizer: object, args: dict[str, Any]) -> None:
            self.train_data, self.init_label_num = args["train_data"], args["init_label_num"]
            self.n_pool = len(self.train_data)
            self.train_idx = torch.arange(self.n_pool)
            self.labeled_idx = torch.zeros(self.n_pool, dtype=torch.bool)

    sys.modules["schedule_base"] = stand_in = types.ModuleType("schedule_base")
    stand_in.Schedule = Schedule  # type: ignore[attr-defined]
    torch.distributed.get_rank = lambda group=None: 0
    spec = importlib.util.spec_from_file_location("official_s2l", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for place, column in enumerate(losses.T):
            checkpoint = pathlib.Path(folder) / f"checkpoint-{place:06d}"
            checkpoint.mkdir()
            torch.save([float(loss) for loss in column], checkpoint / "losses.pt")
        args = {"train_data": [{"source": name} for name in sources], "init_label_num": budget}
        args |= {"ref_model_path": folder, "n_components": num_clusters, "num_loss_ckpts": -1, "distance": ""}
        np.random.seed(seed)  # noqa: NPY002  the generator that it draws by
        schedule = module.S2L(None, None, args)
        schedule.initialize_labeled_data()
    return np.flatnonzero(schedule.labeled_idx.numpy())


def generated() -> tuple[np.ndarray, np.ndarray]:
    """Trajectories of 20,000 rows of three sources, as in docs/guide/selection.md."""
    rng = np.random.default_rng(0)
    start, speed = rng.gamma(2, 1, (20_000, 1)), rng.uniform(0.05, 1, (20_000, 1))
    losses = (start * np.exp(-speed * np.arange(12))).astype(np.float32)
    return losses, rng.choice(["gsm8k", "math", "aqua"], p=[0.7, 0.25, 0.05], size=20_000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workdir", type=pathlib.Path, help="of a finished selection; none: generated losses"
    )
    parser.add_argument(
        "--official", type=pathlib.Path, help="schedules/s2l.py of their repository: run it, too"
    )
    parser.add_argument("--clusters", type=int, default=20, help="K")
    parser.add_argument("--budget", type=int, default=2000, help="rows")
    options = parser.parse_args()
    if options.workdir is None:
        losses, sources = generated()
    else:
        losses = load_trajectories(options.workdir / "trajectories.zarr").losses
        names = Selection.load(next(iter(sorted((options.workdir / "selection").iterdir())))).sources
        assert names is not None, "the pool has no sources"
        sources = np.asarray(names)
    settings = (losses, sources, options.budget, options.clusters)
    first = official(*settings, np.random.default_rng(0))
    subsets = {
        "official": first,
        "official, drawn again": official(*settings, np.random.default_rng(1)),
        "official, centroids of all rows": official(*settings, np.random.default_rng(0), whole=True),
        "ours": ours(*settings),
        "ours, another seed": ours(*settings, seed=1),
        "ours, started at random rows": ours(*settings, init="random"),
    }
    print(f"{losses.shape[0]:,} rows of {len(set(sources))} sources, {losses.shape[1]} checkpoints")
    print(f"budget {options.budget:,}, K = {options.clusters}; inertia relative to the official one:")
    for name, subset in subsets.items():
        small = _in_small(subset)
        print(f"  {name:34} {subset.inertia / first.inertia:6.3f}  {small} rows of clusters of <= {SMALL}")
    print("\nof each source in the subset, official and ours:")
    for source in np.unique(sources):
        counts = [(sources[subsets[name].indices] == source).sum() for name in ("official", "ours")]
        print(f"  {source:34} {(sources == source).sum():6} {counts[0]:6} {counts[1]:6}")
    print("\n                                                                       Jaccard    ARI")
    for one, other in itertools.combinations(subsets, 2):
        print(f"  {one:32} {other:34} {jaccard(subsets[one].indices, subsets[other].indices):7.3f}", end="")
        print(f" {_agreement(subsets[one].labels, subsets[other].labels, sources):6.3f}")
    draws = [np.random.default_rng(s).choice(len(losses), options.budget, replace=False) for s in (0, 1)]
    print(f"  {'two random subsets':67} {jaccard(*draws):7.3f}")
    if options.official is not None:
        theirs = [their_own(options.official, *settings, seed) for seed in range(DRAWS)]
        retold = [official(*settings, np.random.default_rng(seed)).indices for seed in range(DRAWS)]
        own = [ours(*settings, seed=seed).indices for seed in range(DRAWS)]
        pairs = {
            "each other": itertools.combinations(theirs, 2),
            "the rule as told here": itertools.product(theirs, retold),
            "ours": itertools.product(theirs, own),
        }
        print(f"\n{DRAWS} subsets of {options.official}, mean Jaccard index with")
        for name, both in pairs.items():
            print(f"  {name:34} {np.mean([jaccard(*pair) for pair in both]):7.3f}")


def _in_small(subset: Subset) -> int:
    """How many rows of the subset come from small clusters."""
    clustered = subset.indices[subset.labels[subset.indices] >= 0]
    return int((_sizes(subset.labels)[clustered] <= SMALL).sum())


def _sizes(labels: np.ndarray) -> np.ndarray:
    """Of each row's cluster."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts[codes]


def _agreement(one: np.ndarray, other: np.ndarray, sources: np.ndarray) -> float:
    both = (one >= 0) & (other >= 0)
    parts = [np.flatnonzero(both & (sources == source)) for source in np.unique(sources[both])]
    found = [adjusted_rand_index(one[rows], other[rows]) for rows in parts]
    return float(np.average(found, weights=[len(rows) for rows in parts]))


if __name__ == "__main__":
    main()
