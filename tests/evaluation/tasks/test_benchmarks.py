"""Benchmarks are read as their files are, named where they are bad, and asked as their protocols say."""

import contextlib
import io
import json
import subprocess
import sys

import pytest

from s2l_jax.data.pool import FieldMap, PoolRow
from s2l_jax.errors import InputError
from s2l_jax.evaluation.grading.grader import Grader
from s2l_jax.evaluation.sandbox.extraction import extract_program
from s2l_jax.evaluation.tasks import reading as module
from s2l_jax.evaluation.tasks.benchmark import BENCHMARKS, Problem
from s2l_jax.evaluation.tasks.prompting import PromptBuilder, read_examples
from s2l_jax.evaluation.tasks.reading import read_problems, source_path
from s2l_jax.models import hf

SIX = ("gsm8k", "math", "numglue", "svamp", "mathematics", "simuleq")

# A row or two in the schema of each published file.
ROWS = {
    "gsm8k": [
        {"question": "Ann has 3 pens and buys 4. How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
        {"question": "And 2 more?", "answer": "It is 9.\n#### 9"},
    ],
    "math": [
        {
            "problem": "What is $1+1$?",
            "level": "Level 1",
            "type": "Algebra",
            "solution": r"It is $\boxed{2}$.",
            "idx": 0,
        },
        {
            "problem": "Half of $3$?",
            "level": "Level 2",
            "type": "Algebra",
            "solution": r"It is $\boxed{\frac{3}{2}}$.",
            "idx": 1,
        },
    ],
    "numglue": [
        {"question": "Which? \nAnswer Choices: (A) wood (B) ice", "answer": "B", "type": "Type_3"},
        {"question": "12 and 5 are _____", "answer": 17, "type": "Type_4"},
    ],
    "svamp": [
        {
            "ID": "chal-1",
            "Body": "Tom had 8 figs and ate 3",
            "Question": "How many are left?",
            "Equation": "( 8.0 - 3.0 )",
            "Answer": 5.0,
            "Type": "Subtraction",
        }
    ],
    "mathematics": [{"question": "Solve x - 2 = 1 for x.", "answer": "3"}],
    "simuleq": [{"question": "Two numbers add to 5 and differ by 1. What are they?", "answer": "3"}],
}


def write(folder, name, rows, ending):
    folder.mkdir(exist_ok=True, parents=True)
    file = folder / f"{name}{ending}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(lines if ending == ".jsonl" else json.dumps(rows))
    return file


@pytest.fixture
def six(tmp_path):
    """A folder with the six files."""
    for name, rows in ROWS.items():
        write(tmp_path / "eval", name, rows, ".jsonl" if name in ("gsm8k", "math") else ".json")
    return tmp_path / "eval"


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"unknown benchmark: 'gms8k'; did you mean 'gsm8k'\?.*simuleq"):
        BENCHMARKS.find("gms8k")


@pytest.mark.parametrize("name", SIX)
def test_made_up_files_are_read_like_the_published_ones(six, name):
    problems = list(read_problems(BENCHMARKS.find(name), str(six)))
    assert len(problems) == len(ROWS[name])
    assert [problem.row.id for problem in problems] == list(range(len(problems)))
    assert all(problem.row.source == name for problem in problems)
    assert problems[0].row.original == ROWS[name][0]


def test_what_rows_say(six):
    first = {name: next(iter(read_problems(BENCHMARKS.find(name), str(six)))) for name in SIX}
    assert first["gsm8k"].reference.endswith("#### 7")
    assert first["gsm8k"].row.output == first["gsm8k"].reference
    assert (first["math"].level, first["math"].type) == ("Level 1", "Algebra")
    assert first["svamp"].row.instruction == "Tom had 8 figs and ate 3 How many are left?"
    assert (first["svamp"].reference, first["svamp"].type) == ("5", "Subtraction")
    assert first["numglue"].type == "Type_3"
    assert first["simuleq"].row.output == "The answer is 3"
    assert [first[name].worked for name in SIX] == [True, True, False, False, False, False]


