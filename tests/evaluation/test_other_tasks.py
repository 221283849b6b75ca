"""Benchmarks beyond worked answers: the likeliest of a row's choices, and functions held to tests."""

import functools
import json
import re

import jax
import numpy as np
import pytest
from etils import epath

from s2l_jax.config import default, validate
from s2l_jax.data.pool import FieldMap
from s2l_jax.data.pool_files import RawRow
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.evaluation import regrade
from s2l_jax.evaluation.by_choices import choice_examples, choice_likelihoods
from s2l_jax.evaluation.execution.tested_programs import UnitTests, complete_program, run_tests
from s2l_jax.evaluation.generation import kept_responses
from s2l_jax.evaluation.predictions import read_predictions
from s2l_jax.evaluation.sandbox import confine
from s2l_jax.evaluation.tasks import reading
from s2l_jax.evaluation.tasks.benchmark import BENCHMARKS, Benchmark, Parsed
from s2l_jax.evaluation.tasks.prompting import read_examples
from s2l_jax.evaluation.tasks.reading import read_problems
from s2l_jax.models import hf
from s2l_jax.models.parameters import bind, model_params
from s2l_jax.parallel.placement import load_model
from s2l_jax.pipeline.stages import evaluation
from s2l_jax.training.run import Run

MMLU = [
    {"question": "2 + 3?", "choices": ["4", "5", "6", "7"], "answer": 1, "subject": "sums"},
    {"question": "Which is a fruit?", "choices": ["fig", "stone"], "answer": "A", "subject": "plants"},
    {"question": "2 + 4?", "choices": ["4", "5", "6"], "answer": "2"},
]
ADD = {
    "task_id": "Made/0",
    "prompt": 'from typing import List\n\ndef total(xs: List[int]) -> int:\n    """The sum."""\n',
    "entry_point": "total",
    "canonical_solution": "    return sum(xs)\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
}
TESTS = UnitTests(ADD["prompt"], "total", ADD["test"] + "\n\ncheck(total)")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def confined():
    if lack := confine.missing():
        pytest.skip(f"this machine cannot confine programs: {lack}")


class TestReading:
    def read(self, name, tmp_path, *rows):
        return list(read_problems(BENCHMARKS.find(name), str(write(tmp_path / f"{name}.jsonl", rows))))

    def test_choices(self, tmp_path):
        first, second, third = self.read("mmlu", tmp_path, *MMLU)
        assert first.row.instruction == "2 + 3?\nA. 4\nB. 5\nC. 6\nD. 7\nAnswer:"
        assert [p.reference for p in (first, second, third)] == ["B", "A", "C"]
        assert [p.choices for p in (first, second)] == [("A", "B", "C", "D"), ("A", "B")]
        assert (first.row.output, first.type, third.type) == ("B", "sums", "")

    def test_functions(self, tmp_path):
        (problem,) = self.read("humaneval", tmp_path, ADD)
        assert problem.row.output == ADD["prompt"] + ADD["canonical_solution"]
        assert problem.tests == TESTS
        assert problem.worked

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("mmlu", {"choices": "4"}, r'its "choices" must be a list of 2 to 10 texts: \'4\''),
            ("mmlu", {"choices": ["4"]}, r"a list of 2 to 10 texts"),
            ("mmlu", {"choices": ["4", 5]}, r'its "choices" hold int, not text: 5'),
            ("mmlu", {"answer": 4}, r'"answer" must be a letter of A to D, or a number from 0 to 3: 4'),
            ("mmlu", {"answer": None}, r'"answer" must be a letter'),
            ("humaneval", {"entry_point": "other"}, r'"prompt" does not begin the function "other"'),
            ("humaneval", {"test": " "}, r'its "test" is empty'),
        ],
    )
    def test_bad_rows_are_named(self, name, change, message, tmp_path):
        row = {"mmlu": MMLU[0], "humaneval": ADD}[name]
        with pytest.raises(InputError, match=rf"{name}\.jsonl:1: .*{message}"):
            self.read(name, tmp_path, row | change)

    def test_of_a_benchmark_of_ones_own(self, tmp_path):
        with pytest.raises(InputError, match=r"answered_by='guess': must be one of text, choices, tests"):
            Benchmark("own", "exact", answered_by="guess")
        for how, message in (("choices", "its answer 'b' is none of its choices"), ("tests", "has no tests")):
            own = Benchmark(
                "own", "exact", reader=lambda row: Parsed("q", "b", choices=("a",)), answered_by=how
            )
            with pytest.raises(InputError, match=message):
                list(read_problems(own, str(write(tmp_path / "own.jsonl", [{}]))))

    def test_solved_examples_come_from_the_development_split(self, monkeypatch):
        asked = []

        def sources(dataset, format, split):
            asked.append((dataset, split))
            return [lambda: iter([RawRow("hub:1", MMLU[0]), RawRow("hub:2", MMLU[1])])]

        monkeypatch.setattr(reading, "find_sources", sources)
        mmlu = BENCHMARKS.find("mmlu")
        first, second = read_examples(mmlu, "hub", 1, program=False, seed=0, fields=FieldMap())
        assert asked == [("cais/mmlu:all", "dev")]
        assert {first.output, second.output} == {"A", "B"}


