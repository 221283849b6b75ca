"""Scoring runs: what is asked, run, graded, counted, kept over a kill, graded again, and shown."""

import json
import math
import types

import pytest
from etils import epath

from s2l_jax.config import default, validate
from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution.response_programs import ProgramRun
from s2l_jax.evaluation.generation import kept_responses
from s2l_jax.evaluation.intervals import wilson
from s2l_jax.evaluation.predictions import Prediction, Response, needs_text, read_predictions
from s2l_jax.evaluation.regrade import main as regrade
from s2l_jax.evaluation.sandbox import landlock
from s2l_jax.evaluation.summary import combine, summarise
from s2l_jax.models import hf
from s2l_jax.pipeline.stages import evaluation
from s2l_jax.pipeline.stages.evaluation import tasks_of
from s2l_jax.report.findings import Findings
from s2l_jax.report.page import render_report
from s2l_jax.report.sections.benchmarks import benchmark_table, part_table
from s2l_jax.training.run import Run
from tests.support.benchmark_files import SIX


@pytest.fixture
def asked(monkeypatch, tiny_checkpoint):
    """A model that answers by rule: `answers` maps part of a prompt to what is said."""
    tokenizer = hf.load_tokenizer(tiny_checkpoint)
    state = types.SimpleNamespace(answers={}, prompts=[], calls=[], stop_after=math.inf)

    def respond(model, tokenizer, prompts, *, indices, progress, **options):
        if len(state.calls) >= state.stop_after:
            raise KeyboardInterrupt
        texts = tokenizer.batch_decode(prompts)
        state.prompts += texts
        state.calls.append(list(indices))
        progress(len(texts))
        return [next((a for part, a in state.answers.items() if part in text), "no idea") for text in texts]

    model = types.SimpleNamespace(config=types.SimpleNamespace(max_positions=4000))
    monkeypatch.setattr(evaluation, "_model", lambda run, name: (model, tokenizer))
    monkeypatch.setattr(evaluation, "respond", respond)
    monkeypatch.setattr(evaluation, "reference_losses", lambda model, tokenizer, rows, **_: [1.5] * len(rows))
    return state


def make_run(workdir, folder, **options):
    config = default()
    config.tokenize.prompt = "plain"
    config.evaluation.update(path=str(folder), benchmarks=("gsm8k",), **options)
    validate(config)
    return Run(config, epath.Path(workdir), None)


def evaluate(run):
    evaluation.evaluate_all(run)
    results, _ = evaluation.gather(run, "untuned")
    return results


def predictions(run, name="gsm8k"):
    return read_predictions(run.workdir / "evaluation" / "untuned" / name / "predictions.jsonl")


def test_text_answers_are_graded_and_counted(asked, folder, tmp_path):
    asked.answers = {
        "0 + 0": "It is 0.",
        "1 + 1": "#### 2",
        "2 + 2": "The answer is 5.",
        "Half of $1$": r"$\boxed{0.5}$",
        "Which?": "(B)",
        "figs": "8 figs.",
        "prime": "2, 3",
        "x + y": "So x = 3. The answer is 3",
    }
    made = make_run(tmp_path, folder)
    made.config.evaluation.benchmarks = SIX
    results = evaluate(made)
    assert tuple(results["benchmarks"]) == SIX
    accuracies = {name: found["accuracy"] for name, found in results["benchmarks"].items()}
    assert accuracies == {
        "gsm8k": 0.4,
        "math": 1 / 3,
        "numglue": 0.5,
        "svamp": 1,
        "mathematics": 1,
        "simuleq": 1,
    }
    assert results["averages"]["in_domain"]["accuracy"] == pytest.approx((0.4 + 1 / 3 + 0.5) / 3)
    assert results["averages"]["out_of_domain"]["accuracy"] == 1
    assert results["overall"]["accuracy"] == pytest.approx((0.4 + 1 / 3 + 0.5 + 3) / 6)
    assert results["overall"]["num_examples"] == 13
    assert results["overall"]["heldout_loss"] == 1.5  # of the eight rows with a worked solution
    assert results["overall"]["num_without_loss"] == 5
    assert results["benchmarks"]["gsm8k"]["interval"] == list(wilson(2, 5))
    levels = results["benchmarks"]["math"]["levels"]
    assert {name: found["num_examples"] for name, found in levels.items()} == {"Level 1": 1, "Level 2": 2}
    assert [levels[name]["accuracy"] for name in sorted(levels)] == [1, 0]
    assert set(results["benchmarks"]["numglue"]["types"]) == {"Type_3", "Type_4"}
    assert set(results["sources"]) == set(SIX)
    found = predictions(made)
    assert [p.correct for p in found] == [True, True, False, False, False]
    assert (found[2].answer, found[2].expected, found[2].response) == ("5", "4", "The answer is 5.")
    assert found[1].prompt == "What is 1 + 1?\n"
    assert all(p.reason and p.reference and p.loss == 1.5 for p in found)


