"""The selection stage: methods in one workdir, nested and token budgets, exports, runs without a model."""

import json

import numpy as np
import pytest

from s2l_jax.config import load, run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.selection import METHODS, Selection, SelectionInputs, select
from tests.support.pipeline_kills import small_config

pytestmark = pytest.mark.long

FROM_LOSSES = [name for name, method in METHODS.items() if method.needs == {"trajectories"}]


@pytest.fixture(scope="module")
def config_of(tiny_checkpoint):
    def make(**runs):
        config = small_config(str(tiny_checkpoint))
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
    runs["inner"] = {"method": "s2l", "budget": 20, "prefix_of": "s2l"}
    runs["tokens"] = {"method": "least_confidence", "budget_tokens": 1500}
    runs["inner_tokens"] = {"method": "least_confidence", "budget_tokens": 500, "prefix_of": "tokens"}
    runs["scaled"] = {"method": "s2l", "log_losses": True, "standardise": True, "num_checkpoints": 2}
    for name, stratify_by in (("apart", "source"), ("together", "none")):
        runs[name] = {"method": "s2l", "budget": 30, "stratify_by": stratify_by, "seeds": (0, 1)}
    config = config_of(**runs)
    config.selection.exports = ("jsonl", "messages")
    folder = tmp_path_factory.mktemp("methods")
    np.save(folder / "losses.npy", np.random.default_rng(0).gamma(2, 1, (240, 3)).astype(np.float32))
    config.trajectories.path = str(folder / "losses.npy")
    return config, folder / "run", run_pipeline(config, folder / "run")


def chosen(workdir, name):
    return Selection.load(workdir / "selection" / name)


@pytest.mark.parametrize("method", [*FROM_LOSSES, "longest"])
def test_each_method_chooses_what_the_library_does(done, method):
    config, workdir, results = done
    ours = chosen(workdir, method)
    whole = chosen(workdir, "full")
    losses = np.load(config.trajectories.path)
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


def test_records_hold_the_options_of_the_method_and_no_other(done):
    _, workdir, _ = done
    stored = {
        name: json.loads((workdir / "selection" / name / "stage.json").read_text())["settings"]
        for name in ("s2l", "scaled", "random")
    }
    common = {"method", "budget", "budget_fraction", "budget_tokens", "prefix_of", "seed"}
    common |= {"drop_unlearnt", "drop_rising", "proxy"}
    for name in stored:
        own = common | set(METHODS["random" if name == "random" else "s2l"].options)
        made_from = {"pool.ids_sha256"} | ({"trajectories.sha256"} if name != "random" else set())
        assert set(stored[name]) == {f"selection.runs.{name}.{field}" for field in own} | made_from
    assert stored["scaled"]["selection.runs.scaled.log_losses"] is True
    assert stored["s2l"]["selection.runs.s2l.num_clusters"] == 3


def test_exports_are_added_to_what_is_there(done):
    config, workdir, _ = done
    folder = workdir / "selection" / "s2l"
    assert not (folder / "subset.parquet").exists()
    stamp = (folder / "subset.jsonl").stat().st_mtime_ns
    config.selection.exports = ("parquet", "messages")
    run_pipeline(config, workdir)
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(folder / "subset.parquet")
    assert table["s2l_id"].to_pylist() == chosen(workdir, "s2l").ids[chosen(workdir, "s2l").indices].tolist()
    assert (folder / "subset.jsonl").stat().st_mtime_ns == stamp
    lines = (folder / "messages.jsonl").read_text().splitlines()
    assert len(lines) == 60


def test_the_table_has_the_losses(done):
    pq = pytest.importorskip("pyarrow.parquet")
    config, workdir, _ = done
    losses = np.load(config.trajectories.path)
    for name in ("s2l", "random"):
        table = pq.read_table(workdir / "selection" / name / "clusters.parquet")
        assert np.array_equal(np.stack(table["losses"].to_numpy()), losses)


def test_the_report_says_how_clusters_of_each_kind_agree_over_seeds(done):
    page = (done[1] / "report" / "index.html").read_text()
    assert page.count("clusters over seeds (adjusted Rand index within sources)") == 1
    assert page.count("clusters over seeds (adjusted Rand index)") == 1


@pytest.fixture
def losses(tmp_path):
    rows = np.random.default_rng(0).gamma(2, 1, (500, 6)).astype(np.float32)
    np.save(tmp_path / "losses.npy", rows)
    return tmp_path / "losses.npy", rows


def test_select_only_needs_no_pool_and_no_model(losses, tmp_path, capsys):
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
    said = capsys.readouterr()
    assert "no pool.path: subsets are row numbers (indices.npy), not jsonl" in said.out + said.err
    assert "no sources" not in said.out + said.err
    config.selection.stratify_by = "source"
    config.selection.exports = ()
    run_pipeline(config, tmp_path / "by_source")
    said = capsys.readouterr()
    assert "no pool.path: there are no sources that s2l could split the budget over" in said.out + said.err
    assert "row numbers" not in said.out + said.err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget_tokens": 100}, "a budget in tokens needs num_tokens.*run the pool stage"),
        ({"method": "longest"}, "selection.runs.it: method 'longest' needs a pool: set pool.path"),
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


