"""The theorem's numbers on cases worked by hand, and on planted ones whose answer is known."""

import jsonschema
import numpy as np
import pytest

from s2l_jax.analysis.similarity import Pairs, distances, explained
from s2l_jax.analysis.subset_error import stratum_weights, subset_errors
from s2l_jax.analysis.theory import Measurements, measure_theory
from s2l_jax.report.diagnostic import Measured, Verdict
from s2l_jax.report.diagnostics.theory import gradient_similarity, subset_gradient
from s2l_jax.report.findings import Findings
from s2l_jax.report.load import results_schema
from s2l_jax.report.section import all_sections


def squares(x, y, thetas):
    """Losses (x theta - y)^2 / 2 of linear regression in one number, and their gradients x (x theta - y)."""
    apart = x[:, None] * np.asarray(thetas) - y[:, None]
    return apart**2 / 2, x[:, None] * apart


def by_hand():
    """Four rows in two clusters; the target goes from 0 over 1 to 2, where its gradients are taken.

    Rows 0 and 1 are the same, and rows 2 and 3 have the same losses at 0 alone: their gradients are opposite.
    """
    x, y = np.array([1.0, 1.0, 1.0, -1.0]), np.array([2.0, 2.0, 1.0, 1.0])
    losses, gradients = squares(x, y, (0.0, 1.0, 2.0))
    labels = np.array([0, 0, 1, 1])
    taken = np.array([True, False, True, False])
    at = {step: gradients[:, [step]] for step in range(3)}
    return Measurements(losses, losses + np.array([0.0, 3, 4]), at, labels, np.zeros(4, int), taken)


def test_a_case_by_hand():
    found = by_hand()
    # Losses 2, .5, 0 twice; .5, 0, .5 and .5, 2, 4.5: distances 0 and sqrt(2^2 + 4^2) within clusters.
    assert found.trajectories.tolist() == [[2, 0.5, 0], [2, 0.5, 0], [0.5, 0, 0.5], [0.5, 2, 4.5]]
    numbers = measure_theory(found)
    assert (numbers["num_rows"], numbers["num_clusters"], numbers["num_taken"]) == (4, 2, 2)
    assert numbers["constants"]["epsilon"] == pytest.approx({"mean": 20**0.5 / 2, "largest": 20**0.5})
    assert numbers["constants"]["delta"] == {"mean": 5, "largest": 5}
    first, _, last = numbers["checkpoints"]
    # At 0 gradients are -2, -2, -1, +1: within clusters 0 and 2 apart, cosines 1 and -1.
    within, between = first["distances"]["within"], first["distances"]["between"]
    assert within["num_pairs"] == 2
    assert (within["gradients"], within["largest"], within["cosine"]) == pytest.approx((1, 2, 0))
    # Between them 1, 3, 1, 3.
    assert (between["num_pairs"], between["gradients"], between["cosine"]) == pytest.approx((4, 2, 0))
    assert first["distances"]["sources"] == {"num_pairs": 0}
    assert first["largest_gradient"] == 2
    # Their mean is -1, squared distances from it 1 + 1 + 0 + 4; within clusters 0 + 2.
    assert first["explained"]["share"] == pytest.approx(1 - 2 / 6)
    # Rows 0 and 2 have -2 and -1: their mean is -1.5, and also weighted, by two rows each; half off the mean.
    assert (first["errors"]["subset_plain"], first["errors"]["subset_weighted"]) == pytest.approx((0.5, 0.5))
    # A draw from the second cluster is -1 or +1: -1.5 or -.5, always half as far. Of two of all four rows the
    # means are -2, -1.5, -.5, -1.5, -.5, 0: (1 + 4 / 2 + 1) / 6 away from -1.
    assert first["errors"]["by_cluster_weighted"] == pytest.approx({"mean": 0.5, "low": 0.5, "high": 0.5})
    assert first["errors"]["random"]["mean"] == pytest.approx(4 / 6, abs=0.06)
    # At 2 they are 0, 0, 1, 3.
    assert last["distances"]["within"]["gradients"] == pytest.approx(1)
    assert last["distances"]["between"]["gradients"] == pytest.approx(2)


def test_unequal_clusters_need_weights():
    gradients = np.array([[0.0], [0.0], [0.0], [4.0]])
    labels, taken = np.array([0, 0, 0, 1]), np.array([True, False, False, True])
    assert stratum_weights(taken, labels) == pytest.approx([3 / 4, 0, 0, 1 / 4])
    found = subset_errors(gradients, taken, labels, np.zeros(4, int))
    # The mean is 1; of the two taken 2 without weights.
    assert (found["subset_plain"], found["subset_weighted"]) == pytest.approx((1, 0))
    assert found["by_cluster_weighted"]["high"] == pytest.approx(0)
    assert found["by_source_weighted"] == pytest.approx(found["by_source_plain"], abs=0.3)