@pytest.mark.parametrize(("name", "rows"), list(zip(SIX, (1319, 5000, 1042, 1000, 1000, 514), strict=True)))
def test_published_files(data_dir, name, rows):
    benchmark = BENCHMARKS.find(name)
    problems = list(read_problems(benchmark, str(data_dir / "eval")))
    assert len(problems) == rows == benchmark.size
    assert all(problem.row.instruction and problem.reference for problem in problems)
    if name == "math":
        assert {problem.level for problem in problems} == {f"Level {n}" for n in range(1, 6)}
        assert len({problem.type for problem in problems}) == 7


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("gsm8k", {"answer": "#### 1"}, r'has no field "question"; it has "answer"'),
        ("gsm8k", {"question": "q", "answer": "12"}, r'its "answer" has no "####"'),
        ("gsm8k", {"question": "  ", "answer": "#### 1"}, r'its "question" is empty'),
        ("math", {"problem": "q", "solution": "2"}, r'its "solution" has no \\boxed'),
        ("svamp", {"Body": "b", "Question": "q", "Answer": None}, r'its "Answer" is null'),
        ("numglue", {"question": "q", "answer": ["A"], "type": "t"}, r'its "answer" is not text but list'),
        ("simuleq", [1], r"is not a JSON object but list"),
    ],
)
def test_a_bad_row_is_named(tmp_path, name, row, message):
    file = write(tmp_path, name, [ROWS[name][0], row], ".jsonl")
    with pytest.raises(InputError, match=rf"{name}\.jsonl:2: .*{message}.*row of {name}"):
        list(read_problems(BENCHMARKS.find(name), str(file)))


