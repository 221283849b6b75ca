"""Tokenising: where the response begins, its end-of-sequence token, and the length limit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data.datasets.synthetic_tokenizer import write_tokenizer
from s2l_jax.data.pool import read_rows
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import CommonPrefix, TokenizedList, tokenize
from s2l_jax.errors import InputError
from tests.support.paths import GOLDEN

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The embedded tokeniser: words and bytes."""
    path = tmp_path_factory.mktemp("words")
    write_tokenizer(path)
    return transformers.AutoTokenizer.from_pretrained(path)


def pairs_tokenizer(*, wrapped=False):
    """Letters, with `ab` and `:-` also as one token; `wrapped` adds <s> and </s> by itself."""
    from tokenizers import Tokenizer, models, processors

    letters = ["<s>", "</s>", *"abcdxyz:- \n"]
    vocabulary = {token: i for i, token in enumerate([*letters, "ab", ":-"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b"), (":", "-")]))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    if wrapped:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def tokens_of(tokenizer, example):
    return tokenizer.convert_ids_to_tokens(example.tokens.tolist())


class TestBoundary:
    def test_separate_keeps_the_tokens_of_the_prompt(self):
        (example,) = tokenize(pairs_tokenizer(), [("x:", "-ab")], max_length=20)
        assert tokens_of(pairs_tokenizer(), example) == ["x", ":", "-", "ab", "</s>"]
        assert example.prompt_length == 2
        assert not example.boundary_merged
        assert not example.cut

    def test_official_masks_a_token_across_the_boundary(self):
        """The minus sign is in the last masked token, as in the authors' code."""
        tokenizer = pairs_tokenizer()
        merged, apart = tokenize(tokenizer, [("x:", "-ab"), ("x:", "ab")], max_length=20, boundary="official")
        assert tokens_of(tokenizer, merged) == ["x", ":-", "ab", "</s>"]
        assert merged.prompt_length == 2
        assert merged.boundary_merged
        assert tokens_of(tokenizer, apart) == ["x", ":", "ab", "</s>"]
        assert apart.prompt_length == 2
        assert not apart.boundary_merged

    def test_official_with_the_prompt_taking_up_all_of_a_short_response(self):
        (example,) = tokenize(pairs_tokenizer(), [(":", "-")], max_length=9, boundary="official")
        assert (example.prompt_length, len(example.tokens)) == (1, 2)  # the end alone is learned

    def test_official_with_a_prompt_of_more_tokens_than_the_whole(self, words):
        """` fir` is four bytes, ` first` one word: nothing of the example is left to learn."""
        (example,) = tokenize(words, [(" fir", "st")], max_length=9, boundary="official")
        assert len(example.tokens) == example.prompt_length == 2
        assert example.boundary_merged

    def test_unknown(self):
        with pytest.raises(InputError, match=r"boundary='joint': choose one of separate, official"):
            tokenize(pairs_tokenizer(), [("a", "b")], max_length=9, boundary="joint")


class TestEnd:
    @pytest.mark.parametrize("boundary", ["separate", "official"])
    def test_once_where_the_tokeniser_adds_it_by_itself(self, boundary):
        """Neither doubled at the end nor left between prompt and response."""
        tokenizer = pairs_tokenizer(wrapped=True)
        (example,) = tokenize(tokenizer, [("x:", "d")], max_length=20, boundary=boundary)
        assert tokens_of(tokenizer, example) == ["<s>", "x", ":", "d", "</s>"]
        assert example.prompt_length == 3
        assert not example.boundary_merged

    @pytest.mark.parametrize("boundary", ["separate", "official"])
    def test_once_where_the_response_spells_it_out(self, boundary):
        tokenizer = pairs_tokenizer()
        (example,) = tokenize(tokenizer, [("x", "d</s>")], max_length=20, boundary=boundary)
        assert tokens_of(tokenizer, example) == ["x", "d", "</s>"]

    def test_a_prompt_that_ends_in_it_keeps_it(self):
        tokenizer = pairs_tokenizer()
        (example,) = tokenize(tokenizer, [("x</s>", "d")], max_length=20)
        assert tokens_of(tokenizer, example) == ["x", "</s>", "d", "</s>"]
        assert example.prompt_length == 2


class TestLimit:
    def test_cut(self):
        tokenizer = pairs_tokenizer()
        texts = [("xx", "dd")]
        for limit, kept, cut in [(4, "xxdd", True), (5, "xxdd</s>", False), (3, "xxd", True)]:
            (example,) = tokenize(tokenizer, texts, max_length=limit)
            assert "".join(tokens_of(tokenizer, example)) == kept
            assert example.cut == cut
            assert example.prompt_length == 2

    @pytest.mark.parametrize("boundary", ["separate", "official"])
    @pytest.mark.parametrize("length", [4, 5, 9])
    def test_a_prompt_that_fills_it_leaves_no_response(self, boundary, length):
        (example,) = tokenize(pairs_tokenizer(), [("x" * length, "d")], max_length=4, boundary=boundary)
        assert len(example.tokens) == example.prompt_length == 4
        assert example.cut

    def test_empty_prompt(self):
        (example,) = tokenize(pairs_tokenizer(), [("", "d")], max_length=4)
        assert (example.prompt_length, len(example.tokens)) == (0, 2)


TEXT = st.text(st.sampled_from("abcd:- \n"), min_size=1, max_size=12)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.integers(2, 20), st.booleans())
@settings(max_examples=60, deadline=None)
def test_against_one_text_at_a_time(texts, max_length, official):
    """A slow oracle with the tokeniser's own character offsets."""
    tokenizer = pairs_tokenizer()
    boundary = "official" if official else "separate"
    examples = tokenize(tokenizer, texts, max_length=max_length, boundary=boundary)
    for (prompt, response), example in zip(texts, examples, strict=True):
        if official:
            pieces = tokenizer.tokenize(prompt + response)
        else:
            pieces = tokenizer.tokenize(prompt) + tokenizer.tokenize(response)
        pieces.append("</s>")
        masked = len(tokenizer.tokenize(prompt))
        assert tokens_of(tokenizer, example) == pieces[:max_length]
        assert example.prompt_length == min(masked, max_length)
        assert example.cut == (len(pieces) > max_length)
        ends = set(np.cumsum([len(piece) for piece in pieces]).tolist())
        assert example.boundary_merged == (len(prompt) not in ends)


def test_the_embedded_tokeniser_gives_the_text_back(words):
    texts = [("copy ab é\n", "ab é, 漢字 -12"), ("sort: b a\n", "a b")]
    for boundary in ("separate", "official"):
        examples = tokenize(words, texts, max_length=96, boundary=boundary)
        for (prompt, response), example in zip(texts, examples, strict=True):
            split = example.prompt_length
            assert words.decode(example.tokens[:split]) == prompt
            assert words.decode(example.tokens[split:]) == response + words.eos_token
            assert example.tokens.dtype == np.int32


def test_held_in_memory(words):
    examples = tokenize(words, [("copy a\n", "a"), ("b\n", "bb")], max_length=96)
    held = TokenizedList(examples)
    assert held.lengths.tolist() == [len(e.tokens) for e in examples]
    assert held.prompt_lengths.tolist() == [e.prompt_length for e in examples]
    for number, tokens in zip([1, 0], held.read([1, 0]), strict=True):
        assert np.array_equal(tokens, examples[number].tokens)


@given(st.lists(st.lists(st.integers(0, 1), max_size=6), max_size=5))
@settings(max_examples=200, deadline=None)
def test_the_common_prefix(sequences):
    shared = CommonPrefix()
    for tokens in sequences:
        shared.add(np.array(tokens, np.int32))
    found, size = shared.tokens.tolist(), len(shared.tokens)
    assert all(tokens[:size] == found for tokens in sequences)
    one_more = {tuple(tokens[: size + 1]) for tokens in sequences}
    assert not sequences or len(one_more) > 1 or min(map(len, sequences)) == size


def test_pythia_merges_the_minus_sign_of_real_answers(data_dir):
    """On MathMix a token spans the boundary in 18 % of the rows: a colon and a minus sign."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(data_dir / "pythia")
    rows = list(read_rows(str(data_dir / "pool" / "mathmix.jsonl"), limit=3000))
    assert_minus_signs_are_merged(tokenizer, rows, share=0.18)


def test_byte_level_bpe_merges_the_minus_sign_of_answers():
    tokenizer = transformers.AutoTokenizer.from_pretrained(GOLDEN / "tokenizer")
    assert_minus_signs_are_merged(tokenizer, list(read_rows(GOLDEN / "rows.jsonl")), share=0.18)


def assert_minus_signs_are_merged(tokenizer, rows, share):
    texts = [render("alpaca", row) for row in rows]
    official = tokenize(tokenizer, texts, max_length=512, boundary="official")
    separate = tokenize(tokenizer, texts, max_length=512)
    merged = np.array([example.boundary_merged for example in official])
    negative = np.array([response.startswith("-") for _, response in texts])
    assert not any(example.boundary_merged for example in separate)
    assert merged.mean() == pytest.approx(share, abs=0.02)
    assert (merged == negative).mean() > 0.99
    for number in np.flatnonzero(~merged):
        assert np.array_equal(official[number].tokens, separate[number].tokens)
        assert official[number].prompt_length == separate[number].prompt_length