def test_hybrid_runs_programs_and_asks_again_where_they_fail(asked, folder, tmp_path):
    asked.answers = {
        "0 + 0? Let's": "print(0 + 0)",
        "1 + 1? Let's": "print(1 / 0)",
        "2 + 2? Let's": "x = 2\nx + x\nprint()",
        "3 + 3? Let's": "The answer is 6",
        "4 + 4? Let's": "print(9)",
        "1 + 1?": "It is 2.",
        "2 + 2?": "print(4)",
    }
    made = make_run(tmp_path, folder, mode="hybrid", run_programs=True)
    results = evaluate(made)["benchmarks"]["gsm8k"]
    found = predictions(made)
    assert [p.correct for p in found] == [True, True, True, True, False]
    assert asked.calls == [[0, 1, 2, 3, 4], [1, 2]]
    assert "program" in asked.prompts[1]
    assert asked.prompts[5] == "What is 1 + 1?\n"
    assert found[0].program == ProgramRun("print(0 + 0)", "0\n", "")
    assert "ZeroDivisionError" in found[1].attempt.program.error
    assert (found[1].response, found[1].program) == ("It is 2.", None)
    assert found[2].attempt.program.error == "it printed nothing"
    assert found[2].program.output == "4\n"  # a worked answer that is a program is run as well
    assert (found[3].program, found[3].attempt) == (None, None)
    assert found[4].answer == "9"
    assert results["programs"] == {"num_run": 5, "num_failed": 2, "num_fallbacks": 2}
    assert results["accuracy"] == 0.8


def test_a_failed_program_is_wrong_and_nothing_is_run_unless_asked(asked, folder, tmp_path):
    asked.answers = {"1 + 1": "print(1 / 0)  # 2", "2 + 2": "print(4)"}
    evaluate(ran := make_run(tmp_path / "ran", folder, mode="program", run_programs=True))
    assert [p.correct for p in predictions(ran)] == [False, False, True, False, False]
    assert "its program failed" in predictions(ran)[1].reason
    evaluate(unran := make_run(tmp_path / "unran", folder))
    assert all(p.program is None for p in predictions(unran))


