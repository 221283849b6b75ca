"""k-means of s2l_jax against faiss, scikit-learn and, where installed, ott-jax and flash-kmeans.

    pip install faiss-cpu scikit-learn matplotlib
    python benchmarks/kmeans.py --n 262144 --t 12 --k 100
    python benchmarks/kmeans.py --n 1000000 --t 12,40 --k 100,1000 --rounds 2 --skip sklearn-elkan
    python benchmarks/kmeans.py --n 10000000 --memory
    python benchmarks/kmeans.py --data runs/math/trajectories.zarr --k 100
    python benchmarks/kmeans.py --growth kmeans-growth.svg

All get the same rows, first centroids and number of iterations, and label every row at the end. They take
turns in one process; the best round of each counts, and its first call, which compiles, is given apart.
Inertia is computed from the labels and centroids that each gives back, in float64. `faiss-256` is faiss as it
comes: it fits 256 rows a centroid, drawn by it. `ott-jax` and `flash-kmeans` take part where they are
installed (the second needs a GPU).

`--memory` runs each alone in a process of its own instead, once, and gives the highest resident memory of
that process, less what it held before the rows were read, as a multiple of the rows.

Rows are made up like trajectories: starts and speeds of heavy tails, decays to a floor, noise of heavy tails.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

import numpy as np

Fit = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]  # labels, centroids


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", default="262144", help="rows; several with commas between, as for --t and --k")
    parser.add_argument("--t", default="12", help="columns")
    parser.add_argument("--k", default="100", help="clusters")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", default="", help="trajectories to cluster in place of made-up rows")
    parser.add_argument("--skip", default="", help="methods to leave out, with commas between")
    parser.add_argument("--only", default="", help="methods to run, with commas between")
    parser.add_argument("--memory", action="store_true", help="peak memory in place of time")
    parser.add_argument("--growth", default="", help="draw time against N, T and K into this .svg")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)  # what --memory runs in a process
    options = parser.parse_args()
    if options.one:
        _measure_memory(options)
    elif options.growth:
        _growth(options)
    else:
        for columns in _numbers(options.t):
            for size in _numbers(options.n):
                for clusters in _numbers(options.k):
                    _compare(options, size, columns, clusters)


def trajectories(size: int, columns: int) -> np.ndarray:
    """Made-up loss trajectories, float32 [N, T]."""
    rng = np.random.default_rng(0)
    rows = np.empty((size, columns), np.float32)
    when = np.linspace(0, 1, columns, dtype=np.float32)
    for begin in range(0, size, 2**18):
        count = min(2**18, size - begin)
        start = rng.lognormal(0.3, 0.6, (count, 1)).astype(np.float32)
        floor = start * rng.beta(1.5, 3, (count, 1)).astype(np.float32)
        speed = rng.lognormal(1.0, 1.0, (count, 1)).astype(np.float32)
        noise = rng.standard_t(4, (count, columns)).astype(np.float32)
        decay = floor + (start - floor) * np.exp(-speed * when)
        rows[begin : begin + count] = np.maximum(decay + 0.05 * start * noise, 0)
    return rows


def _ours(rows: np.ndarray, first: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    from s2l_jax.clustering import KMeans

    fitted = KMeans(len(first), init=first, max_iter=iterations).fit(rows)
    return fitted.labels_, fitted.cluster_centers_


def _faiss(most_points: int) -> Fit:
    def fit(rows: np.ndarray, first: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        kmeans = faiss.Kmeans(
            rows.shape[1],
            len(first),
            niter=iterations,
            nredo=1,
            min_points_per_centroid=1,
            max_points_per_centroid=most_points,
            gpu=getattr(faiss, "get_num_gpus", lambda: 0)() > 0,
        )
        kmeans.train(rows, init_centroids=first)
        return kmeans.index.search(rows, 1)[1][:, 0], kmeans.centroids

    return fit


def _sklearn(algorithm: str) -> Fit:
    def fit(rows: np.ndarray, first: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.cluster import KMeans

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of not having converged
            fitted = KMeans(
                len(first), init=first, n_init=1, max_iter=iterations, tol=0, algorithm=algorithm
            ).fit(rows)
        return fitted.labels_, fitted.cluster_centers_

    return fit


def _ott(rows: np.ndarray, first: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    import jax
    from ott.tools import k_means

    def given(*_: object) -> jax.Array:
        return jax.numpy.asarray(first)

    # No early stop: all others do as many iterations as they are told.
    found = k_means.k_means(
        jax.numpy.asarray(rows),
        len(first),
        init=given,
        n_init=1,
        tol=0.0,
        min_iterations=iterations,
        max_iterations=iterations,
    )
    labels, centroids = jax.block_until_ready((found.assignment, found.centroids))
    return np.asarray(labels), np.asarray(centroids)


def _flash(rows: np.ndarray, first: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    import torch
    from flash_kmeans import batch_kmeans_Euclid

    points, start = (torch.from_numpy(part).cuda()[None] for part in (rows, first))
    labels, centroids, _ = batch_kmeans_Euclid(
        points, n_clusters=len(first), tol=0.0, max_iters=iterations, init_centroids=start
    )
    torch.cuda.synchronize()
    return labels[0].cpu().numpy(), centroids[0].float().cpu().numpy()


METHODS: dict[str, tuple[str, Fit]] = {  # name: the package it needs, and its fit
    "s2l_jax": ("s2l_jax", _ours),
    "faiss": ("faiss", _faiss(2**30)),
    "faiss-256": ("faiss", _faiss(256)),
    "sklearn-lloyd": ("sklearn", _sklearn("lloyd")),
    "sklearn-elkan": ("sklearn", _sklearn("elkan")),
    "ott-jax": ("ott", _ott),
    "flash-kmeans": ("flash_kmeans", _flash),
}


def _compare(options: argparse.Namespace, size: int, columns: int, clusters: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = _rows(options, size, columns)
        size, columns = rows.shape
        first = _first(rows, clusters)
        print(f"\nN {size:,}  T {columns}  K {clusters:,}  {options.iterations} iterations")
        if options.memory:
            path = pathlib.Path(folder) / "rows.npy"
            np.save(path, rows)
            del rows
            for name in _methods(options):
                found = _in_a_process(options, name, path, clusters)
                print(f"  {name:14s} {found['mib']:9,.0f} MiB  {found['times']:6.2f} x the rows")
            return
        _print_times(_take_turns(options, rows, first), size, columns, clusters, options.iterations)


def _take_turns(
    options: argparse.Namespace, rows: np.ndarray, first: np.ndarray
) -> dict[str, tuple[float, float, float]]:
    """For each method the time of the first call, the best of the others, and the inertia."""
    found: dict[str, tuple[float, float, float]] = {}
    for number in range(options.rounds + 1):
        for name in _methods(options):
            start = time.perf_counter()
            labels, centroids = METHODS[name][1](rows, first, options.iterations)
            seconds = time.perf_counter() - start
            if number == 0:
                found[name] = seconds, math.inf, _inertia(rows, labels, centroids)
            else:
                before, best, inertia = found[name]
                found[name] = before, min(best, seconds), inertia
    return found


def _print_times(
    found: dict[str, tuple[float, float, float]], size: int, columns: int, clusters: int, iterations: int
) -> None:
    print("  method            time      ratio     inertia    ratio   first call")
    ours = found.get("s2l_jax", next(iter(found.values())))  # ratios are to ours, where it takes part
    for name, (first, best, inertia) in found.items():
        print(
            f"  {name:14s} {best:8.3f} s {best / ours[1]:8.2f} {inertia:11.6g} {inertia / ours[2]:8.5f} "
            f"{first:9.2f} s"
        )
    if "s2l_jax" not in found:
        return
    per_iteration = ours[1] / (iterations + 1)
    flops, traffic = 2 * size * clusters * columns, 4 * size * columns
    print(
        f"  s2l_jax, a pass: {1e3 * per_iteration:.2f} ms. All distances would be {flops / 1e9:.2f} GFLOP "
        f"({flops / per_iteration / 1e9:.0f} GFLOP/s); the rows are {traffic / 1e9:.3f} GB "
        f"({traffic / per_iteration / 1e9:.1f} GB/s)"
    )


def _in_a_process(
    options: argparse.Namespace, name: str, path: pathlib.Path, clusters: int
) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, "--data", str(path), "--k", str(clusters)]
    command += ["--iterations", str(options.iterations)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure_memory(options: argparse.Namespace) -> None:
    package, fit = METHODS[options.one]
    importlib.import_module(
        {"s2l_jax": "s2l_jax.clustering", "sklearn": "sklearn.cluster"}.get(package, package)
    )
    if package in ("s2l_jax", "ott"):
        import jax

        jax.block_until_ready(jax.numpy.zeros(1))
    before = _resident()
    rows = np.load(options.data)
    fit(rows, _first(rows, int(options.k)), options.iterations)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"mib": peak / 2**20, "times": peak / rows.nbytes}))


def _resident() -> int:
    """Bytes of memory that this process holds now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _growth(options: argparse.Namespace) -> None:
    """Time of s2l_jax against N, T and K, each with the others held."""
    held = {"N": 262_144, "T": 12, "K": 100}
    ranges = {
        "N": [65_536, 131_072, 262_144, 524_288, 1_048_576, 2_097_152],
        "T": [6, 12, 24, 48, 96],
        "K": [50, 100, 200, 400, 800],
    }
    lines: dict[str, list[tuple[int, float]]] = {}
    for axis, values in ranges.items():
        lines[axis] = []
        for value in values:
            shape = {**held, axis: value}
            rows = trajectories(shape["N"], shape["T"])
            first = _first(rows, shape["K"])
            times = []
            for _ in range(options.rounds + 1):
                start = time.perf_counter()
                _ours(rows, first, options.iterations)
                times.append(time.perf_counter() - start)
            lines[axis].append((value, min(times[1:])))
            print(f"{axis} {value:>9,}  {min(times[1:]):.3f} s", flush=True)
        values_, seconds = np.log(np.array(lines[axis])).T
        print(f"{axis}: time grows with {axis} to the power of {np.polyfit(values_, seconds, 1)[0]:.2f}")
    _draw(lines, held, options.growth)


