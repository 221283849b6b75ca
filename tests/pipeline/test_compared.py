"""What a workdir's methods are compared on: the benchmarks that the config asks for."""

import pytest
from etils import epath

from s2l_jax.config import default, run
from s2l_jax.evaluation.predictions import PREDICTIONS, Prediction, write_predictions
from s2l_jax.pipeline.results import compared
from s2l_jax.records import Record
from s2l_jax.training.run import Run


def answered(workdir, name, benchmark, correct):
    folder = epath.Path(workdir / "evaluation" / name / benchmark)
    record = Record(folder, f"evaluation/{name}/{benchmark}", {})
    rows = [
        Prediction(number, "x", "", "", "", "", 0, None, None, "", "", "", right, "", None)
        for number, right in enumerate(correct)
    ]
    write_predictions(folder / PREDICTIONS, rows)
    record.finish({"num_examples": len(rows)}, files=[PREDICTIONS])


@pytest.mark.parametrize(("asked", "rows"), [(("synthetic",), 2), (("synthetic", "mmlu=x.jsonl"), 6)])
def test_benchmarks_of_before_are_in_no_difference(tmp_path, asked, rows):
    config = default()
    config.evaluation.benchmarks = asked
    config.selection.runs = {"random": run(method="random"), "s2l": run(method="s2l")}
    results = {"pool": {"num_examples": 9}, "selections": {}, "targets": {}, "evaluations": {}}
    for name, correct in (("random", [True, False]), ("s2l", [True, True])):
        answered(tmp_path, name, "synthetic", correct)
        answered(tmp_path, name, "mmlu", [name == "random"] * 4)
        results["selections"][name] = {"method": name, "budget": 5, "size": 5, "seed": 0}
        results["evaluations"][name] = {"overall": {"accuracy": sum(correct) / 2}}
    found = compared(Run(config, epath.Path(tmp_path), None), results, config)["comparisons"]["accuracy"]
    (difference,) = [entry["difference"] for entry in found if "difference" in entry]
    assert difference["num_rows"] == rows
