"""From a config to results: the stages in order, and what a workdir holds."""

from s2l_jax.pipeline.run import run_pipeline

__all__ = ["run_pipeline"]
