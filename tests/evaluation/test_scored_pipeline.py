"""Whole runs that are scored on the six benchmarks."""

import json
import shutil

import pytest

from s2l_jax.config import default, run
from s2l_jax.evaluation.predictions import read_predictions
from s2l_jax.pipeline import run_pipeline
from tests.support.benchmark_files import FILES, SIX


@pytest.fixture(scope="module")
def long_context(tiny_checkpoint, tmp_path_factory):
    """The tiny checkpoint with room for the benchmarks' questions."""
    where = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(tiny_checkpoint, where)
    config = json.loads((where / "config.json").read_text())
    (where / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return where


def pipeline_config(checkpoint, folder, limit):
    config = default()
    config.pool.limit = 64
    config.tokenize.prompt = "plain"
    config.tokenize.max_length = 64
    config.target.checkpoint = str(checkpoint)
    config.target.train.update(steps=2, batch_size=8, dtype="float32", checkpoint_every=2)
    config.mesh.data = 1
    config.evaluation.update(path=str(folder), benchmarks=SIX, limit=limit, max_new_tokens=4, shots=1)
    config.selection.budget = 16
    config.selection.runs.random = run(method="random")
    return config


def check_pipeline(results, workdir, rows):
    assert set(results["evaluations"]) == {"untuned", "random"}
    for name, found in results["evaluations"].items():
        assert set(found["benchmarks"]) == set(SIX)
        assert set(found["averages"]) == {"in_domain", "out_of_domain"}
        for benchmark, scores in found["benchmarks"].items():
            assert scores["num_examples"] == rows[benchmark]
            assert 0 <= scores["interval"][0] <= scores["accuracy"] <= scores["interval"][1] <= 1
            stored = read_predictions(workdir / "evaluation" / name / benchmark / "predictions.jsonl")
            assert [p.shots for p in stored] == [1] * len(stored)
            assert all(p.correct is not None and p.prompt and p.reason for p in stored)
    page = (workdir / "report" / "index.html").read_text()
    for text in (
        "in-domain mean",
        "out-of-domain mean",
        "simuleq",
        "Benchmarks by level and type",
        "Level 2",
    ):
        assert text in page


@pytest.fixture
def one_device(monkeypatch, one_device_mesh):
    monkeypatch.setattr("s2l_jax.pipeline.run.make_mesh", lambda *_: one_device_mesh)


@pytest.mark.usefixtures("quick_compilation", "one_device")
def test_a_pipeline_run_on_made_up_files(long_context, folder, tmp_path):
    config = pipeline_config(long_context, folder, limit=0)
    rows = {name.partition(".")[0]: len(rows) for name, rows in FILES.items()}
    results = run_pipeline(config, tmp_path)
    check_pipeline(results, tmp_path, rows)
    assert run_pipeline(config, tmp_path) == results


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "one_device")
def test_a_pipeline_run_on_the_published_files(long_context, data_dir, tmp_path):
    results = run_pipeline(pipeline_config(long_context, data_dir / "eval", limit=4), tmp_path)
    check_pipeline(results, tmp_path, dict.fromkeys(SIX, 4))
