"""The selection stage: methods in one workdir, nested and token budgets, exports, runs without a model."""

import json
import pathlib
import sys

import numpy as np
import pytest

from s2l_jax import load_trajectories
from s2l_jax.config import load, run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.selection import METHODS, Selection, SelectionInputs, select

FOLDER = pathlib.Path(__file__).parent
FROM_LOSSES = [name for name, method in METHODS.items() if method.needs == {"trajectories"}]


@pytest.fixture(scope="module")
def config_of(tiny_checkpoint):
    sys.path.insert(0, str(FOLDER))
    try:
        import pipeline_kills
    finally:
        sys.path.pop(0)

    def make(**runs):
        config = pipeline_kills.small_config(str(tiny_checkpoint))
        config.mesh.data = -1
        config.evaluation.path = ""
        config.selection.runs = {}
        for name, fields in runs.items():
            config.selection.runs[name] = run(**{"train_target": False} | fields)
        return config

    return make


@pytest.fixture(scope="module")
def done(config_of, tmp_path_factory):
    """A workdir with a run of each method that needs losses or lengths, and of each kind of budget."""
    runs = {name: {"method": name} for name in [*FROM_LOSSES, "random", "full", "longest"]}
    runs["part"] = {"method": "s2l", "budget_fraction": 0.1}
    runs["inner"] = {"method": "s2l", "budget": 20, "within": "s2l"}
    runs["tokens"] = {"method": "least_confidence", "budget_tokens": 1500}
    runs["inner_tokens"] = {"method": "least_confidence", "budget_tokens": 500, "within": "tokens"}
    runs["scaled"] = {"method": "s2l", "log_losses": True, "standardise": True, "first": 2}
    config = config_of(**runs)
    config.selection.exports = "jsonl,messages"
    workdir = tmp_path_factory.mktemp("methods")
    return config, workdir, run_pipeline(config, workdir)


def chosen(workdir, name):
    return Selection.load(workdir / "selection" / name)


@pytest.mark.parametrize("method", [*FROM_LOSSES, "longest"])
def test_each_method_chooses_what_the_library_does(done, method):
    _, workdir, results = done
    ours = chosen(workdir, method)
    whole = chosen(workdir, "full")
    losses = load_trajectories(workdir / "trajectories.zarr").losses
    lengths = None
    if method == "longest":
        manifests = sorted((workdir / "pool").glob("*/manifest.json"))
        lengths, prompts = (
            np.load(manifests[0].parent / f"{name}.npy") for name in ("lengths", "prompt_lengths")
        )
        lengths = lengths - prompts
    inputs = SelectionInputs(
        trajectories=losses, ids=whole.ids, sources=whole.sources, response_tokens=lengths
    )
    by_hand = select(inputs, 60, method=method, num_clusters=3)
    assert np.array_equal(ours.indices, by_hand.indices)
    assert results["selections"][method]["options"] == by_hand.options


def test_budgets(done):
    _, workdir, results = done
    assert len(chosen(workdir, "part").indices) == 24
    assert results["selections"]["part"]["budget"] == 24
    assert results["selections"]["part"]["asked"] == {"budget": 0.1, "unit": "examples"}
    inner, outer = chosen(workdir, "inner"), chosen(workdir, "s2l")
    assert len(inner.indices) == 20
    assert set(inner.indices) < set(outer.indices)
    tokens = chosen(workdir, "tokens")
    assert 1500 - 96 < tokens.num_tokens[tokens.indices].sum() <= 1500
    small = chosen(workdir, "inner_tokens")
    assert set(small.indices) < set(tokens.indices)
    assert small.num_tokens[small.indices].sum() <= 500
    scaled = chosen(workdir, "scaled")
    assert scaled.centroids.shape[1] == 2
    assert (scaled.options["log_losses"], scaled.options["standardise"]) == (True, True)


def test_records_leave_out_options_at_their_defaults(done):
    _, workdir, _ = done
    stored = {
        name: json.loads((workdir / "selection" / name / "stage.json").read_text())["settings"]
        for name in ("s2l", "scaled", "random")
    }
    old = {"method", "budget", "seed", "num_clusters", "every", "stratify_by", "min_cluster_size"}
    made_from = {"pool_ids_sha256", "trajectories_sha256"}
    assert set(stored["s2l"]) == old | made_from
    assert set(stored["scaled"]) == old | made_from | {"first", "log_losses", "standardise"}
    assert set(stored["random"]) == {"method", "budget", "seed", "pool_ids_sha256"}


def test_exports_are_added_to_what_is_there(done):
    config, workdir, _ = done
    folder = workdir / "selection" / "s2l"
    assert not (folder / "subset.parquet").exists()
    stamp = (folder / "subset.jsonl").stat().st_mtime_ns
    config.selection.exports = "parquet,messages"
    run_pipeline(config, workdir)
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(folder / "subset.parquet")
    assert table["s2l_id"].to_pylist() == chosen(workdir, "s2l").ids[chosen(workdir, "s2l").indices].tolist()
    assert (folder / "subset.jsonl").stat().st_mtime_ns == stamp
    lines = (folder / "messages.jsonl").read_text().splitlines()
    assert len(lines) == 60


def test_the_table_has_the_losses(done):
    pq = pytest.importorskip("pyarrow.parquet")
    _, workdir, _ = done
    losses = load_trajectories(workdir / "trajectories.zarr").losses
    for name in ("s2l", "random"):
        table = pq.read_table(workdir / "selection" / name / "clusters.parquet")
        assert np.array_equal(np.stack(table["losses"].to_numpy()), losses)


@pytest.fixture
def losses(tmp_path):
    rows = np.random.default_rng(0).gamma(2, 1, (500, 6)).astype(np.float32)
    np.save(tmp_path / "losses.npy", rows)
    return tmp_path / "losses.npy", rows


def test_select_only_needs_no_pool_and_no_model(losses, tmp_path):
    path, rows = losses
    config = load("select_only")
    config.trajectories.path = str(path)
    config.clustering.num_clusters = 7
    config.selection.budget = 50
    run_pipeline(config, tmp_path / "run")
    ours = chosen(tmp_path / "run", "s2l")
    assert np.array_equal(ours.indices, select(rows, 50, num_clusters=7, stratify_by="none").indices)
    for name in config.selection.runs:
        assert len(chosen(tmp_path / "run", name).indices) == 50
        assert not (tmp_path / "run" / "selection" / name / "subset.jsonl").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget_tokens": 100}, "a budget in tokens needs num_tokens.*run the pool stage"),
        ({"method": "longest"}, "needs response_tokens, which is missing: run the pool stage"),
        ({"method": "random", "stratify_by": "source"}, "needs sources"),
        ({"method": "given"}, "method='given' needs selection.path"),
    ],
)
def test_what_select_only_cannot_do(losses, tmp_path, fields, message):
    config = load("select_only")
    config.trajectories.path = str(losses[0])
    config.selection.runs = {}
    config.selection.runs.it = run(train_target=False, **fields)
    with pytest.raises(InputError, match=message):
        run_pipeline(config, tmp_path / "run")
