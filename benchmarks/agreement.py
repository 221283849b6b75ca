"""How alike the subsets are that full sweeps, a slice, and training's own losses lead to.

    python benchmarks/agreement.py --config=quickstart --workdir=runs/agreement
    python benchmarks/agreement.py --config=math_pythia70m --workdir=runs/agreement_math \
        --pool=pool.jsonl --limit=8000 --set proxy.init=random --set proxy.model_config=config.json \
        --set proxy.tokenizer=DIRECTORY --set trajectories.cadence=even --set selection.budget=800

Trains the proxy of a config twice (the second time with trajectories.source=train; no targets) and sweeps
the first one's snapshots over a slice. Every way is then compared with full sweeps, under the same seed: the
adjusted Rand index of the clusterings on the rows that both have (by source: the mean, by size, over sources
that both have in several clusters), and the Jaccard index of the subsets. Other seeds, and random subsets,
say what these figures mean.
"""

import argparse
import ast
import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from s2l_jax import config as configs
from s2l_jax import load_trajectories
from s2l_jax.clustering import adjusted_rand_within
from s2l_jax.pipeline import run_pipeline
from s2l_jax.selection import Selection, SelectionInputs, jaccard, select
from s2l_jax.selection.selector import select_from_slice
from s2l_jax.trajectories.slices import rows_in_pool


def _set(config: ConfigDict, field: str, value: str) -> None:
    *parents, name = field.split(".")
    for parent in parents:
        config = config[parent]
    config[name] = value if isinstance(config[name], str) else ast.literal_eval(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="quickstart", help="a name in configs/")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="a folder for three workdirs")
    parser.add_argument("--slice", type=float, default=0.25, help="share of the pool in the slice")
    parser.add_argument("--limit", type=int, default=0, help="rows of the pool; 0: all")
    parser.add_argument("--pool", default="", help="pool.path, where it is not the config's")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="other fields")
    options = parser.parse_args()
    fields = dict(setting.split("=", 1) for setting in options.set)

    def record(name: str, stages: list[str], **trajectories: Any) -> Any:
        config = configs.load(options.config)
        config.pool.limit = options.limit
        config.pool.path = options.pool or config.pool.path
        for field, value in fields.items():
            _set(config, field, value)
        config.selection.runs, config.report.baseline = {}, ""
        config.selection.runs.all = configs.run(method="full", train_target=False)
        config.selection.runs.s2l = configs.run(method="s2l", train_target=False)
        config.trajectories.update(trajectories)
        config.proxy.save_params = name == "full"
        run_pipeline(config, options.workdir / name, stages=stages)
        return config, load_trajectories(options.workdir / name / "trajectories.zarr")

    config, full = record("full", ["pool", "proxy", "selection"])
    pool = Selection.load(options.workdir / "full" / "selection" / "all")
    snapshots = str(options.workdir / "full" / "proxy" / "snapshots")
    again = ["pool", "trajectories"]
    _, part = record("slice", again, snapshots=snapshots, slice_fraction=options.slice)
    _, free = record("train", ["pool", "proxy"], source="train")
    inputs = SelectionInputs(ids=pool.ids, sources=pool.sources)
    budget, clusters = config.selection.budget, config.clustering.num_clusters
    print(f"{len(pool.ids)} rows, slice of {len(part.losses)}, budget {budget}, K = {clusters}")
    print(f"columns: {full.losses.shape[1]} from full sweeps, {free.losses.shape[1]} from training")
    for stratify_by in ("source", "none"):
        settings = {"budget": budget, "num_clusters": clusters, "stratify_by": stratify_by}

        def chosen(
            losses: np.ndarray, ids: Any, *, seed: int = 0, settings: Any = settings, **more: Any
        ) -> Any:
            rows = rows_in_pool(ids, pool.ids, "here")
            rows = np.arange(len(pool.ids)) if rows is None else rows
            given = inputs.rows(rows).replace(trajectories=losses)
            return select_from_slice(inputs, rows, given, seed=seed, **settings | more)

        reference = chosen(full.losses, full.ids)
        ways = {
            "full sweeps, other seed": chosen(full.losses, full.ids, seed=1),
            "every 2nd sweep": chosen(full.losses, full.ids, every=2),
            "every 4th sweep": chosen(full.losses, full.ids, every=4),
            "slice": chosen(part.losses, part.ids),
            "training's losses": chosen(free.losses, free.ids),
        }
        print(f"\nstratify_by={stratify_by!r}, against full sweeps:   ARI   Jaccard")
        for name, other in ways.items():
            sources = pool.sources if stratify_by == "source" else None
            alike = adjusted_rand_within(reference.labels, other.labels, sources)
            print(f"  {name:40} {np.nan if alike is None else alike:7.3f} {_shared(reference, other):7.3f}")
        random = select(inputs, budget, method="random", seed=0)
        print(f"  {'random, same seed':40} {'':7} {_shared(reference, random):7.3f}")
        fraction = budget / len(pool.ids)
        print(f"  {'two independent random subsets':40} {'':7} {fraction / (2 - fraction):7.3f}")


def _shared(one: Selection, other: Selection) -> float:
    return jaccard(one.indices, other.indices)


if __name__ == "__main__":
    main()