def test_nothing_to_judge_is_said_and_not_made_up():
    still = subset_errors(np.zeros((3, 2)), np.array([True, False, False]), np.arange(3), np.zeros(3, int))
    assert set(still.values()) == {None}
    assert explained(np.ones((4, 2)), np.array([0, 0, 1, 1]), np.zeros(4, int))["share"] is None


def planted(alike, *, clusters=20, size=16, seed=0):
    """Clusters of two sources whose gradients are alike, or are those of any row of the source."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(clusters), size)
    sources = labels % 2
    centres = rng.normal(0, 1, (clusters, 6)) + 5 * (np.arange(clusters) % 2)[:, None]
    points = centres[labels] + rng.normal(0, 0.1, (clusters * size, 6))
    gradients = np.tanh(points @ rng.normal(0, 0.5, (6, 30))) + rng.normal(0, 0.1, (len(points), 30))
    if not alike:
        for source in (0, 1):
            rows = np.flatnonzero(sources == source)
            gradients[rows] = gradients[rng.permutation(rows)]
    taken = np.zeros(len(labels), bool)
    taken[:: size // 2] = True
    return Measurements(points, points + 0.3, {0: gradients, 50: 0.1 * gradients}, labels, sources, taken)


@pytest.mark.parametrize("alike", [True, False])
def test_a_planted_truth_is_found(alike):
    numbers = measure_theory(planted(alike)) | {"run": "s2l"}
    first, second = numbers["checkpoints"]
    assert (first["rank_correlation"] > 0.3) == alike
    assert (first["p_value"] < 0.05) == (first["explained"]["p_value"] < 0.05) == alike
    beyond = first["explained"]["share"] - first["explained"]["by_chance"]
    assert beyond > 0.5 if alike else abs(beyond) < 0.05
    errors = first["errors"]
    ratio = errors["by_cluster_weighted"]["mean"] / errors["by_source_weighted"]["mean"]
    assert ratio < 0.6 if alike else ratio > 0.9
    # What is a tenth as long throughout is as alike.
    assert second["explained"] == pytest.approx(first["explained"])
    assert second["distances"]["within"]["gradients"] == pytest.approx(
        first["distances"]["within"]["gradients"] / 10
    )
    results = {"theory": numbers}
    jsonschema.validate(numbers, results_schema()["properties"]["theory"])
    said = list(gradient_similarity(Findings(results)))
    assert [type(each) for each in said] == [Measured, Measured] + ([] if alike else [Verdict])
    assert said[0].value.startswith("yes: at 2 of 2" if alike else "no: at 0 of 2")
    (judged, *_) = subset_gradient(Findings(results))
    assert judged.value.startswith("yes" if alike else "no")
    (section,) = (each for each in all_sections(Findings(results)) if each.key == "theory")
    assert [row[0] for row in section.rows] == ["0", "50"]
    assert len(section.views[""]) == 2


def test_a_subset_that_is_no_copy_of_the_pool_is_told():
    # All weight on rare rows of a large gradient: the mean of the clusters is far from that of rows.
    drawn = {"mean": 1.0, "low": 1.0, "high": 1.0}
    errors = dict.fromkeys(("random", "by_source_weighted", "by_cluster_plain"), drawn)
    errors |= {"by_cluster_weighted": {"mean": 1.5}}
    found = Findings({"theory": {"checkpoints": [{"errors": errors}]}})
    measured, verdict = subset_gradient(found)
    assert measured.value == "no: errors of 1.50 times theirs; without weights 1.00"
    assert "1.50 times as far" in verdict.words


def test_pairs_of_each_kind():
    labels, sources = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 0, 0, 1, 1, 1])
    pairs = Pairs.drawn(labels, sources)
    as_sets = {
        name: {tuple(pair) for pair in getattr(pairs, name).T} for name in ("within", "between", "sources")
    }
    assert as_sets["within"] == {(0, 1), (3, 4), (3, 5), (4, 5)}
    assert as_sets["between"] == {(0, 2), (1, 2)}
    assert as_sets["sources"] == {(a, b) for a in (0, 1, 2) for b in (3, 4, 5)}
    assert pairs.of_source.shape == (2, 6)
    points = np.array([[0.0, 0], [3, 4], [0, 0], [0, 0], [0, 0], [0, 1]])
    assert distances(points, np.array([[0, 3], [1, 5]])).tolist() == [5, 1]
    large = np.repeat([0, 1], 2000)
    for found in vars(Pairs.drawn(large, np.zeros(4000, int))).values():
        assert (found[0] != found[1]).all()
        assert found.shape[1] <= 10_000
