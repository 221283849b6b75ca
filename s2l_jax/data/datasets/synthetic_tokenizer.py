"""The embedded models' tokeniser: every byte, and a token for each word of the embedded data."""

import re

from etils import epath

from s2l_jax import artifacts
from s2l_jax.data.datasets.synthetic_tasks import CHANGE_WORDS, DAYS, FILLERS, PLACES, TASKS, UNITS

END_OF_SEQUENCE = "<|endoftext|>"
PADDING = "<|padding|>"
WORD = r" ?[A-Z]?[a-z]+"  # a word takes its leading space along; all else is one token per byte
MAX_LENGTH = 96


def vocabulary_words() -> list[str]:
    """The words of the embedded data as they occur, with or without a leading space; sorted."""
    templates = [text for task in TASKS for text in (*task.wordings, task.terse, f" {task.terse}")]
    words = {word for text in templates for word in re.findall(WORD, re.sub(r"{\w+}", "{}", text))}
    names = {name for unit in UNITS for name in unit[:2]}
    words |= {f" {word}" for word in (*PLACES, *DAYS, *CHANGE_WORDS, *FILLERS, *names)}
    words |= {*PLACES, *DAYS, *FILLERS, "larger", "smaller"}
    return sorted(words)


def write_tokenizer(directory: epath.PathLike) -> None:
    """Write the tokeniser as an HF directory: tokenizer.json and tokenizer_config.json.

    Token ids: 0 end of sequence, 1 padding, 2 to 257 the bytes, then the words. Decoding gives back
    any text exactly.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = [to_bytes.pre_tokenize_str(word)[0][0] for word in vocabulary_words()]
    vocabulary = {token: i for i, token in enumerate([END_OF_SEQUENCE, PADDING, *alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    split = pre_tokenizers.Split(Regex(WORD), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in (END_OF_SEQUENCE, PADDING)]
    )
    directory = epath.Path(directory)
    artifacts.write_text(directory / "tokenizer.json", tokenizer.to_str(pretty=False))
    artifacts.write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_SEQUENCE,
            "eos_token": END_OF_SEQUENCE,
            "pad_token": PADDING,
            "model_max_length": MAX_LENGTH,
            "clean_up_tokenization_spaces": False,
        },
    )
