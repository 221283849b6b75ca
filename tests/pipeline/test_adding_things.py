"""The section "In a module of your own" of docs/design/adding-things.md, followed on a smaller quickstart."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from s2l_jax.selection import Selection
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.long

SMALLER = [
    "--config.pool.limit=300",
    "--config.proxy.train.steps=4",
    "--config.trajectories.every=2",
    "--config.target.train.steps=2",
    "--config.selection.budget=60",
    "--config.evaluation.limit=6",
    "--config.evaluation.max_new_tokens=4",
    "--config.seeds=0",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the section says to write, and the run that it says to make."""
    folder = tmp_path_factory.mktemp("ideas")
    text = (REPOSITORY / "docs" / "design" / "adding-things.md").read_text()
    section = text[text.index("## In a module of your own") : text.index("## A selection method")]
    ideas, experiment = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (folder / "my_ideas.py").write_text(ideas)
    (folder / "my_experiment.py").write_text(experiment)
    (line,) = re.findall(r"`(\{.*?\})`", section)
    (folder / "sums.jsonl").write_text(f"{line}\n" * 3)
    (command,) = re.findall(r"^PYTHONPATH=\. python (launch\.py .*)$", section, re.MULTILINE)
    name, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / name), *arguments, *SMALLER],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": ".", "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_method_chose_by_the_feature(folder):
    workdir = folder / "runs" / "ideas"
    chosen = Selection.load(workdir / "selection" / "fewest")
    assert chosen.method == "my_ideas:fewest_digits"
    assert chosen.options == {"most": 0.3}
    assert len(chosen.indices) == 60
    scores = chosen.scores[chosen.order]
    assert (np.diff(scores) <= 0).all()
    assert chosen.scores.min() <= scores.min()
    settings = json.loads((workdir / "selection" / "fewest" / "stage.json").read_text())["settings"]
    assert settings["selection.runs.fewest.most"] == 0.3
    assert settings["pool.fingerprint"]


def test_the_benchmark_was_asked(folder):
    results = json.loads((folder / "runs" / "ideas" / "results.json").read_text())
    assert set(results["evaluations"]["fewest"]["benchmarks"]) == {"synthetic", "sums"}
    lines = (folder / "runs/ideas/evaluation/fewest/sums/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["reference"] for line in lines] == ["5"] * 3
