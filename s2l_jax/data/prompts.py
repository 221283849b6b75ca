"""Prompt templates: what a model reads before the response, and the response it learns."""

from collections.abc import Callable
from typing import Any

from s2l_jax.data.chat import CHAT, render_chat, render_turns
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.pool_messages import single_turn
from s2l_jax.errors import InputError

TURNS = ("last", "all")
Template = Callable[[PoolRow], tuple[str, str]]

# The wording of Stanford Alpaca (tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT). MAmmoTH trains
# with it (utils.py, PROMPT_TEMPLATE_SINGLE) and the official S2L code takes it over (utils.py,
# PROMPT_DICT). Nothing follows the last colon, not even a space.
_ALPACA = (
    "Below is an instruction that describes a task{context}. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n{input}### Response:"
)

# The official S2L code's for MIMIC-III (consts.py, RADIOLOGY_PROMPT_DICT), spelt and spaced as there.
_RADIOLOGY_OFFICIAL = (
    "Below are the findings in a radiology report. Write an impression that diagnostically summarizes the "
    "findings.\n\n ### Findings:\n{findings}\n\n### Inpression:"
)

RADIOLOGY_TASK = "Write the impression of a radiology report with these findings."


def render(template: str, row: PoolRow, tokenizer: Any = None, turns: str = "last") -> tuple[str, ...]:
    """The prompt and the response of a row, without the end-of-sequence token.

    With several responses it is prompt, response, prompt, response and so on, which together are the text.

    Args:
      template: a name in TEMPLATES, or "chat" for the tokeniser's own chat template.
      row: where it has messages, a template of TEMPLATES takes those of a single turn.
      tokenizer: for "chat".
      turns: of a conversation, "last" has one response, its last message; under "all" every answer of the
        assistant to the user is one, but for those that the row's maker left out of training.

    Raises:
      InputError: there is no such template, or it has no room for the row's messages.
    """
    if turns not in TURNS:
        raise InputError(f"turns={turns!r}: choose one of {', '.join(TURNS)}.")
    if template == CHAT:
        if tokenizer is None:
            raise InputError("the prompt template 'chat' is the tokeniser's own: give the tokeniser")
        return render_turns(tokenizer, row) if turns == "all" else render_chat(tokenizer, row)
    if template not in TEMPLATES:
        raise InputError(
            f"prompt template {template!r} is not known; choose one of {', '.join([*TEMPLATES, CHAT])}"
        )
    if row.messages and single_turn(row.messages) is None:
        raise InputError(
            f"{row.place}: the row has several turns, for which the prompt template {template!r} has no "
            'room: set tokenize.prompt="chat", or keep one message of the user and the response.'
        )
    if row.tools:
        raise InputError(
            f"{row.place}: the row has tools, for which the prompt template {template!r} has no room: set "
            'tokenize.prompt="chat", or pool.fields.tools="" to leave them out.'
        )
    return TEMPLATES[template](row)


def _alpaca(row: PoolRow) -> tuple[str, str]:
    context = ", paired with an input that provides further context" if row.input else ""
    given = f"### Input:\n{row.input}\n\n" if row.input else ""
    return _ALPACA.format(context=context, instruction=row.instruction, input=given), row.output


def _plain(row: PoolRow) -> tuple[str, str]:
    lines = [row.instruction, row.input] if row.input else [row.instruction]
    return "\n".join(lines) + "\n", row.output


def _radiology(row: PoolRow) -> tuple[str, str]:
    """Findings in the input and the task in the instruction, or findings in the instruction."""
    task, findings = row.instruction, row.input
    if not findings:
        task, findings = RADIOLOGY_TASK, row.instruction
    return f"{task}\n\nFindings:\n{findings}\n\nImpression:", row.output


def _radiology_official(row: PoolRow) -> tuple[str, str]:
    """As in the official code, instruction and input are both findings; its wording holds the task."""
    parts = [row.instruction, row.input] if row.input else [row.instruction]
    findings = "\n".join(part for part in parts if part != RADIOLOGY_TASK)
    return _RADIOLOGY_OFFICIAL.format(findings=findings), row.output


TEMPLATES: dict[str, Template] = {
    "alpaca": _alpaca,
    "plain": _plain,
    "radiology": _radiology,
    "radiology_official": _radiology_official,
}
