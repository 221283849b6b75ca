"""What does not fit the pool or the cadence is refused before anything is trained."""

import json

import numpy as np
import pytest

from s2l_jax.config import run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.report.runs import selection_flops
from tests.support.pipeline_kills import small_config
from tests.support.pool_rows import write_jsonl

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def config(tiny_checkpoint, tmp_path):
    """Of a run over 40 rows, three sweeps long."""
    rows = [
        {"instruction": f"Add {n} and 1.", "output": str(n + 1), "url": f"https://example.org/{n}"}
        for n in range(40)
    ]
    made = small_config(str(tiny_checkpoint))
    made.mesh.data = -1
    made.pool.path = str(write_jsonl(tmp_path / "pool.jsonl", rows))
    made.evaluation.path = ""
    made.selection.budget = 12
    return made


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"part": {"prefix_of": "s2l", "budget": 20}},
            r"runs\.part: its budget of 20 examples is above the 12 of 's2l', of which it is to be a part",
        ),
        ({"proxy.train.batch_size": 48}, r"proxy.train.batch_size=48 is above the 40 rows of the pool"),
        ({"target.train.batch_size": 48}, r"target.train.batch_size=48 is above the 40 rows"),
        ({"clustering.num_clusters": 41}, r"clustering.num_clusters=41 is above the 40 rows"),
        ({"clustering.compare": (3, 60)}, r"clustering.compare=\(3, 60\) is above the 40 rows"),
        (
            {"clustering.num_clusters": 30, "trajectories.slice_count": 20},
            r"clustering.num_clusters=30 is above the 20 rows whose losses are tracked",
        ),
        ({"proxy.train.steps": 0, "proxy.train.epochs": 0.2}, r"longer than the proxy's run of 1 steps"),
        ({"pool.fields.source": "url"}, r"selection.runs.s2l: s2l: stratify_by='source' .* there are 40"),
        ({"runs": {"num_checkpoints": 4}}, r"selection.runs.s2l: .*trajectories have 3 columns"),
        ({"runs": {"drop_unlearnt": 0.8}}, r"selection.runs.s2l: drop_unlearnt=0.8 leaves 8 of 40 examples"),
        (
            {"runs": {"method": "least_confidence", "checkpoint": "4"}},
            r"selection.runs.s2l: .*step of 3, 6, 9",
        ),
        ({"runs": {"every": 4}}, r"selection.runs.s2l: .*every=4 leaves none of the 3"),
        (
            {"trajectories.source": "train", "runs": {"method": "high_learnability"}},
            r"selection.runs.s2l: this method needs trajectories of at least 2 columns, and there are 1",
        ),
        ({"runs": {"method": "early_loss", "early": 4}}, r"selection.runs.s2l: early=4 needs .* at least 4"),
        (
            {"trajectories.every": 9, "runs": {"drop_rising": True}},
            r"selection.runs.s2l: drop_rising needs trajectories of at least 2 columns",
        ),
        ({"runs": {"num_clusters": 41}}, r"selection.runs.s2l: .*num_clusters=41 is above the 40 rows"),
        (
            {"trajectories.source": "train", "runs": {"every": 2}},
            r"selection.runs.s2l: .*every=2 leaves none of the 1",
        ),
    ],
)
def test_nothing_is_trained(config, tmp_path, fields, reason):
    for name, value in fields.items():
        if name in ("runs", "part"):
            config.selection.runs["s2l" if name == "runs" else name] = run(**value)
        else:
            config.update_from_flattened_dict({name: value})
    with pytest.raises(InputError, match=reason):
        run_pipeline(config, tmp_path / "run")
    assert not (tmp_path / "run" / "proxy").exists()


META = {"empty": {}, "half": "\ud83d", "large": 2**64 - 1, "odd": [1, "a"]}


@pytest.mark.parametrize("kind", META)
@pytest.mark.parametrize("name", ["parquet", "datasets"])
def test_an_export_that_cannot_hold_the_rows(config, tmp_path, kind, name):
    lines = (tmp_path / "pool.jsonl").read_text().splitlines()
    rows = [json.loads(line) | {"meta": META[kind]} for line in lines]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.selection.exports = ("jsonl", name)
    with pytest.raises(InputError, match=r"'meta'.*take parquet and datasets out of selection.exports"):
        run_pipeline(config, tmp_path / "run")
    assert not (tmp_path / "run" / "proxy").exists()
    # The rows are tokenised once; what they cannot be exported to is known without that, too.
    config.trajectories.path = str(tmp_path / "losses.npy")
    np.save(config.trajectories.path, np.random.default_rng(0).random((40, 3), np.float32))
    stages = ["pool", "selection"]
    with pytest.raises(InputError, match="'meta'"):
        run_pipeline(config, tmp_path / "run", stages=stages)
    config.selection.exports = ("jsonl", "messages")
    run_pipeline(config, tmp_path / "run", stages=stages)
    assert (tmp_path / "run" / "selection" / "s2l" / "subset.jsonl").exists()


