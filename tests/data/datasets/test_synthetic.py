"""The embedded pool: reproducible, skewed, partly wrong on purpose, and otherwise right."""

import collections
import json
import pathlib
import re
import zlib

import pytest

from s2l_jax.data.datasets import synthetic, synthetic_tasks, synthetic_tokenizer
from s2l_jax.errors import InputError

BASE = pathlib.Path(synthetic.__file__).parent / "base"
MODELS = ("proxy", "target")
POOL = synthetic.pool_rows(4000, seed=0)
HELDOUT = synthetic.heldout_rows(25, seed=0)
DAY_NAMES = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
PER_UNIT = {
    ("weeks", "days"): 7,
    ("hours", "minutes"): 60,
    ("minutes", "seconds"): 60,
    ("days", "hours"): 24,
    ("years", "months"): 12,
    ("dozens", "eggs"): 12,
    ("metres", "centimetres"): 100,
    ("kilograms", "grams"): 1000,
    ("yards", "feet"): 3,
    ("feet", "inches"): 12,
}


def solve(source: str, instruction: str) -> str:
    """Answer an instruction from its text alone, knowing nothing of how it was made."""
    codes = re.findall(r"\b[A-Z]{3,}\b", instruction)
    letters = re.findall(r"\b[A-Z]\b", instruction)
    numbers = [int(number) for number in re.findall(r"\d+", instruction)]
    words = re.findall(r"[A-Za-z]+", instruction)
    if source == "copy":
        return codes[0]
    if source == "reverse":
        return "".join(reversed(codes[0]))
    if source == "lookup":
        table, question = re.fullmatch(r".*\[(.*)\](.*)", instruction).groups()
        ages = {entry[0]: entry[1:] for entry in table.split(",")}
        return ages[re.search(r"\b[A-Z]\b", question).group()]
    if source == "weekday":
        (day,) = [word for word in words if word in DAY_NAMES]
        step = 1 if "after" in words else -1
        place = DAY_NAMES.index(day)
        for _ in range(numbers[0]):
            place = (place + step + 7) % 7
        return DAY_NAMES[place]
    if source == "letter_at":
        code = codes[0]
        by_word = {"first": code[0], "second": code[1], "third": code[2], "last": code[-1]}
        (place,) = [word for word in words if word in by_word]
        return by_word[place]
    if source == "compare":
        return str(max(numbers) if "larger" in words else min(numbers))
    if source == "add":
        return str(sum(numbers))
    if source == "subtract":
        return str(abs(numbers[0] - numbers[1]))
    if source == "count":
        return str(sum(letter == letters[0] for letter in codes[0]))
    if source == "sort":
        code = codes[0] if codes else re.findall(r"\d+", instruction)[0]
        ascending = "".join(sorted(code))
        return ascending if "rising" in words else ascending[::-1]
    if source == "edit":
        code, letter = codes[0], letters[0]
        if "replace" in words:
            return re.sub(letter, letters[1], code)
        if "remove" in words:
            return re.sub(letter, "", code)
        if "double" in words:
            return re.sub(letter, letter + letter, code)
        return code + letter if "end" in words else letter + code
    if source == "units":
        (factor,) = [f for pair, f in PER_UNIT.items() if set(pair) <= set(words)]
        return str(numbers[0] * factor)
    raise AssertionError(f"no solver for {source}")


def graded(output: str) -> str:
    return output.split("#### ")[1] if "####" in output else output


@pytest.mark.parametrize("rows", [POOL, HELDOUT, synthetic.pool_rows(600, seed=7)])
def test_an_independent_solver_agrees_with_every_clean_row_and_with_no_other(rows):
    for row in rows:
        right = solve(row["source"], row["instruction"])
        assert row["answer"] == right, row
        assert (graded(row["output"]) == right) == row["clean"], row


def test_worked_steps_are_true_equations():
    worked = [row["output"] for row in (*POOL, *HELDOUT) if "=" in row["output"]]
    assert len(worked) > 300
    for output in worked:
        steps, answer = output.split("\n#### ")
        for left, right in re.findall(r"([\d+*-]+)=(\d+)", steps):
            assert eval(left) == int(right), output
        assert answer.isdigit()


def test_counts_are_shown_letter_by_letter():
    for row in (*POOL, *HELDOUT):
        if row["source"] == "count" and row["clean"]:
            steps, _, last = row["output"].partition("\n#### ")
            assert steps[::2] in row["instruction"]
            assert steps[-1] == last == max(steps[1::2])


def test_units_and_days_cover_the_tables():
    assert {unit[:2]: unit[2] for unit in synthetic_tasks.UNITS} == PER_UNIT
    assert list(synthetic_tasks.DAYS) == DAY_NAMES


@pytest.mark.parametrize("make", [synthetic.pool_rows, synthetic.base_rows])
def test_rows_are_a_function_of_the_seed(make):
    first = [json.dumps(row) for row in make(300, seed=3)]
    assert first == [json.dumps(row) for row in make(300, seed=3)]
    assert first != [json.dumps(row) for row in make(300, seed=4)]


def test_the_pool_does_not_drift():
    """The base checkpoints and the numbers in the documentation belong to exactly these rows."""
    text = "\n".join(json.dumps(row, sort_keys=True) for row in POOL)
    assert zlib.crc32(text.encode()) == 2331962059