@pytest.fixture(scope="module")
def by_states(config_of, tmp_path_factory):
    """A workdir with each method that goes by hidden states; nothing of it needs a proxy."""
    folder = tmp_path_factory.mktemp("states")
    rows = [{"instruction": f"Repeat the code A{n}.", "output": f"A{n}", "source": "copy"} for n in range(3)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_of(
        facility={"method": "facility_location"},
        sampled={"method": "facility_location", "evaluation": "stochastic", "budget": 20},
        evol={"method": "diverse_evol", "initial": 10},
        dedup={"method": "semdedup", "threshold": 0.9, "num_clusters": 4},
        rds={"method": "rds"},
        last={"method": "facility_location", "pooling": "last", "layer": 1},
    )
    config.selection.queries = str(folder / "queries.jsonl")
    return config, folder / "run", run_pipeline(config, folder / "run")


def test_hidden_states_are_made_once_and_charged(by_states):
    config, workdir, results = by_states
    names = {"target-mean", "target-weighted", "target-last-layer1"}
    assert {folder.name for folder in (workdir / "hidden_states").iterdir()} == names
    for name in names:
        files = sorted(file.name for file in (workdir / "hidden_states" / name).iterdir())
        assert files == ["stage.json", "states.npy"]
        assert np.load(workdir / "hidden_states" / name / "states.npy").shape == (240, 64)
    used = {name: found["used"] for name, found in results["selections"].items()}
    assert used["facility"] == used["sampled"] == used["evol"] == ["hidden_states/target-mean"]
    assert used["rds"] == ["hidden_states/target-weighted"]
    assert set(results["selection_inputs"]) == {f"hidden_states/{name}" for name in names}
    assert results["selection_inputs"]["hidden_states/target-mean"]["flops"] > 0
    assert "hidden_states/target-mean" in results["timing"]
    assert not (workdir / "proxy").exists()
    before = {file: file.stat().st_mtime_ns for file in workdir.rglob("*.npy")}
    run_pipeline(config, workdir)
    assert {file: file.stat().st_mtime_ns for file in workdir.rglob("*.npy")} == before


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("facility", {"method": "facility_location"}),
        ("evol", {"method": "diverse_evol", "initial": 10}),
        ("dedup", {"method": "semdedup", "threshold": 0.9, "num_clusters": 4}),
    ],
)
def test_a_run_by_states_chooses_what_the_library_does(by_states, name, options):
    _, workdir, results = by_states
    ours = chosen(workdir, name)
    states = np.load(workdir / "hidden_states" / "target-mean" / "states.npy")
    by_hand = select(SelectionInputs(ids=ours.ids, hidden_states=states), 60, **options)
    assert np.array_equal(ours.indices, by_hand.indices)
    assert results["selections"][name]["options"]["pooling"] == "mean"


def test_rds_finds_the_rows_like_the_queries(by_states):
    _, workdir, _ = by_states
    ours = chosen(workdir, "rds")
    share = (ours.sources == "copy").mean()
    assert (ours.sources[ours.order[:12]] == "copy").mean() > min(1, 2 * share)


def test_an_interrupted_sweep_of_states_goes_on(by_states, config_of, tmp_path, monkeypatch):
    from s2l_jax import integrity
    from s2l_jax.features.compute import pooled_states as module

    monkeypatch.setattr(module, "CHUNK", 64)
    config = config_of(facility={"method": "facility_location"})
    write, written = integrity.write_npz, []

    def dies(path, arrays):
        if "part-" in str(path):
            written.append(path.name)
            if len(written) == 3:
                raise KeyboardInterrupt
        write(path, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(integrity, "write_npz", dies)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(config, tmp_path)
        run_pipeline(config, tmp_path)
    assert written == [f"part-{start:010d}.npz" for start in (0, 64, 128, 128, 192)]
    ours = np.load(tmp_path / "hidden_states" / "target-mean" / "states.npy")
    whole = np.load(by_states[1] / "hidden_states" / "target-mean" / "states.npy")
    np.testing.assert_allclose(ours, whole, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "change", "message"),
    [
        ({"method": "rds"}, {}, "selection.queries is empty: name a file"),
        ({"method": "rds"}, {"selection.queries": "/none.jsonl"}, "selection.queries='/none.jsonl' does not"),
        ({"method": "semdedup", "layer": 3}, {}, "layer=3: the model has 2"),
        ({"method": "semdedup"}, {"pool.path": ""}, "method 'semdedup' needs a pool"),
        ({"method": "semdedup"}, {"target.checkpoint": ""}, "target.checkpoint is empty"),
    ],
)
def test_what_methods_lack_is_found_early(config_of, tmp_path, fields, change, message):
    config = config_of(it=fields)
    config.update_from_flattened_dict(change)
    with pytest.raises(InputError, match=message):
        run_pipeline(config, tmp_path / "run")
    assert not (tmp_path / "run" / "pool").exists()


