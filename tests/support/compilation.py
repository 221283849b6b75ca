"""Programs that compile in a fraction of the time and run slower, for tests with many of them."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def quickly_compiled() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
