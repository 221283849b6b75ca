"""Rows in the pool's schema, such as a held-out part of it."""

from s2l_jax.evaluation.tasks.benchmark import BENCHMARKS, Benchmark

POOL = Benchmark("pool", "any")  # or as evaluation.answer_type says
BENCHMARKS.enter(POOL.name, POOL)
