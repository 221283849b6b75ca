"""Benchmarks are named with their places, and may live in a module of the user's own."""

import sys

import pytest

from s2l_jax.data.pool import FieldMap
from s2l_jax.errors import InputError
from s2l_jax.evaluation.tasks.benchmark import BENCHMARKS, Benchmark
from s2l_jax.evaluation.tasks.eval_task import find_tasks

OWN = """
from s2l_jax.evaluation.tasks.benchmark import Exemplar, Parsed, benchmark, text_field

@benchmark("doubling", answer_type="number", domain="out", exemplars=(Exemplar("1?", "It is 2.", ""),))
def doubling(row):
    return Parsed(text_field(row, "n"), text_field(row, "twice"))

nothing = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module with a benchmark, and a folder with the benchmark's rows."""
    (tmp_path / "own_benchmarks.py").write_text(OWN)
    (tmp_path / "doubling.jsonl").write_text('{"n": 3, "twice": 6}\n{"n": 4, "twice": 8}\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_benchmarks", None)
    BENCHMARKS._entries.pop("doubling", None)


@pytest.mark.parametrize("path", ["=PATH/doubling.jsonl", ""])
def test_a_benchmark_of_the_users_own(own, path):
    named = "own_benchmarks:doubling" + path.replace("PATH", str(own))
    (task,) = find_tasks([named], str(own), "any")
    assert task.benchmark.name == "doubling"
    assert task.benchmark.exemplars[0].question == "1?"
    problems = task.problems(limit=0, fields=FieldMap(), multi_turn=False)
    assert [(p.row.instruction, p.reference, p.worked) for p in problems] == [
        ("3", "6", False),
        ("4", "8", False),
    ]
    assert "doubling.jsonl:" in task.identity
    assert len(task.problems(limit=1, fields=FieldMap(), multi_turn=False)) == 1


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["own_benchmarks:nothing"], "is no benchmark, it is a int"),
        (["own_benchmarks:missing=x.jsonl"], "own_benchmarks:missing' cannot be imported"),
        (["own_benchmarks:doubling", "doubling"], "doubling is named twice"),
    ],
)
def test_what_is_wrong_with_it_is_named(own, named, message):
    with pytest.raises(InputError, match=message):
        find_tasks(named, str(own), "any")


def test_a_name_and_an_answer_type_are_checked():
    with pytest.raises(InputError, match=r"benchmark 'a/b': letters, digits"):
        Benchmark("a/b", "number")
    with pytest.raises(InputError, match=r"answer type 'numbr': must be one of .*; did you mean 'number'"):
        Benchmark("ab", "numbr")


def test_rows_without_names():
    assert find_tasks([], "", "any") == []
    assert [(t.benchmark.name, t.benchmark.answer_type) for t in find_tasks([], "x.jsonl", "math")] == [
        ("pool", "math")
    ]
    (task,) = find_tasks([], "synthetic", "math")
    assert (task.benchmark.name, task.benchmark.answer_type) == ("synthetic", "exact")
    assert find_tasks(["synthetic"], "elsewhere", "any")[0].path == "synthetic"
