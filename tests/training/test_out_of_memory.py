"""Out of device memory: what is said of it."""

import jax.numpy as jnp
import pytest

from s2l_jax.config import default
from s2l_jax.errors import InputError
from s2l_jax.training.out_of_memory import advice, explained


def test_it_names_the_largest_arrays_and_what_to_change():
    config = default()
    here = jnp.zeros((3000, 1111), jnp.float32)
    with pytest.raises(InputError) as found, explained(config, "target"):
        jnp.zeros(2**46, jnp.float32).block_until_ready()
    said = str(found.value)
    assert "1 x float32[3000,1111] 13 MiB" in said
    assert "--config.target.train.remat=full" in said
    assert "--config.target.train.accumulation=2" in said
    assert "\n" not in said
    assert here.shape


@pytest.mark.parametrize("what", ["proxy", "sweep"])
def test_pinned_rows_may_be_what_is_too_large(what):
    with pytest.raises(InputError, match=r"trajectories\.pinned_mb=1024"), explained(default(), what):
        jnp.zeros(2**46, jnp.float32).block_until_ready()


def test_other_faults_are_left_as_they_are():
    with pytest.raises(ZeroDivisionError), explained(default(), "proxy"):
        1 / 0  # noqa: B018


@pytest.mark.parametrize(
    ("what", "field"),
    [
        ("sweep", "trajectories.batch_tokens=8192"),
        ("evaluation", "evaluation.batch_size=32"),
        ("proxy", "proxy.train.remat=full"),
        ("features", "selection.states.batch_tokens=8192"),
        ("features", "selection.gradients.batch_tokens=1024"),
        ("features", "selection.gradients.dims=4096"),
        ("theory", "target.train.remat=full"),
        ("theory", "analysis.batch_tokens="),
    ],
)
def test_each_part_has_a_field_of_its_own(what, field):
    assert any(field in change for change in advice(default(), what, {"temporaries": 1.0}, 1.0))


def test_what_is_set_already_is_not_advised_again():
    config = default()
    config.target.train.remat, config.target.lora.rank = "full", 8
    changes = advice(config, "target", {"parameters": 1.0, "temporaries": 1.0}, 1.0)
    assert not [change for change in changes if "remat" in change or "lora" in change]
    assert changes[0].startswith("a larger mesh.fsdp")
