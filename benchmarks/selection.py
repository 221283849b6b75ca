"""Wall-clock of each selection method, agreement between seeds, and facility location beside other packages.

    python benchmarks/selection.py time
    python benchmarks/selection.py overlap --workdir=runs/quickstart
    python benchmarks/selection.py warmups
    python benchmarks/selection.py facility --size=100000 --budget=10000

`time` draws inputs for N examples at random: T losses, D-dimensional hidden states, projected gradients. The
choice alone is timed, as the library call makes it, and not what it takes to measure the inputs. `overlap`
takes the trajectories of a finished run, and its hidden states where it has some. `warmups` makes the
hidden states and gradients of the quickstart's target anew for each seed, for RDS+ and LESS: the task is the
pool's first 20 rows, the gradients are small (rank 8, one epoch, 256 numbers). `facility` times facility
location alone, or with --peer=apricot or --peer=submodlib (pip install apricot-select, submodlib-py) beside
that package on the same similarities, for --peer-size examples.
"""

import argparse
import itertools
import json
import pathlib
import resource
import tempfile
import time
from typing import Any

import numpy as np

from s2l_jax.selection import METHODS, Selection, SelectionInputs, jaccard, select

# Facility location and k-center take a matrix-vector product or more for each example they choose.
_COSTLY = {"facility_location": 1_000, "diverse_evol": 10_000}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("time", "overlap", "warmups", "facility"))
    parser.add_argument("--size", type=int, default=262_144, help="N")
    parser.add_argument("--budget", type=int, default=50_000)
    parser.add_argument("--checkpoints", type=int, default=12, help="T")
    parser.add_argument("--columns", type=int, default=512, help="D of hidden states")
    parser.add_argument("--methods", default="", help="with commas between; all if left out")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/quickstart"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--peer", default="", choices=("", "apricot", "submodlib"))
    parser.add_argument("--peer-size", type=int, default=5_000)
    options = parser.parse_args()
    {"time": _time, "overlap": _overlap, "warmups": _warmups, "facility": _facility}[options.what](options)


