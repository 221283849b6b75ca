"""Pools of processes that tests of programs share."""

import pytest

from s2l_jax.evaluation.execution.programs import ProgramPool
from tests.support.sandbox import confined_pool


@pytest.fixture(scope="module")
def pool():
    with confined_pool() as pool:
        yield pool


@pytest.fixture(scope="module", params=[True, False], ids=["confined", "unconfined"])
def each_pool(request):
    """Limits hold whether a program is confined or not."""
    with confined_pool() if request.param else ProgramPool(1, confined=False) as pool:
        yield pool
