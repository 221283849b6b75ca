"""Tokenisers with the chat templates of well-known families."""

import dataclasses

import pytest

from s2l_jax.data.pool import row_of
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import tokenize

transformers = pytest.importorskip("transformers")

CHATML = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA3 = """\
{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}\
<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

PHI3 = """\
{% for m in messages %}<|{{ m.role }}|>
{{ m.content }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% else %}{{ eos_token }}{% endif %}"""

GEMMA = """\
{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}\
{% endif %}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

# As Qwen3 does: the last answer opens with a block of thought, empty where there is none.
THINKING = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and loop.last %}{% if '</think>' in m.content %}<think>
{{ m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') }}
</think>

{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% else %}<think>

</think>

{{ m.content }}{% endif %}{% else %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""

LLAMA2 = """\
{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]\
{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"""

UNMARKED = """\
{% for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A family of chat models: its template, its tokens, and what they mean."""

    template: str
    tokens: tuple[str, ...]  # beside <s> and </s>
    header: tuple[str, ...]  # the last tokens of a prompt
    closing: tuple[str, ...]  # what a response ends with
    starts: bool = False  # the template writes the beginning-of-sequence token
    system: bool = True
    eats_space: bool = False  # the added tokens take the white space after them


KINDS = {
    "chatml": Kind(CHATML, ("<|im_start|>", "<|im_end|>"), ("assistant", "Ċ"), ("<|im_end|>",)),
    "llama3": Kind(
        LLAMA3,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ("<|end_header_id|>", "Ċ", "Ċ"),
        ("<|eot_id|>",),
        starts=True,
    ),
    "phi3": Kind(
        PHI3,
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ("<|assistant|>",),
        ("<|end|>", "</s>"),
        eats_space=True,
    ),
    "gemma": Kind(
        GEMMA,
        ("<start_of_turn>", "<end_of_turn>"),
        ("model", "Ċ"),
        ("<end_of_turn>",),
        starts=True,
        system=False,
    ),
    "thinking": Kind(
        THINKING, ("<|im_start|>", "<|im_end|>", "<think>", "</think>"), ("Ċ", "Ċ"), ("<|im_end|>",)
    ),
    "unmarked": Kind(UNMARKED, (), (":", "Ġ"), ("</s>",)),
}


def make_tokenizer(kind, template=None):
    """Bytes and a few words, with the kind's tokens; by itself it begins every text with <s>."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in ("assistant", "model"):
        for end in range(2, len(word) + 1):
            merges.append((word[: end - 1], word[end - 1]))
            pieces.append(word[:end])
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, rstrip=kind.eats_space) for token in kind.tokens]
    )
    start = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        chat_template=kind.template if template is None else template,
        clean_up_tokenization_spaces=False,
    )


TOKENIZERS = {name: make_tokenizer(kind) for name, kind in KINDS.items()}


def row_with(messages):
    return row_of({"messages": [message._asdict() for message in messages]}, "pool.jsonl:4")


def example_of(tokenizer, row, **options):
    texts = [render("chat", row, tokenizer)]
    (example,) = tokenize(tokenizer, texts, max_length=4096, template="chat", **options)
    return example


def changed(old, new, kind="chatml"):
    assert old in KINDS[kind].template
    return make_tokenizer(KINDS[kind], KINDS[kind].template.replace(old, new))
