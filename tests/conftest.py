"""Shared fixtures: eight host devices, small models, and data that some machines have."""

import atexit
import collections
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # All processes of one session share compiled programs; nothing is left behind.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="s2l_jax_programs")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import pytest

from s2l_jax.parallel.mesh import make_mesh
from tests.support.compilation import quickly_compiled

REPOSITORY = pathlib.Path(__file__).parent.parent

_SECONDS = "s2l_jax/seconds"  # in pytest's cache: the longest that each file of tests took
_taken: collections.Counter[str] = collections.Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that took longest: several processes then end at about the same time."""
    seconds = config.cache.get(_SECONDS, {})
    items.sort(key=lambda item: -seconds.get(item.nodeid.partition("::")[0], 0.0))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what each file takes; with several processes in the one that the others report to."""
    _taken[report.nodeid.partition("::")[0]] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remember it for the next session."""
    if not hasattr(session.config, "workerinput"):
        before = session.config.cache.get(_SECONDS, {})
        longest = {file: round(max(taken, before.get(file, 0.0)), 1) for file, taken in _taken.items()}
        session.config.cache.set(_SECONDS, before | longest)


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """Real data for development; absent on most machines."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.exists():
        pytest.skip("the development data is not on this machine")
    return path


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """For modules whose time is compiling: see `quickly_compiled`."""
    with quickly_compiled():
        yield


@pytest.fixture(scope="session")
def one_device_mesh() -> jax.sharding.Mesh:
    """A mesh of one device."""
    return make_mesh(1, 1, 1, devices=jax.devices()[:1])


@pytest.fixture(scope="session")
def cube_mesh() -> jax.sharding.Mesh:
    """Two devices on each axis."""
    return make_mesh(2, 2, 2)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> pathlib.Path:
    """A GPT-NeoX of 0.1M random parameters with the embedded data's tokeniser, in HF layout."""
    import jax.numpy as jnp

    from s2l_jax.data.datasets.synthetic_tokenizer import write_tokenizer
    from s2l_jax.models import hf
    from s2l_jax.models.families import decoder_config
    from s2l_jax.models.parameters import init_params

    path = tmp_path_factory.mktemp("tiny")
    write_tokenizer(path)
    hf_config = {
        "model_type": "gpt_neox",
        "vocab_size": 448,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "rotary_pct": 0.25,
        "max_position_embeddings": 128,
        "use_parallel_residual": True,
    }
    config = decoder_config(hf_config, "tiny")
    params = init_params(config, jax.random.key(0))
    hf.save_model(path, params, config, hf_config, dtype=jnp.float32)
    return path
