"""Shared fixtures: eight host devices, small models, and data that some machines have."""

import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import pytest

from s2l_jax.parallel.mesh import make_mesh

REPOSITORY = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """Real data for development; absent on most machines."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.exists():
        pytest.skip("the development data is not on this machine")
    return path


@pytest.fixture(scope="session")
def one_device_mesh() -> jax.sharding.Mesh:
    """A mesh of one device."""
    return make_mesh(1, 1, 1, devices=jax.devices()[:1])


@pytest.fixture(scope="session")
def cube_mesh() -> jax.sharding.Mesh:
    """Two devices on each axis."""
    return make_mesh(2, 2, 2)
