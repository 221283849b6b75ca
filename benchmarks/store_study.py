"""Keeps what the tables of docs/results are made of, from the workdir of a study that has ended.

    python benchmarks/store_study.py --workdir=runs/study_embedded --name=embedded

Writes benchmarks/results/NAME: `results.json` without learning curves and sizes of single clusters, but with
the commit, the packages and the machine that made it; `scores.npz`, of every model and evaluation row
whether it was answered right and its loss; `clusters.npz`, the rows of every subset and the cluster of every
row for each of S2L's clusterings; asked for, `trajectories.npz`, the losses that `trajectories.path` takes.
`benchmarks/make_tables.py` makes the tables of the first two, and of the subsets what is wrong in them; the
others are for what these leave open.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
from typing import Any

import numpy as np

from s2l_jax.evaluation.predictions import PREDICTIONS, read_predictions
from s2l_jax.report.load import load_results
from s2l_jax.selection import Selection
from s2l_jax.trajectories.load import load_trajectories

RESULTS = pathlib.Path(__file__).parent / "results"
_LEFT_OUT = {
    "selections": ("cluster_sizes", "picked_per_cluster"),
    "targets": ("curve",),
    "proxy": ("curve",),
    "proxies": ("curve",),
}  # by part of the results


def main() -> None:
    """Store one study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="of the study")
    parser.add_argument("--name", required=True, help="folder of benchmarks/results to write")
    parser.add_argument("--trajectories", action="store_true", help="keep those of the first proxy as well")
    parser.add_argument("--commit", help="that ran it; default the checked-out one")
    parser.add_argument("--machine", help="in words; default this one")
    args = parser.parse_args()
    folder = RESULTS / args.name
    folder.mkdir(parents=True, exist_ok=True)
    content = load_results(args.workdir).content
    results = {part: _without(value, _LEFT_OUT.get(part, ())) for part, value in content.items()}
    of_all_rows = {name: {"overall": each["overall"]} for name, each in results["evaluations"].items()}
    results["evaluations"] = of_all_rows  # those by source are in the scores
    results["made"] = {
        "commit": args.commit or _commit(),
        "machine": args.machine or _machine(),
        "versions": json.loads((args.workdir / "config.json").read_text())["versions"],
    }
    text = json.dumps(results, indent=1, sort_keys=True)
    (folder / "results.json").write_text(f"{text}\n")
    arrays: dict[str, dict[str, Any]] = {
        "scores": _scores(args.workdir, results),
        "clusters": _clusters(args.workdir, results),
    }
    if args.trajectories:
        found = load_trajectories(args.workdir / "trajectories.zarr")
        arrays["trajectories"] = {"losses": found.losses, "steps": found.steps, "ids": found.ids}
    for name, of_file in arrays.items():
        np.savez_compressed(folder / f"{name}.npz", **of_file)
    for file in sorted(folder.iterdir()):
        print(f"{file}: {file.stat().st_size / 1e3:,.0f} kB")


def _commit() -> str:
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _machine() -> str:
    names = re.findall(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"


def _without(value: Any, names: tuple[str, ...]) -> Any:
    """JSON without the fields of these names, wherever they are."""
    if isinstance(value, dict):
        return {key: _without(each, names) for key, each in value.items() if key not in names}
    return [_without(each, names) for each in value] if isinstance(value, list) else value


def _scores(workdir: pathlib.Path, results: dict[str, Any]) -> dict[str, np.ndarray]:
    """Each benchmark's ids and sources, [M], each model's right answers and losses, [M]; NaN: none."""
    found: dict[str, np.ndarray] = {}
    for model in results["evaluations"]:
        for file in sorted((workdir / "evaluation" / model).glob(f"*/{PREDICTIONS}")):
            rows, benchmark = read_predictions(file), file.parent.name
            found[f"{benchmark}/ids"] = np.array([row.id for row in rows], np.uint64)
            found[f"{benchmark}/sources"] = np.array([row.source for row in rows])
            for kind, values in (
                ("right", [row.correct for row in rows]),
                ("loss", [row.loss for row in rows]),
            ):
                numbers = [np.nan if value is None else value for value in values]
                found[f"{benchmark}/{kind}/{model}"] = np.array(numbers, np.float32)
    return found


def _clusters(workdir: pathlib.Path, results: dict[str, Any]) -> dict[str, np.ndarray]:
    """The chosen rows of every subset, and the labels [N] of each clustering, once."""
    found: dict[str, np.ndarray] = {}
    known: set[bytes] = set()
    for name, chosen in results["selections"].items():
        selection = Selection.load(workdir / "selection" / name)
        found[f"rows/{name}"] = selection.indices.astype(np.uint32)
        labels = selection.labels.astype(np.int32)
        if chosen["num_clusters"] and labels.tobytes() not in known:
            known.add(labels.tobytes())
            found[f"clusters/{name}"] = labels
    return found


if __name__ == "__main__":
    main()