def test_a_machine_that_cannot_confine_programs_is_told_before_anything_is_trained(
    asked, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(landlock, "version", lambda: 2)
    confined = make_run(tmp_path / "confined", folder, mode="program", run_programs=True)
    with pytest.raises(
        InputError, match=r"Landlock of version 3 .* has version 2.*run_programs='unconfined'"
    ):
        evaluation.check_benchmarks(confined)
    asked.answers = {"1 + 1": "import os\nprint(len(os.listdir('/')) * 0 + 2)"}
    evaluate(made := make_run(tmp_path / "made", folder, mode="program", run_programs="unconfined"))
    assert predictions(made)[1].correct


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_what_was_answered_before_a_kill_is_not_asked_again(asked, folder, tmp_path, mode, monkeypatch):
    monkeypatch.setattr(kept_responses, "_AT_ONCE", 2)
    asked.answers = {"1 + 1": "2", "3 + 3": "print(6)"}
    options = {"mode": mode, "run_programs": mode == "hybrid"}
    whole = evaluate(unbroken := make_run(tmp_path / "unbroken", folder, **options))
    number_of_calls = len(asked.calls)
    broken = make_run(tmp_path / "broken", folder, **options)
    asked.calls.clear()
    for calls in range(1, number_of_calls):
        asked.stop_after = calls
        with pytest.raises(KeyboardInterrupt):
            evaluate(broken)
        assert evaluation.gather(broken, "untuned") is None
    asked.stop_after = math.inf
    assert evaluate(broken) == whole
    assert len(asked.calls) == number_of_calls
    assert sorted(n for call in asked.calls[:3] for n in call) == [0, 1, 2, 3, 4]
    file = "evaluation/untuned/gsm8k/predictions.jsonl"
    assert (broken.workdir / file).read_bytes() == (unbroken.workdir / file).read_bytes()
    assert not (broken.workdir / "evaluation/untuned/gsm8k/parts").exists()
    asked.stop_after = 0  # all is done: nothing is asked
    assert evaluate(broken) == whole


def test_another_benchmark_is_added_and_other_settings_are_refused(asked, folder, tmp_path):
    made = make_run(tmp_path, folder)
    evaluate(made)
    made.config.evaluation.benchmarks = ("gsm8k", "svamp")
    half, _ = evaluation.gather(made, "untuned")
    assert half["overall"] == {"num_examples": 5, "num_without_loss": 0, "missing_benchmarks": ["svamp"]}
    asked.answers = {"8 figs": "It is 8."}
    found = evaluate(made)
    assert set(found["benchmarks"]) == {"gsm8k", "svamp"}
    assert (found["overall"]["accuracy"], found["overall"]["num_benchmarks"]) == (0.5, 2)
    made.config.evaluation.benchmarks = ("svamp",)  # what else was answered counts in no mean
    found, _ = evaluation.gather(made, "untuned")
    assert (found["overall"]["accuracy"], found["overall"]["num_benchmarks"]) == (1.0, 1)
    made.config.evaluation.benchmarks = ("gsm8k", "svamp")
    assert [len(call) for call in asked.calls] == [5, 1]
    made.config.evaluation.max_new_tokens = 7
    with pytest.raises(InputError, match=r"max_new_tokens: 256 before, 7 now"):
        evaluate(made)


def test_rows_in_the_pools_schema_and_the_embedded_set(asked, tmp_path):
    file = tmp_path / "held.jsonl"
    rows = [
        {"instruction": "Six?", "output": "The answer is 6.", "source": "a", "level": "hard"},
        {"instruction": "Is it?", "output": "yes", "source": "b"},
        {"instruction": "x?", "output": r"$\frac{1}{2}$", "source": "b"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked.answers = {"Six": "6.0", "Is it": "Yes, it is.", "x?": "0.5"}
    made = make_run(tmp_path / "pool", tmp_path)
    made.config.evaluation.update(benchmarks=(), path=str(file))
    results = evaluate(made)
    assert results["overall"]["accuracy"] == 1
    assert results["averages"] == {}
    assert {name: found["num_examples"] for name, found in results["sources"].items()} == {"a": 1, "b": 2}
    assert list(results["benchmarks"]["pool"]["levels"]) == ["hard"]
    exact = make_run(tmp_path / "exact", tmp_path, answer_type="exact")
    exact.config.evaluation.update(benchmarks=(), path=str(file))
    assert evaluate(exact)["overall"]["accuracy"] == 0
    embedded = make_run(tmp_path / "embedded", tmp_path, limit=3)
    embedded.config.evaluation.update(benchmarks=("gsm8k",), path="synthetic")
    embedded.config.evaluation.benchmarks = ()
    assert evaluate(embedded)["benchmarks"]["synthetic"]["num_examples"] == 3


def test_summaries_get_metrics_instead_of_verdicts(asked, tmp_path):
    file = tmp_path / "held.jsonl"
    rows = [{"instruction": f"Finding {n}", "output": f"No acute finding in region {n}."} for n in range(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked.answers = {f"Finding {n}": f"No finding in region {n}." for n in range(4)}
    made = make_run(tmp_path / "run", tmp_path, metrics=("bleu", "rouge"))
    made.config.evaluation.update(benchmarks=(), path=str(file))
    results = evaluate(made)
    assert "accuracy" not in results["overall"]
    metrics = results["benchmarks"]["pool"]["metrics"]
    assert set(metrics) == {"bleu", "rouge1", "rouge2", "rougeL"}
    assert metrics["rouge1"]["interval"][0] < metrics["rouge1"]["score"] < 100
    assert all(p.correct is None for p in predictions(made, "pool"))
    header, (cells,) = benchmark_table({"s2l": results})
    assert header == ["model", "BLEU", "ROUGE-1", "ROUGE-2", "ROUGE-L"]
    assert cells[0] == "s2l"
    assert "–" in cells[1]
    page = render_report(Findings({"evaluations": {"s2l": results}}))
    assert "ROUGE-L" in page
    assert cells[4] in page


def test_names_and_paths(folder, tmp_path):
    made = make_run(tmp_path, folder)
    settings = made.config.evaluation
    settings.benchmarks = ("gsm8k", f"pool={tmp_path}/held.jsonl", "synthetic")
    assert [(task.benchmark.name, task.path) for task in tasks_of(made)] == [
        ("gsm8k", str(folder)), ("pool", f"{tmp_path}/held.jsonl"), ("synthetic", "synthetic")
    ]  # fmt: skip
    settings.path = ""
    with pytest.raises(InputError, match="gsm8k has no path, while others have"):
        tasks_of(made)
    settings.benchmarks = ("gsm8k", "math")
    assert tasks_of(made) == []
    settings.update(path=str(folder), benchmarks=("svamp", "svamp"))
    with pytest.raises(InputError, match="svamp is named twice"):
        tasks_of(made)
    settings.benchmarks = ("svmap",)
    with pytest.raises(InputError, match="did you mean 'svamp'"):
        tasks_of(made)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "hybrid"}, r"mode='hybrid' runs the programs .*run_programs=True"),
        ({"metrics": ("blue",)}, r"no metric 'blue'; did you mean 'bleu'"),
        ({"shots_path": "train.jsonl"}, r"shots_path='train\.jsonl': say how many"),
        ({"mode": "program", "run_programs": True, "metrics": ("rouge",)}, r"programs give answers"),
        ({"answer_type": "words"}, r"answer_type='words': must be one of any"),
        ({"run_programs": "always"}, r"run_programs='always': must be one of False, True, unconfined"),
        ({"run_programs": 1}, r"run_programs=1: needs one of False, True, unconfined"),
    ],
)
def test_fields_that_disagree_are_refused(folder, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        make_run(tmp_path, folder, **options)


def test_a_stored_file_is_graded_again(asked, folder, tmp_path, capsys):
    asked.answers = {"1 + 1": "2", "2 + 2": "print(4)"}
    made = make_run(tmp_path / "run", folder, mode="program", run_programs=True)
    evaluate(made)
    file = made.workdir / "evaluation/untuned/gsm8k/predictions.jsonl"
    stored = file.read_text()
    assert regrade([str(made.workdir), "--out", str(tmp_path / "again")]) == 0
    assert "40.0 % (11.8 to 76.9) of 5 rows, 40.0 % before" in capsys.readouterr().out
    assert (tmp_path / "again/evaluation/untuned/gsm8k/predictions.jsonl").read_text() == stored
    rows = [json.loads(line) for line in stored.splitlines()]
    rows[1]["correct"] = False
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert regrade([str(file), "--run-programs"]) == 0
    said, note = capsys.readouterr()
    assert note == f"{file} is not as it was written: what it holds now is graded\n"
    assert "40.0 % (11.8 to 76.9) of 5 rows, 20.0 % before" in said
    assert "row 1: '2' for '2' is right now" in said
    assert regrade([str(file), "--run-programs", "--unconfined"]) == 0
    assert "40.0 % (11.8 to 76.9) of 5 rows, 20.0 % before" in capsys.readouterr().out
    assert regrade([str(file), "--out", str(file)]) == 2
    assert "would replace" in capsys.readouterr().err


def test_answers_from_elsewhere_are_graded(tmp_path, capsys):
    file = tmp_path / "answers.jsonl"
    file.write_text(
        '{"response": "so 12 apples", "reference": "#### 12"}\n{"response": "13", "reference": "12"}\n'
    )
    assert regrade([str(file), "--benchmark", "gsm8k", "--out", str(tmp_path / "out.jsonl")]) == 0
    assert "50.0 %" in capsys.readouterr().out
    assert [p.correct for p in read_predictions(tmp_path / "out.jsonl")] == [True, False]
    assert regrade([str(file)]) == 2
    assert "Set --benchmark or --answer-type" in capsys.readouterr().err
    file.write_text('{"response": "1", "reference": "1"}\n{"response": 2, "reference": "1"}\n')
    assert regrade([str(file), "--answer-type", "number"]) == 2
    assert 'answers.jsonl:2: its "response" is 2' in capsys.readouterr().err
    file.write_text('{"response": "7", "reference": "#### 7"}\n{"response": "7", "reference": "seven"}\n')
    assert regrade([str(file), "--answer-type", "number"]) == 2
    assert "answers.jsonl, row 1: the reference 'seven' is no number" in capsys.readouterr().err
    assert regrade([str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_predictions_survive_json():
    program = ProgramRun("print(1)", "1\n", "")
    made = Prediction(
        1, "s", "l", "t", "p", "r", 2, program, Response("p", "r", 2, program), "1", "1", "1", True, "x", None
    )
    assert Prediction.from_json(json.loads(json.dumps(made.as_json()))) == made


def test_needs_text():
    assert needs_text(Response("", "print(1)", 0, ProgramRun("", "", "it printed nothing")))
    assert not needs_text(Response("", "print(1)", 0, ProgramRun("", "1", "")))
    assert not needs_text(Response("", "It is 1.", 0))
    assert needs_text(Response("", " \n", 0))


def test_tables_show_intervals_and_averages():
    def row(number, correct):
        return Prediction(
            number, "x", f"Level {number % 2}", "", "", "", 0, None, None, "", "", "", correct, "", None
        )

    found = [row(n, n < 3) for n in range(4)]
    of = {name: summarise(found) | {"domain": domain} for name, domain in (("gsm8k", "in"), ("svamp", "out"))}
    evaluations = {"s2l": combine(of), "elsewhere": {"overall": {"accuracy": 0.5}}}
    header, rows = benchmark_table(evaluations)
    assert header == ["model", "gsm8k", "in-domain mean", "svamp", "out-of-domain mean", "mean of all"]
    assert rows[0][:2] == ["s2l", "75.0 [30.1–95.4]"]
    assert rows[0][5].startswith("75.0 [4")  # narrower than one benchmark's
    assert rows[1] == ["elsewhere", "-", "-", "-", "-", "50.0"]
    header, rows = part_table(evaluations)
    assert header == ["benchmark", "part", "rows", "s2l", "elsewhere"]
    assert [row[:3] for row in rows] == [[n, f"Level {k}", "2"] for n in ("gsm8k", "svamp") for k in (0, 1)]


def test_sources_of_one_name_are_told_apart():
    """A benchmark's, and those of two files of held-out rows."""

    def held_out(**correct):
        sources = {name: {"num_examples": 2, "accuracy": right / 2} for name, right in correct.items()}
        return {"num_examples": 4, "num_without_loss": 4, "domain": "", "sources": sources}

    gsm8k = {"num_examples": 9, "num_without_loss": 9, "domain": "in", "heldout_loss": 1.0, "sources": {}}
    gsm8k |= {"accuracy": 1 / 3, "interval": [0.1, 0.6], "num_without_loss": 0}
    found = combine({"gsm8k": gsm8k, "a": held_out(gsm8k=2, x=1), "b": held_out(x=0, y=1)}, ["gsm8k"])
    found = found["sources"]
    accuracies = {name: each["accuracy"] for name, each in found.items()}
    assert accuracies == {"gsm8k": 1 / 3, "a: gsm8k": 1.0, "a: x": 0.5, "b: x": 0.0, "y": 0.5}


def test_each_of_several_benchmarks_has_its_metrics():
    read = {"num_examples": 4, "num_without_loss": 4, "domain": "", "sources": {}}
    both = {name: read | {"metrics": {"bleu": {"score": score}}} for name, score in (("a", 10), ("b", 20))}
    found = combine(both | {"c": read})
    assert benchmark_table({"s2l": found}) == (["model", "a BLEU", "b BLEU"], [["s2l", "10.0", "20.0"]])


def test_benchmarks_of_neither_domain_have_a_table_where_there_are_several():
    def benchmark(correct):
        return {"num_examples": 4, "domain": "", "accuracy": correct / 4}

    both = {"mmlu": benchmark(1), "own": benchmark(3)}
    evaluations = {"s2l": {"benchmarks": both, "overall": {"accuracy": 0.5}}}
    assert benchmark_table(evaluations) == (
        ["model", "mmlu", "own", "mean of all"],
        [["s2l", "25.0", "75.0", "50.0"]],
    )
    both["read"] = {"num_examples": 4, "domain": "in"}  # no answers were graded
    assert benchmark_table(evaluations)[0] == ["model", "mmlu", "own", "mean of all"]
    del both["own"]
    assert benchmark_table(evaluations) == ([], [])