def test_a_broken_line_and_an_empty_file_are_named(tmp_path):
    (tmp_path / "gsm8k.jsonl").write_text('{"question": \n')
    with pytest.raises(InputError, match=r"gsm8k\.jsonl:1: is not JSON"):
        list(read_problems(BENCHMARKS.find("gsm8k"), str(tmp_path)))
    (tmp_path / "gsm8k.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"has no rows of gsm8k"):
        list(read_problems(BENCHMARKS.find("gsm8k"), str(tmp_path)))


def test_folders(tmp_path):
    benchmark = BENCHMARKS.find("svamp")
    (tmp_path / "flat").mkdir()
    with pytest.raises(
        InputError, match=r"no file of svamp, such as svamp\.jsonl or svamp\.json; .*svamp=PATH"
    ):
        source_path(benchmark, str(tmp_path / "flat"))
    inner = write(tmp_path / "mammoth" / "svamp", "SVAMP", ROWS["svamp"], ".json")  # as MAmmoTH has them
    assert source_path(benchmark, str(tmp_path / "mammoth")) == str(inner)
    write(tmp_path / "mammoth", "svamp", ROWS["svamp"], ".jsonl")
    with pytest.raises(InputError, match=r"several files of svamp"):
        source_path(benchmark, str(tmp_path / "mammoth"))
    assert source_path(benchmark, "elsewhere/x.json") == "elsewhere/x.json"


def test_hub_datasets_are_read_by_their_splits(monkeypatch):
    asked = []

    def sources(dataset, format, split):
        asked.append((dataset, format, split))
        return [lambda: iter([module.RawRow(f"{dataset}:1", ROWS["svamp"][0] | {"Answer": "5.0"})])]

    monkeypatch.setattr(module, "find_sources", sources)
    problems = list(read_problems(BENCHMARKS.find("svamp"), "hub"))
    assert asked == [("ChilleD/SVAMP", "hub", "train"), ("ChilleD/SVAMP", "hub", "test")]
    assert [problem.reference for problem in problems] == ["5", "5"]
    with pytest.raises(InputError, match="numglue is not on the hub as it is evaluated"):
        list(read_problems(BENCHMARKS.find("numglue"), "hub"))


def test_held_out_rows_of_a_saved_dataset_are_of_its_split_test(tmp_path):
    """Those in the pool's schema too: never the rows that are trained on."""
    datasets = pytest.importorskip("datasets")
    splits = {
        name: datasets.Dataset.from_list([{"instruction": f"{name}?", "output": name}])
        for name in ("train", "test")
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "both")
    held_out = BENCHMARKS.find("pool")
    (problem,) = read_problems(held_out, str(tmp_path / "both"))
    assert problem.reference == "test"
    datasets.DatasetDict({"train": splits["train"]}).save_to_disk(tmp_path / "one")
    with pytest.raises(InputError, match='one has no split "test"; its splits are "train"'):
        list(read_problems(held_out, str(tmp_path / "one")))


def test_a_tfds_directory_is_read(tmp_path):
    """The benchmarks take whatever the pool's readers take."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Made(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = "made"

        def _info(self):
            text = tfds.features.Text()
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict({"question": text, "answer": text})
            )

        def _split_generators(self, manager):
            return {"test": enumerate(ROWS["gsm8k"])}

        def _generate_examples(self):
            raise NotImplementedError

    with contextlib.redirect_stdout(io.StringIO()):
        builder = Made(data_dir=tmp_path, file_format="array_record")
        builder.download_and_prepare()
    problems = list(read_problems(BENCHMARKS.find("gsm8k"), f"tfds:{builder.data_dir}"))
    assert {problem.reference[-1] for problem in problems} == {"7", "9"}


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return hf.load_tokenizer(tiny_checkpoint)


def builder(
    tokenizer, template="alpaca", context=4000, room=10, shots=0, path="", forms=(False, True), name="gsm8k"
):
    benchmark = BENCHMARKS.find(name)
    examples = [
        read_examples(
            benchmark, path, shots if program in forms else 0, program=program, seed=0, fields=FieldMap()
        )
        for program in (False, True)
    ]
    return PromptBuilder(benchmark, template, tokenizer, context, room, shots, *examples)


def problems_of(folder, name):
    return list(read_problems(BENCHMARKS.find(name), str(folder)))


def test_zero_shot_prompts(six, tokenizer):
    made = builder(tokenizer)
    (first, _) = made.prompts(problems_of(six, "gsm8k"))
    assert first.text.startswith("Below is an instruction")
    assert first.text.endswith("### Instruction:\nAnn has 3 pens and buys 4. How many?\n\n### Response:")
    assert first.tokens == tokenizer(first.text)["input_ids"]
    (program, _) = made.prompts(problems_of(six, "gsm8k"), program=True)
    assert program.text == first.text.replace("How many?", "How many? Let's write a program.")
    assert made.stops() == ("### Instruction",)
    assert builder(tokenizer, template="plain").stops() == ()


@pytest.mark.parametrize("template", ["alpaca", "plain", "radiology"])
def test_examples_come_first_in_the_templates_words(six, tokenizer, template):
    zero = builder(tokenizer, template=template).prompts(problems_of(six, "gsm8k"))[0]
    made = builder(tokenizer, template=template, shots=2)
    two = made.prompts(problems_of(six, "gsm8k"))[0]
    assert two.shots == 2
    assert two.text.endswith("\n\n" + zero.text)
    assert two.text.index("12 trays") < two.text.index("The answer is 26") < two.text.index("540 pages")
    assert two.text.count("The answer is") == 2
    assert any(stop in two.text for stop in made.stops())  # what begins the next example ends an answer
    program = made.prompts(problems_of(six, "gsm8k"), program=True)[0]
    assert "print(left)" in program.text
    assert "The answer is" not in program.text
    assert program.text.count("Let's write a program.") == 3


def test_examples_in_a_chat_are_earlier_turns(six, tokenizer):
    import copy

    speaking = copy.deepcopy(tokenizer)
    speaking.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    made = builder(speaking, template="chat", shots=1)
    text = made.prompts(problems_of(six, "gsm8k"))[0].text
    roles = [line.split("]")[0][1:] for line in text.splitlines() if line.startswith("[")]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert text.index("The answer is 26") < text.index("Ann has 3 pens")


def test_examples_of_one_instruction_are_told_apart_by_their_inputs(tmp_path, tokenizer):
    """As of a pool whose rows have all the same task, or the same system message."""
    rows = [{"instruction": "Double it.", "input": f"{n}", "output": f"It is {2 * n}."} for n in range(3)]
    train = write(tmp_path, "train", rows, ".jsonl")
    made = builder(tokenizer, name="pool", shots=2, path=str(train), forms=(False,))
    for row, prompt in zip(rows, made.prompts(problems_of(train, "pool")), strict=True):
        assert prompt.shots == 2
        assert row["output"] not in prompt.text


def test_a_system_message_stays_the_systems(tmp_path, tokenizer, monkeypatch):
    import copy

    def talk(n):
        said = {"system": "Be brief.", "user": f"Double {n}.", "assistant": f"x = {n}\nprint(2 * x)"}
        return {"messages": [{"role": role, "content": content} for role, content in said.items()]}

    train = write(tmp_path, "train", [talk(n) for n in range(3)], ".jsonl")
    speaking = copy.deepcopy(tokenizer)
    speaking.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    made = builder(speaking, name="pool", template="chat", shots=1, path=str(train), forms=(True,))
    (first, *_) = made.prompts(problems_of(train, "pool"), program=True)
    roles = [line.split("]")[0][1:] for line in first.text.splitlines() if line.startswith("[")]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert first.text.startswith("[system] Be brief.\n[user] Double ")
    assert first.text.endswith("[user] Double 0. Let's write a program.\n[assistant] ")
    assert first.text.count("Let's write a program.") == 2


def test_an_empty_line_ends_an_answer_unless_answers_have_some(tmp_path, tokenizer):
    """The template "plain" has no other sign that the next example begins."""
    for between, stops in (("\n", ("\n\n",)), ("\n\n", ())):
        rows = [{"instruction": f"{n}?", "output": f"First.{between}Then {n}."} for n in range(3)]
        train = write(tmp_path, "train", rows, ".jsonl")
        shown = {"template": "plain", "shots": 2, "path": str(train), "forms": (False,)}
        assert builder(tokenizer, name="pool", **shown).stops() == stops


def test_examples_that_do_not_fit_are_left_out(six, tokenizer):
    whole = builder(tokenizer, shots=4).prompts(problems_of(six, "gsm8k"))
    lengths = [len(p.tokens) for p in builder(tokenizer).prompts(problems_of(six, "gsm8k"))]
    two = [len(p.tokens) for p in builder(tokenizer, shots=2).prompts(problems_of(six, "gsm8k"))]
    assert [p.shots for p in whole] == [4, 4]
    room = 10  # what `builder` leaves
    fitted = builder(tokenizer, shots=4, context=max(two) + room, room=room).prompts(
        problems_of(six, "gsm8k")
    )
    assert [p.shots for p in fitted] == [2, 2]
    bare = builder(tokenizer, shots=4, context=max(lengths) + 1).prompts(problems_of(six, "gsm8k"))
    assert [p.shots for p in bare] == [0, 0]
    with pytest.raises(
        InputError, match=r"gsm8k\.jsonl:1: its prompt has \d+ tokens, the target's context is"
    ):
        builder(tokenizer, context=max(lengths)).prompts(problems_of(six, "gsm8k"))


def test_examples_are_drawn_from_a_training_file_without_the_question_itself(tmp_path, tokenizer):
    rows = [{"question": f"What is {n} + 1?", "answer": f"So.\n#### {n + 1}"} for n in range(4)]
    train = write(tmp_path, "gsm8k", rows, ".jsonl")
    made = builder(tokenizer, shots=3, path=str(train.parent), forms=(False,))
    prompts = made.prompts(problems_of(train, "gsm8k"))
    for row, prompt in zip(rows, prompts, strict=True):
        assert prompt.shots == 3
        assert prompt.text.count(row["question"]) == 1
    with pytest.raises(InputError, match=r"shots=5: .* has 4 examples with a worked answer for gsm8k"):
        builder(tokenizer, shots=5, path=str(train), forms=(False,))


def test_program_examples_come_from_rows_in_the_pools_schema(tmp_path, tokenizer):
    rows = [
        {"instruction": "Double 4.", "output": "x = 4\nprint(2 * x)"},
        {"instruction": "Double 5.", "output": "It is 10. The answer is 10"},
    ]
    file = write(tmp_path, "train", rows, ".jsonl")
    made = builder(tokenizer, shots=1, path=str(file))
    assert [row.output for row in made.programs] == [rows[0]["output"]]
    assert [row.output for row in made.examples] == [rows[1]["output"]]


def test_too_many_written_examples_are_refused():
    with pytest.raises(InputError, match=r"shots=9: this package has 4 examples .* for math; lower it"):
        read_examples(BENCHMARKS.find("math"), "", 9, program=False, seed=0, fields=FieldMap())


def test_a_conversation_cannot_be_asked_for_a_program():
    from s2l_jax.data.pool_messages import Message

    talk = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))
    row = PoolRow(0, "", "", "d", "all", {}, "talk.jsonl:1", talk)
    made = PromptBuilder(BENCHMARKS.find("pool"), "chat", None, 100, 10)
    with pytest.raises(InputError, match=r"talk\.jsonl:1: a conversation of several turns"):
        made.rows([Problem(row, "d", True)], program=True)


def test_written_examples_are_right():
    """Each example's worked answer and what its program prints are the same answer."""
    examples = list(dict.fromkeys(example for each in BENCHMARKS.values() for example in each.exemplars))
    code = "".join(f"exec({example.program!r}, {{}})\n" for example in examples)
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    printed = ran.stdout.splitlines()
    assert all(extract_program(example.program) is not None for example in examples)
    assert all(extract_program(example.text) is None for example in examples)
    with Grader() as grader:
        outputs = [f"The answer is {line}" for line in printed]
        verdicts = grader.grade("any", outputs, [example.text for example in examples])
    assert [example.question for example, v in zip(examples, verdicts, strict=True) if not v.correct] == []


def test_the_registry_is_whole():
    read = {name: each.answered_by for name, each in BENCHMARKS.items() if each.reader}
    assert read == dict.fromkeys(SIX, "text") | {"mmlu": "choices", "humaneval": "tests"}
    assert set(SIX) == {name for name, each in BENCHMARKS.items() if each.exemplars}
    assert [name for name in SIX if BENCHMARKS.find(name).domain == "in"] == ["gsm8k", "math", "numglue"]