@pytest.mark.usefixtures("quick_compilation")
def test_likelihoods_are_those_of_each_choice_alone(tiny_checkpoint, one_device_mesh):
    model, tokenizer = load_model(str(tiny_checkpoint), one_device_mesh), hf.load_tokenizer(tiny_checkpoint)
    prompts = [tokenizer(text)["input_ids"] for text in ("What is 2 + 3?\n", "A longer question, is it?\n")]
    choices = [("5", "it is 12", "A"), ("no", "yes")]
    ids = [tokenizer(list(texts), add_special_tokens=False)["input_ids"] for texts in choices]
    pairs = [(prompt, each) for prompt, of_prompt in zip(prompts, ids, strict=True) for each in of_prompt]
    tokens = np.zeros((len(pairs), 32), np.int32)  # what follows is not seen
    for row, (prompt, each) in zip(tokens, pairs, strict=True):
        row[: len(prompt) + len(each)] = [*prompt, *each]
    places = np.broadcast_to(np.arange(32), tokens.shape)
    logits = jax.jit(lambda model, *rows: model.logits(model(*rows)))(
        model, tokens, places, np.ones_like(tokens)
    )
    logs = np.asarray(jax.nn.log_softmax(logits))
    expected = [
        sum(row[len(prompt) + i - 1, token] for i, token in enumerate(each))
        for row, (prompt, each) in zip(logs, pairs, strict=True)
    ]
    found = choice_likelihoods(model, tokenizer, prompts, choices, dtype=np.float32, mesh=one_device_mesh)
    assert [len(each) for each in found] == [3, 2]
    np.testing.assert_allclose([value for each in found for value in each], expected, rtol=1e-4)
    with pytest.raises(InputError, match=r"its choice 'no' has \d+, and the target's context is 10"):
        choice_examples(tokenizer, prompts, choices[::-1], 10)
    with pytest.raises(InputError, match="the choice '' has no token"):
        choice_examples(tokenizer, prompts[:1], [["a", ""]], 100)


def test_a_likelihood_that_is_no_number_is_no_answer(tiny_checkpoint, one_device_mesh):
    """It would be the largest if it came first."""
    model, tokenizer = load_model(str(tiny_checkpoint), one_device_mesh), hf.load_tokenizer(tiny_checkpoint)
    model = bind(model.config, jax.tree.map(lambda p: p * np.nan, model_params(model)))
    with pytest.raises(DivergedError, match=r"the choice 'A': its loss is nan, and 2 of 2"):
        choice_likelihoods(model, tokenizer, [[1, 2]], [("A", "B")], dtype=np.float32, mesh=one_device_mesh)


