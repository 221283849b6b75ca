"""What two runs of one experiment must have alike, on whatever devices and processes they ran."""

import json

import numpy as np

from s2l_jax.clustering import adjusted_rand_index
from s2l_jax.selection import Selection
from s2l_jax.trajectories.load import load_trajectories


def assert_alike(ours, theirs):
    """In the design's sense of equal: losses to float tolerance, ARI >= 0.999, Jaccard >= 0.99."""
    found, wanted = (load_trajectories(workdir / "trajectories.zarr") for workdir in (ours, theirs))
    assert found.steps.tolist() == wanted.steps.tolist()
    np.testing.assert_allclose(found.losses, wanted.losses, atol=1e-4)
    names = sorted(each.name for each in (theirs / "selection").iterdir())
    assert sorted(each.name for each in (ours / "selection").iterdir()) == names
    for name in names:
        chosen, other = (Selection.load(workdir / "selection" / name) for workdir in (ours, theirs))
        mine, its = set(chosen.indices.tolist()), set(other.indices.tolist())
        assert len(mine & its) >= 0.99 * len(mine | its), name
        assert adjusted_rand_index(chosen.labels, other.labels) >= 0.999, name
    results, expected = (json.loads((workdir / "results.json").read_text()) for workdir in (ours, theirs))
    for part, number in (("targets", "final_loss"), ("evaluations", "heldout_loss")):
        assert results[part].keys() == expected[part].keys()
        for name, values in expected[part].items():
            got = results[part][name]
            pair = [(each.get("overall") or each)[number] for each in (got, values)]
            assert abs(pair[0] - pair[1]) < 1e-3, (part, name, pair)
    refreshes = [each["trajectories"]["refreshes"] for each in (results, expected)]
    for mine, its in zip(*refreshes, strict=True):
        assert mine["columns"] == its["columns"]
        assert abs(mine["adjusted_rand"] - its["adjusted_rand"]) < 1e-3