def test_more_clusters_to_compare_than_rows_of_given_losses(config, tmp_path):
    """Before the first is fitted, with the field's name."""
    np.save(tmp_path / "losses.npy", np.random.default_rng(0).random((40, 3), np.float32))
    config.trajectories.path = str(tmp_path / "losses.npy")
    config.clustering.num_clusters = 5
    config.clustering.compare = (3, 60)
    with pytest.raises(InputError, match=r"clustering.compare=\(3, 60\) is above the 40 rows"):
        run_pipeline(config, tmp_path / "run", stages=["selection"])
    assert not (tmp_path / "run" / "cluster_counts").exists()


def test_fields_that_are_not_read_are_told(config, tmp_path, capsys):
    run_pipeline(config, tmp_path / "run", stages=["pool"])
    assert "are not read (pool.fields has those that are): 'url'\n" in capsys.readouterr().err


def test_chosen_rows_without_a_response_are_counted(config, tmp_path, capsys):
    """They have a part of the budget and none in training. Of one loss a row it is said that it is one."""
    lines = (tmp_path / "pool.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[:4]:
        row["instruction"] *= 40
    write_jsonl(tmp_path / "pool.jsonl", rows)
    config.selection.runs.full = run(method="full")
    config.trajectories.every = 9
    run_pipeline(config, tmp_path / "run", stages=["proxy", "selection", "target"])
    said = capsys.readouterr().err
    assert "target on full: 4 of its 40 rows have no response within tokenize.max_length" in said
    assert said.count("s2l: clusters will be of losses at 1 checkpoint, where") == 1
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["targets"]["full"]["num_without_loss"] == 4
    assert "random: clusters" not in said


@pytest.fixture
def without_model(config, tmp_path):
    """The same by losses made elsewhere, with the tokeniser alone."""
    np.save(tmp_path / "losses.npy", np.random.default_rng(0).random((40, 3), np.float32))
    config.trajectories.path = str(tmp_path / "losses.npy")
    config.target.tokenizer, config.target.checkpoint, config.proxy.checkpoint = (
        config.proxy.checkpoint,
        "",
        "",
    )
    config.selection.runs = {"s2l": run(method="s2l", train_target=False)}
    return config


def test_a_dataset_that_changed_between_sittings_is_not_mixed(without_model, tmp_path, monkeypatch):
    """Of the hub and of TFDS the name alone is known."""
    monkeypatch.setattr("s2l_jax.pipeline.stages.pool.data_identity", lambda path: path)
    run_pipeline(without_model, tmp_path / "run", stages=["pool", "selection"])
    lines = (tmp_path / "pool.jsonl").read_text().splitlines()
    (tmp_path / "pool.jsonl").write_text("\n".join([*lines[1:], lines[0]]))
    without_model.selection.runs.longest = run(method="longest", train_target=False)  # reads tokens
    with pytest.raises(InputError, match=r"its rows are not those that .*pool has of it from before"):
        run_pipeline(without_model, tmp_path / "run", stages=["pool", "selection"])


def test_tokens_are_counted_once_there_is_a_tokeniser(without_model, tmp_path):
    before = run_pipeline(without_model, tmp_path / "run", stages=["pool", "selection"])
    without_model.selection.runs.longest = run(method="longest", train_target=False)
    after = run_pipeline(without_model, tmp_path / "run", stages=["pool", "selection"])
    assert before["pool"]["num_tokens"] == 0 < after["pool"]["num_tokens"]
    assert before["pool"]["num_examples"] == after["pool"]["num_examples"] == 40


def test_each_subset_is_charged_the_proxy_that_it_was_made_by(config, tmp_path):
    """By losses from elsewhere, of unknown cost, and later in the same workdir by a proxy of its own."""
    np.save(tmp_path / "losses.npy", np.random.default_rng(0).random((40, 3), np.float32))
    config.trajectories.path = str(tmp_path / "losses.npy")
    config.selection.runs = {"s2l": run(method="s2l", train_target=False)}
    run_pipeline(config, tmp_path / "run", stages=["pool", "selection"])
    config.trajectories.path = ""
    config.selection.runs = {"own": run(method="s2l", train_target=False)}
    results = run_pipeline(config, tmp_path / "run", stages=["pool", "proxy", "selection"])
    made = results["proxy"]
    assert selection_flops(results, "own") == (made["training_flops"] + made["sweep_flops"], [])
    assert selection_flops(results, "s2l") == (0, ["imported"])