def _draw(lines: dict[str, list[tuple[int, float]]], held: dict[str, int], path: str) -> None:
    """A panel for each axis, both scales logarithmic, with a line of slope 1 through the last point."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(lines), figsize=(10, 3.4), sharey=True, layout="constrained")
    for panel, (axis, line) in zip(panels, lines.items(), strict=True):
        values, seconds = np.array(line).T
        panel.loglog(values, seconds[-1] * values / values[-1], "--", color="0.7", label="slope 1")
        panel.loglog(values, seconds, "o-", label="measured")
        panel.set_xticks(values, [f"{int(v) // 1024}k" if v >= 10_000 else f"{int(v)}" for v in values])
        panel.minorticks_off()
        panel.set_xlabel(axis)
        panel.set_title(", ".join(f"{name} = {value:,}" for name, value in held.items() if name != axis))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds, 20 iterations")
    panels[0].legend()
    figure.savefig(path, metadata={"Date": None})


def _methods(options: argparse.Namespace) -> list[str]:
    known = set(METHODS)
    asked = set(filter(None, options.only.split(","))) or known
    left_out = set(filter(None, options.skip.split(",")))
    if unknown := (asked | left_out) - known:
        raise SystemExit(f"no method {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    return [
        name
        for name, (package, _) in METHODS.items()
        if name in asked - left_out and importlib.util.find_spec(package) is not None
    ]


def _rows(options: argparse.Namespace, size: int, columns: int) -> np.ndarray:
    if not options.data:
        return trajectories(size, columns)
    from s2l_jax.trajectories.load import load_trajectories

    return np.ascontiguousarray(load_trajectories(options.data).losses)


def _first(rows: np.ndarray, clusters: int) -> np.ndarray:
    """Distinct rows, drawn."""
    drawn = np.random.default_rng(1).choice(len(rows), min(len(rows), 4 * clusters), replace=False)
    distinct = np.unique(rows[np.sort(drawn)], axis=0)
    return np.random.default_rng(2).permutation(distinct)[:clusters].copy()


def _inertia(rows: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> float:
    total = 0.0
    for begin in range(0, len(rows), 2**18):
        part = slice(begin, begin + 2**18)
        total += float(np.square(rows[part] - centroids[labels[part]]).sum(dtype=np.float64))
    return total


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