def test_diverse_evol_trains_a_target_in_each_round(by_states, config_of, tmp_path, monkeypatch):
    from s2l_jax.training import loop

    rounds = {"method": "diverse_evol", "initial": 10, "rounds": 2, "budget": 30}
    config = config_of(evol=rounds)
    config.target.train.steps = 3
    trained, train = [], loop.train

    def watched(*args, **options):
        trained.append(options["label"])
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", watched)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(config, tmp_path)
    results = run_pipeline(config, tmp_path)
    assert trained == ["round 1, a target on 10 rows", "round 2, a target on 20 rows"]
    ours = chosen(tmp_path, "evol")
    assert len(ours.indices) == 30
    assert (tmp_path / "selection" / "evol" / "rounds" / "2" / "losses.npy").exists()
    assert not (tmp_path / "hidden_states").exists()
    assert "used" not in results["selections"]["evol"]
    begin = set(chosen(by_states[1], "evol").order[:10].tolist())
    assert set(ours.order[:10].tolist()) == begin
    config.target.train.learning_rate = 0.5
    with pytest.raises(InputError, match=r"target\.train\.learning_rate: 0\.001 before, 0\.5 now"):
        run_pipeline(config, tmp_path)


def test_less_goes_by_gradients_at_each_epoch_of_a_warm_up(by_states, config_of, tmp_path, monkeypatch):
    from s2l_jax import artifacts
    from s2l_jax.features import gradients

    of_queries, asked = gradients._query_gradients, []

    def counted(*args):
        asked.append(args)
        return of_queries(*args)

    monkeypatch.setattr(gradients, "_query_gradients", counted)
    config = config_of(less={"method": "less", "budget": 24}, again={"method": "less", "budget": 10})
    config.selection.queries = by_states[0].selection.queries
    config.selection.gradients.update(
        rank=2, alpha=4.0, warmup_fraction=0.2, epochs=2, learning_rate=1e-2, batch_size=8, dims=32
    )
    monkeypatch.setattr(gradients, "_CHUNK", 100)
    write, written = artifacts.write_bytes, []

    def dies(path, data):
        if "/gradients/" in str(path) and path.name != "stage.json":
            written.append(path.name)
            if len(written) in (2, 5):  # in the warm-up, and in the sweep
                raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "write_bytes", dies)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run_pipeline(config, tmp_path / "killed")
        results = run_pipeline(config, tmp_path / "killed")
    assert len(asked) == 1  # both runs share them
    parts = [f"part-{start:010d}.npz" for start in (0, 100, 100, 200)]
    assert written == ["warmup_1.npz", "warmup_2.npz", "warmup_2.npz", *parts]
    run_pipeline(config, tmp_path / "whole")
    vectors = [np.load(tmp_path / name / "gradients" / "gradients.npy") for name in ("killed", "whole")]
    assert np.array_equal(*vectors)
    assert vectors[0].shape == (240, 2, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors[0].astype(float), axis=2), 1, atol=1e-2)
    assert np.abs(vectors[0][:, 0] - vectors[0][:, 1]).max() > 0.01  # the checkpoints differ
    ours = chosen(tmp_path / "killed", "less")
    assert len(ours.indices) == 24
    assert (np.diff(ours.scores[ours.order]) <= 0).all()
    assert results["selections"]["less"]["used"] == ["gradients"]
    assert results["selection_inputs"]["gradients"]["checkpoints"] == 2


@pytest.mark.parametrize("use_weights", [True, False])
def test_weights_of_clusters_go_into_the_targets_batches(config_of, done, tmp_path, monkeypatch, use_weights):
    from s2l_jax.pipeline.stages import target

    config = config_of(s2l={"method": "s2l", "train_target": True})
    config.trajectories.path = done[0].trajectories.path
    config.target.train.update(loss="example", steps=1)
    config.target.use_weights = use_weights
    make, seen = target.make_batches, []

    def watched(run, pool, subset, weights, *args, **options):
        batches = make(run, pool, subset, weights, *args, **options)
        seen.append((subset, weights, batches.read(0)))
        return batches

    monkeypatch.setattr(target, "make_batches", watched)
    run_pipeline(config, tmp_path)
    ours = chosen(tmp_path, "s2l")
    (subset, weights, batch) = seen[0]
    assert ours.weights.max() > 1
    expected = dict(zip(ours.indices.tolist(), ours.weights.tolist(), strict=True))
    own = [expected[row] if use_weights else 1.0 for row in subset.tolist()]
    np.testing.assert_allclose(weights, own)
    held = batch.slots >= 0
    of_batch = [expected[row] if use_weights else 1.0 for row in batch.examples[batch.slots[held]].tolist()]
    assert sorted(batch.rows.weights[batch.rows.weights > 0].tolist()) == pytest.approx(sorted(of_batch))


def test_select_only_without_trajectories_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"trajectories\.path are both empty"):
        run_pipeline(load("select_only"), tmp_path)