@pytest.mark.parametrize(
    "response",
    [
        "    return sum(xs)\n",
        "    return sum(xs)\n\nNow I have written the function.\nIt adds.",
        "return sum(xs)",
        "def total(xs: List[int]) -> int:\n    return sum(xs)\n\nThis adds them up.",
        "Here it is:\n```python\ndef total(xs):\n    return sum(xs)\n```\nIt uses `sum`.",
        "```\nhelper = 0\n```\nand\n```python\ndef total(xs):\n    return helper_of(xs)\n\n"
        "def helper_of(xs):\n    return sum(xs)\n```",
        "```python\n    return sum(xs)\n```",
        "```python\nimport sys\nsys.setrecursionlimit(10000)\n\ndef total(xs):\n    return sum(xs)\n```",
        "```python\nONE = (\n1,\n)\ntry:\n    pass\nfinally:\n    pass\n\n"
        "def total(xs):\n    return sum(xs)\n```\nThat is all.",
    ],
)
def test_right_functions_pass_however_they_are_given(response, confined):
    (run,) = run_tests([response], [TESTS])
    assert (run.error, run.output) == ("", "passed"), run.code


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ("    return len(xs)\n", "AssertionError"),
        ("", "SyntaxError|IndentationError|AssertionError"),
        ("I cannot do that.", "Error"),
        ("    import sys\n    sys.exit(0)\n", "it ended before its tests did"),
        ("    import os\n    print('passed')\n    os._exit(0)\n", "it ended before its tests did"),
        ("def total(xs):\n    return total(xs)\n", "RecursionError"),
        ("\ud800", "."),
    ],
)
def test_wrong_functions_do_not_pass(response, error, confined):
    (run,) = run_tests([response], [TESTS])
    assert run.output == ""
    assert re.search(error, run.error), run.error


def test_the_start_goes_before_the_function():
    """Imports and helpers that a prompt brings are there, whichever form a response has."""
    tests = UnitTests(
        "import math\n\ndef half(x):\n    return x / 2\n\ndef root(x):\n    '''Of x.'''\n", "root", ""
    )
    whole = complete_program("def root(x):\n    return half(x)", tests)
    assert whole == "import math\n\ndef half(x):\n    return x / 2\n\ndef root(x):\n    return half(x)"
    assert complete_program("    return 1", tests) == tests.start.rstrip() + "\n    return 1"


@pytest.fixture
def make_run(tmp_path, tiny_checkpoint, one_device_mesh, monkeypatch):
    """A run whose target is the tiny model for likelihoods, and says `said` where it writes."""
    model, tokenizer = load_model(str(tiny_checkpoint), one_device_mesh), hf.load_tokenizer(tiny_checkpoint)
    monkeypatch.setattr(evaluation, "_model", lambda run, name: (model, tokenizer))
    monkeypatch.setattr(evaluation, "reference_losses", lambda model, tokenizer, rows, **_: [1.5] * len(rows))

    def make(name, said=(), folder="run", **options):
        def respond(model, tokenizer, prompts, *, indices, progress, **_):
            progress(len(prompts))
            return [said[index] for index in indices]

        monkeypatch.setattr(evaluation, "respond", respond)
        rows = {"mmlu": MMLU, "humaneval": [ADD] * max(1, len(said))}[name]
        config = default()
        config.tokenize.prompt = "plain"
        file = write(tmp_path / f"{name}.jsonl", rows)
        config.target.checkpoint = str(tiny_checkpoint)
        config.evaluation.update(path=str(file), benchmarks=(name,), max_new_tokens=4, **options)
        validate(config)
        return Run(config, epath.Path(tmp_path / folder), one_device_mesh)

    return make


def outcome(run, name):
    evaluation.evaluate_all(run)
    results, _ = evaluation.gather(run, "untuned")
    file = run.workdir / "evaluation" / "untuned" / name / "predictions.jsonl"
    return results["benchmarks"][name], read_predictions(file), file


@pytest.mark.usefixtures("quick_compilation")
def test_an_evaluation_by_choices(make_run, monkeypatch):
    monkeypatch.setattr(kept_responses, "_AT_ONCE", 2)
    results, predictions, _ = outcome(make_run("mmlu", mode="hybrid", run_programs=True), "mmlu")
    assert results["mode"] == "choices"
    assert results["types"].keys() == {"sums", "plants"}
    for prediction, row in zip(predictions, MMLU, strict=True):
        assert len(prediction.likelihoods) == len(row["choices"])
        assert max(prediction.likelihoods) < 0
        assert prediction.response == "ABCD"[int(np.argmax(prediction.likelihoods))]
        assert prediction.correct == (prediction.response == prediction.reference)
        assert prediction.program is None
    assert results["accuracy"] == np.mean([p.correct for p in predictions])


