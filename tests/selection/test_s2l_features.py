"""S2L on other features than losses: the same sampling, on clusters of what is named."""

import numpy as np
import pytest

from s2l_jax.config import default, run
from s2l_jax.config.runs import method_of, resolved_run
from s2l_jax.errors import InputError
from s2l_jax.selection import SelectionInputs, select


@pytest.fixture(scope="module")
def known():
    rng = np.random.default_rng(0)
    return SelectionInputs(
        trajectories=rng.gamma(2, 1, (400, 5)).astype(np.float32),
        hidden_states=rng.standard_normal((400, 8)).astype(np.float32),
        sources=rng.choice(["a", "b"], 400, p=[0.7, 0.3]),
    )


@pytest.mark.parametrize("stratify_by", ["source", "none"])
@pytest.mark.parametrize("features", ["hidden_states", "loss_falls"])
def test_they_are_clustered_and_sampled_as_trajectories_are(known, features, stratify_by):
    losses = known.trajectories
    points = {"hidden_states": known.hidden_states, "loss_falls": losses[:, :-1] - losses[:, 1:]}[features]
    found = select(known, 60, num_clusters=6, features=features, stratify_by=stratify_by)
    same = select(points, 60, sources=known.sources, num_clusters=6, stratify_by=stratify_by)
    assert found.indices.tolist() == same.indices.tolist()
    assert np.array_equal(found.centroids, same.centroids)
    assert set(found.indices) != set(select(known, 60, num_clusters=6, stratify_by=stratify_by).indices)


def test_only_what_is_clustered_is_needed(known):
    states = SelectionInputs(hidden_states=known.hidden_states)
    assert len(select(states, 60, num_clusters=6, features="hidden_states").indices) == 60
    with pytest.raises(InputError, match="needs trajectories"):
        select(states, 60, num_clusters=6)
    with pytest.raises(InputError, match="needs hidden_states"):
        select(known.trajectories, 60, num_clusters=6, features="hidden_states")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"features": "gradients"}, "features must be one of trajectories, hidden_states, loss_falls"),
        ({"features": "loss_falls", "num_checkpoints": 1}, "needs two checkpoints, and there is one"),
    ],
)
def test_what_there_is_not(known, options, reason):
    with pytest.raises(InputError, match=reason):
        select(known, 60, num_clusters=6, **options)


def test_a_run_of_the_pipeline_needs_and_says_what_its_features_do():
    config = default()
    config.selection.runs.states = run(method="s2l", features="hidden_states", pooling="last")
    config.selection.runs.losses = run(method="s2l")
    states, losses = (method_of(resolved_run(config, name)) for name in ("states", "losses"))
    assert (states.needs, losses.needs) == ({"hidden_states"}, {"trajectories"})
    assert {"pooling", "layer", "checkpoint"} == set(states.feature_options)
    assert not losses.feature_options
