"""The embedded held-out rows; their answers are exact texts."""

from collections.abc import Iterable
from typing import Any

from s2l_jax.evaluation.tasks.benchmark import BENCHMARKS, Benchmark


def _rows() -> Iterable[dict[str, Any]]:
    from s2l_jax.data.datasets import synthetic

    return synthetic.heldout_rows()


SYNTHETIC = Benchmark("synthetic", "exact", embedded=_rows)
BENCHMARKS.enter(SYNTHETIC.name, SYNTHETIC)