def test_source_sizes_follow_zipfs_law():
    counts = collections.Counter(row["source"] for row in POOL)
    assert counts == synthetic.source_sizes(4000)
    assert len(counts) == 12
    assert sum(counts.values()) == 4000
    sizes = sorted(counts.values(), reverse=True)
    for rank, size in enumerate(sizes, start=1):
        assert size == pytest.approx(sizes[0] / rank**synthetic.ZIPF_EXPONENT, rel=0.02, abs=2)
    assert sizes == list(synthetic.source_sizes(4000).values())


@pytest.mark.parametrize("num_rows", [12, 13, 100, 1234])
def test_every_pool_has_all_sources_and_the_size_asked_for(num_rows):
    rows = synthetic.pool_rows(num_rows)
    assert len(rows) == num_rows
    assert len({row["source"] for row in rows}) == 12


def test_the_order_is_mixed():
    assert len({row["source"] for row in POOL[:100]}) > 8


def test_the_pool_is_redundant_where_it_should_be():
    repeated = {}
    for source in synthetic.source_sizes(4000):
        asked = [row["instruction"] for row in POOL if row["source"] == source]
        repeated[source] = 1 - len(set(asked)) / len(asked)
    assert repeated["copy"] > 0.2
    assert repeated["weekday"] > 0.2
    assert repeated["edit"] < 0.1


def test_a_few_per_cent_are_mislabelled_in_pools_and_none_elsewhere():
    share = sum(not row["clean"] for row in POOL) / len(POOL)
    assert 0.02 < share < 0.04
    assert all(row["clean"] for row in (*HELDOUT, *synthetic.base_rows(500)))


@pytest.mark.parametrize("seed", [0, 1])
def test_heldout_is_balanced_distinct_and_in_no_pool(seed):
    rows = synthetic.heldout_rows(20, seed=seed)
    assert collections.Counter(row["source"] for row in rows) == dict.fromkeys(synthetic.source_sizes(12), 20)
    asked = {row["instruction"] for row in rows}
    assert len(asked) == len(rows)
    for pool in (POOL, synthetic.pool_rows(2000, seed=seed + 1), synthetic.base_rows(2000, seed)):
        assert asked.isdisjoint(row["instruction"] for row in pool)


def test_bad_sizes_are_refused_with_the_fix():
    with pytest.raises(InputError, match="at least 12"):
        synthetic.pool_rows(11)
    with pytest.raises(InputError, match=r"'weekday' has only .* at most that many"):
        synthetic.heldout_rows(10_000)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    directory = tmp_path_factory.mktemp("tokenizer")
    synthetic_tokenizer.write_tokenizer(directory)
    return transformers.AutoTokenizer.from_pretrained(directory)


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def test_the_tokenizer_gives_back_every_row_and_the_rows_are_short(tokenizer):
    rows = [*POOL, *HELDOUT, *synthetic.base_rows(2000)]
    longest = 0
    for row in rows:
        prompt, response = (
            ids_of(tokenizer, row["instruction"] + "\n"),
            ids_of(tokenizer, row["output"]),
        )
        assert tokenizer.decode(prompt) == row["instruction"] + "\n"
        assert tokenizer.decode(response) == row["output"]
        longest = max(longest, len(prompt) + len(response) + 1)
    assert longest <= 64 <= synthetic_tokenizer.MAX_LENGTH


def test_every_word_of_the_rows_is_one_token_and_every_token_is_used(tokenizer):
    rows = [*POOL, *HELDOUT, *synthetic.base_rows(8000)]
    texts = {text for row in rows for text in (row["instruction"], row["output"])}
    found = {word for text in texts for word in re.findall(synthetic_tokenizer.WORD, text)}
    assert found == set(synthetic_tokenizer.vocabulary_words())
    assert all(len(ids_of(tokenizer, word)) == 1 for word in found)


@pytest.mark.parametrize("text", ["", " ", "  a\t\n b ", "Grüße, 東京 🎉", "QZ sort", "x" * 50, "Ab aB"])
def test_the_tokenizer_gives_back_any_text(tokenizer, text):
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_letters_and_digits_are_single_tokens_wherever_they_stand(tokenizer):
    assert ids_of(tokenizer, "QB 47") == [
        *ids_of(tokenizer, "Q"),
        *ids_of(tokenizer, "B"),
        *ids_of(tokenizer, " "),
        *ids_of(tokenizer, "4"),
        *ids_of(tokenizer, "7"),
    ]


@pytest.mark.parametrize("model", MODELS)
def test_base_checkpoints_carry_this_tokenizer(tokenizer, tmp_path, model):
    synthetic_tokenizer.write_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (BASE / model / name).read_text() == (tmp_path / name).read_text()
    config = json.loads((BASE / model / "config.json").read_text())
    assert len(tokenizer) <= config["vocab_size"] < len(tokenizer) + 64
    assert config["eos_token_id"] == tokenizer.eos_token_id != tokenizer.pad_token_id
    assert config["max_position_embeddings"] >= synthetic_tokenizer.MAX_LENGTH


def test_base_checkpoints_are_finite_and_small():
    safetensors = pytest.importorskip("safetensors.numpy")
    parameters = {}
    for model in MODELS:
        tensors = safetensors.load_file(BASE / model / "model.safetensors")
        assert all(abs(tensor.astype("float32")).max() < 100 for tensor in tensors.values())
        parameters[model] = sum(tensor.size for tensor in tensors.values())
    assert parameters["proxy"] * 2 < parameters["target"]
    assert sum(file.stat().st_size for file in BASE.rglob("*")) < 2_000_000