def _time(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    size = options.size
    # `given` takes the rows that it is given, which leaves nothing to time.
    names = options.methods.split(",") if options.methods else [name for name in METHODS if name != "given"]
    start, speed = rng.gamma(2, 1, (size, 1)), rng.uniform(0.05, 1, (size, 1))
    given: dict[str, Any] = {
        "ids": np.arange(size),
        "trajectories": (start * np.exp(-speed * np.arange(options.checkpoints))).astype(np.float32),
        "sources": rng.integers(0, 14, size),
        "response_tokens": rng.integers(1, 512, size),
    }
    wide = {"hidden_states", "embeddings", "query_states"} & frozenset().union(
        *(METHODS[name].needs for name in names)
    )
    if wide:
        given["hidden_states"] = _vectors(rng, size, options.columns)
        given["query_states"] = _vectors(rng, 100, options.columns)
    if "less" in names:
        given["gradients"] = rng.standard_normal((size, 1, options.columns), np.float32)
        given["query_gradients"] = rng.standard_normal((100, 1, options.columns), np.float32)
    inputs = SelectionInputs(**given)
    print(f"N = {size}, T = {options.checkpoints}, D = {options.columns}")
    for name in names:
        budget = min(options.budget, _COSTLY.get(name, options.budget))
        seconds = []
        for _ in range(2):  # the first one compiles
            begin = time.perf_counter()
            select(inputs, budget, method=name)
            seconds.append(time.perf_counter() - begin)
            if seconds[0] > 60:
                break
        again = f"{seconds[1]:9.2f}" if len(seconds) > 1 else f"{'-':>9}"
        print(f"{name:24} B = {budget:6}  {seconds[0]:9.2f} s  {again} s", flush=True)


def _overlap(options: argparse.Namespace) -> None:
    from s2l_jax import load_trajectories

    some = next((options.workdir / "selection").iterdir())
    pool = Selection.load(some)
    losses = load_trajectories(options.workdir / "trajectories.zarr").losses
    given: dict[str, Any] = {"trajectories": losses, "ids": pool.ids, "sources": pool.sources}
    found = sorted(options.workdir.glob("hidden_states/*-mean/states.npy"))
    if found:
        given["hidden_states"] = np.load(found[0])
    budget = 600
    inputs = SelectionInputs(**given)
    fraction = budget / len(losses)
    print(f"{len(losses)} rows, budget {budget}; two random subsets: {fraction / (2 - fraction):.3f}")
    variants: list[tuple[str, dict[str, Any]]] = [
        (name, {})
        for name, method in METHODS.items()
        if not method.takes_all and all(need.is_in(inputs) for need in method.features.values())
    ]
    variants.insert(1, ("s2l", {"stratify_by": "none"}))
    for name, more in variants:
        clusters: dict[str, Any] = {"num_clusters": 20} if name in ("s2l", "semdedup") else {}
        subsets = [
            select(inputs, budget, method=name, seed=seed, **clusters, **more).indices
            for seed in range(options.seeds)
        ]
        _print_overlap(", ".join([name, *(f"{key}={value}" for key, value in more.items())]), subsets)


def _print_overlap(label: str, subsets: list[np.ndarray]) -> None:
    pairs = [jaccard(a, b) for a, b in itertools.combinations(subsets, 2)]
    print(f"{label:32} mean {np.mean(pairs):.3f}  least {min(pairs):.3f}  most {max(pairs):.3f}", flush=True)


def _warmups(options: argparse.Namespace) -> None:
    from s2l_jax import run_pipeline
    from s2l_jax.config import load, run
    from s2l_jax.data.pool import read_rows

    subsets: dict[str, list[np.ndarray]] = {"rds": [], "less": []}
    with tempfile.TemporaryDirectory() as folder:
        queries = pathlib.Path(folder) / "queries.jsonl"
        rows = [row.original for row in read_rows("synthetic", limit=20)]
        queries.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for seed in range(options.seeds):
            config = load("quickstart")
            config.seed = seed
            config.selection.queries = str(queries)
            config.selection.gradients.update(rank=8, alpha=32.0, epochs=1, dims=256, batch_tokens=16_384)
            config.selection.runs, config.report.baseline = {}, ""
            for name in subsets:
                config.selection.runs[name] = run(method=name, train_target=False)
            workdir = pathlib.Path(folder) / str(seed)
            run_pipeline(config, workdir, stages=("pool", "selection"))
            for name, found in subsets.items():
                found.append(np.load(workdir / "selection" / name / "indices.npy"))
    for name, found in subsets.items():
        _print_overlap(name, found)


def _facility(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    if options.peer:
        rows = _vectors(rng, options.peer_size, options.columns)
        budget = options.peer_size // 10
        similarity = _similarity(rows)
        begin = time.perf_counter()
        chosen = _peer(options.peer, rows, similarity, budget)
        theirs = time.perf_counter() - begin
        ours = {}
        for evaluation in ("lazy", "stochastic"):
            for _ in range(2):
                begin = time.perf_counter()
                subset = select(
                    SelectionInputs(hidden_states=rows), budget, method="facility_location",
                    evaluation=evaluation, epsilon=options.epsilon,
                )  # fmt: skip
                ours[evaluation] = time.perf_counter() - begin
            reached = similarity[:, subset.indices].max(1).mean()
            print(f"{evaluation:12} {ours[evaluation]:8.2f} s  objective {reached:.6f}")
        print(f"{options.peer:12} {theirs:8.2f} s  objective {similarity[:, chosen].max(1).mean():.6f}")
        print(f"ratio to lazy: {theirs / ours['lazy']:.2f}, to stochastic: {theirs / ours['stochastic']:.2f}")
        return
    rows = _vectors(rng, options.size, options.columns)
    begin = time.perf_counter()
    subset = select(
        SelectionInputs(hidden_states=rows),
        options.budget,
        method="facility_location",
        epsilon=options.epsilon,
    )
    seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"N = {options.size}, D = {options.columns}, B = {options.budget}: {seconds:.1f} s, "
          f"at most {memory:.2f} GiB, {subset.notes}")  # fmt: skip


def _vectors(rng: np.random.Generator, size: int, columns: int) -> np.ndarray:
    """Rows around 200 centres, so that there is something to be near to."""
    centres = rng.standard_normal((200, columns), np.float32)
    rows = rng.standard_normal((size, columns), np.float32)
    rows += centres[rng.integers(0, 200, size)]
    return rows


def _similarity(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (1 + unit @ unit.T) / 2


def _peer(name: str, rows: np.ndarray, similarity: np.ndarray, budget: int) -> np.ndarray:
    if name == "apricot":
        from apricot import FacilityLocationSelection

        selector = FacilityLocationSelection(budget, metric="precomputed", optimizer="lazy")
        return np.asarray(selector.fit(similarity.astype(np.float64)).ranking)
    import submodlib

    function = submodlib.FacilityLocationFunction(
        n=len(rows), mode="dense", sijs=similarity, separate_rep=False
    )
    greedy = function.maximize(budget=budget, optimizer="LazyGreedy", stopIfZeroGain=False)
    return np.array([row for row, _ in greedy])


if __name__ == "__main__":
    main()