@pytest.mark.usefixtures("quick_compilation")
def test_choices_measured_before_a_kill_are_not_measured_again(make_run, monkeypatch):
    monkeypatch.setattr(kept_responses, "_AT_ONCE", 2)
    whole = outcome(make_run("mmlu", folder="whole"), "mmlu")[2].read_bytes()
    measured, real = [], evaluation.choice_likelihoods

    def stopping(model, tokenizer, prompts, choices, **options):
        measured.append(len(prompts))
        if len(measured) == 2:
            raise KeyboardInterrupt
        return real(model, tokenizer, prompts, choices, **options)

    monkeypatch.setattr(evaluation, "choice_likelihoods", stopping)
    run = make_run("mmlu", folder="broken")
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate_all(run)
    so_far = json.loads((run.workdir / "evaluation/untuned/mmlu/stage.json").read_text())["seconds"]
    assert outcome(run, "mmlu")[2].read_bytes() == whole
    assert evaluation.gather(run, "untuned")[1]["mmlu"] > so_far > 0
    assert measured == [2, 1, 1]


def test_the_kernel_of_attention_is_the_configs(make_run, confined, monkeypatch):
    asked = {}

    def noting(name, real):
        def noted(*args, attention, **options):
            asked[name] = attention
            return real(*args, **options)

        monkeypatch.setattr(evaluation, name, noted)

    noting(
        "choice_likelihoods", lambda model, tokenizer, prompts, choices, **_: [[-1.0] * 4 for _ in prompts]
    )
    runs = make_run("mmlu"), make_run("humaneval", ["    return 3"], folder="tests", run_programs=True)
    for name in ("respond", "reference_losses"):
        noting(name, getattr(evaluation, name))
    for run in runs:
        run.config.attention = "xla"
        evaluation.evaluate_all(run)
    assert asked == dict.fromkeys(("choice_likelihoods", "respond", "reference_losses"), "xla")


def test_an_evaluation_by_tests(make_run, confined, capsys):
    said = ["    return sum(xs)", "    return 3", "print(3)"]
    run = make_run("humaneval", said, run_programs=True)
    results, predictions, file = outcome(run, "humaneval")
    assert [p.correct for p in predictions] == [True, False, False]
    assert results["mode"] == "tests"
    assert results["accuracy"] == pytest.approx(1 / 3)
    assert results["programs"] == {"num_run": 3, "num_failed": 2, "num_fallbacks": 0}
    assert "AssertionError" in predictions[1].reason
    assert predictions[0].prompt.startswith("Complete this Python function. Write all of it.\n\nfrom typing")
    # Graded again it is the same; the tests are not there to be run again.
    grade = functools.partial(regrade.main, [str(file)])
    assert grade() == 0
    assert "33.3 %" in capsys.readouterr().out
    assert regrade.main([str(file), "--run-programs"]) == 2
    assert "its programs were run with tests, which are not in it" in capsys.readouterr().err


def test_what_would_stop_an_evaluation_later(make_run):
    shots = {"shots": 1, "shots_path": ""}
    with pytest.raises(InputError, match="this package has 0 examples with a worked answer for mmlu"):
        evaluation.check_benchmarks(make_run("mmlu", **shots))
    with pytest.raises(InputError, match=r"humaneval runs the programs .* evaluation\.run_programs=True"):
        evaluation.check_benchmarks(make_run("humaneval"))
    embedded = make_run("mmlu")
    embedded.config.evaluation.update(path="", benchmarks=("synthetic",), mode="hybrid")
    with pytest.raises(InputError, match=r"synthetic runs the programs .* evaluation\.mode='text'"):
        evaluation.check_benchmarks(embedded)
