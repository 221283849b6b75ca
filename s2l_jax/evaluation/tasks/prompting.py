"""Prompts of a benchmark: zero-shot or after solved examples, for a worked answer or for a program."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from s2l_jax.data.chat import CHAT
from s2l_jax.data.order import visit_order
from s2l_jax.data.pool import FieldMap, PoolRow, read_rows
from s2l_jax.data.pool_messages import single_turn
from s2l_jax.data.pool_sources import find_sources
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import tokenize_prompts
from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution.response_programs import find_programs
from s2l_jax.evaluation.tasks.benchmark import Benchmark, Problem
from s2l_jax.evaluation.tasks.reading import HUB, read_problems, source_path

_BETWEEN = "\n\n"  # examples
# MAmmoTH's evaluation cuts answers here; a model that was not tuned to end goes on with another task.
_NEXT_TASK = {"alpaca": ("### Instruction",)}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a model reads before it answers."""

    text: str
    tokens: list[int]
    shots: int  # solved examples in it


@dataclasses.dataclass(frozen=True)
class PromptBuilder:
    """How a benchmark's questions are asked; `room` is in tokens.

    Raises:
      InputError: from `prompts`, a prompt that leaves less room than one token for an answer.
    """

    benchmark: Benchmark
    template: str
    tokenizer: Any
    context: int  # the model's, tokens
    room: int  # that examples leave for an answer
    shots: int = 0
    examples: Sequence[PoolRow] = ()  # with worked answers
    programs: Sequence[PoolRow] = ()  # examples with programs

    def rows(self, problems: Sequence[Problem], *, program: bool = False) -> list[PoolRow]:
        """The problems as rows, zero-shot: the question in the benchmark's words."""
        return [_posed(self.benchmark, problem.row, program) for problem in problems]

    def prompts(self, problems: Sequence[Problem], *, program: bool = False) -> list[Prompt]:
        """The prompt of each problem, with as many examples as fit before `room` and the context's end."""
        rows = self.rows(problems, program=program)
        examples = self.programs if program else self.examples
        # An example that is the question itself is passed over.
        chosen = [[e for e in examples if _asked(e) != _asked(row)][: self.shots] for row in rows]
        prompts = self._rendered(rows, chosen)
        room = self.context - self.room
        while long := [i for i, p in enumerate(prompts) if p.shots and len(p.tokens) > room]:
            for i in long:
                chosen[i] = chosen[i][:-1]
            again = self._rendered([rows[i] for i in long], [chosen[i] for i in long])
            for i, prompt in zip(long, again, strict=True):
                prompts[i] = prompt
        for row, prompt in zip(rows, prompts, strict=True):
            if len(prompt.tokens) >= self.context:
                raise InputError(
                    f"{row.place}: its prompt has {len(prompt.tokens)} tokens, the target's context is "
                    f"{self.context}: no room is left for an answer."
                )
        return prompts

    def stops(self) -> tuple[str, ...]:
        """Texts with which an answer has run on into another task or example.

        In a template without words before the question, as "plain" is, that is the empty line before it; none
        if an example's own answer has one.
        """
        stops: tuple[str, ...] = _NEXT_TASK.get(self.template, ())
        if self.shots and self.template != CHAT:
            opening = render(self.template, PoolRow(0, "\0", "", "", "", {}, ""))[0].partition("\0")[0]
            stop = _BETWEEN + opening[:24]
            stops += () if any(stop in e.output for e in (*self.examples, *self.programs)) else (stop,)
        return stops

    def _rendered(self, rows: Sequence[PoolRow], chosen: Sequence[list[PoolRow]]) -> list[Prompt]:
        texts = [self._text(row, examples) for row, examples in zip(rows, chosen, strict=True)]
        ids = tokenize_prompts(self.tokenizer, texts, self.template)
        return [Prompt(text, i, len(e)) for text, i, e in zip(texts, ids, chosen, strict=True)]

    def _text(self, row: PoolRow, examples: Sequence[PoolRow]) -> str:
        if self.template == CHAT:
            return render(CHAT, _conversation(row, examples), self.tokenizer)[0]
        parts = ["".join(render(self.template, example)) for example in examples]
        return _BETWEEN.join([*parts, render(self.template, row)[0]])


def read_examples(
    benchmark: Benchmark, path: str, shots: int, *, program: bool, seed: int, fields: FieldMap
) -> list[PoolRow]:
    """Solved examples for a benchmark's prompts.

    Args:
      benchmark: the benchmark.
      path: a training file or folder of it, a file in the pool's schema, or "hub", from which one more
        than `shots` are drawn at random; "" for its exemplars, in order.
      shots: how many are needed.
      program: rows whose response is a program, and asked for as such; else only rows that have none.
      seed: of the draw.
      fields: of a file in the pool's schema.

    Raises:
      InputError: too few examples, or what reading the file raises.
    """
    if not shots:
        return []
    kind = "a program" if program else "a worked answer"
    if path:
        rows = _training_rows(benchmark, path, fields)
        codes, failures = find_programs([row.output for row in rows])
        rows = [r for i, r in enumerate(rows) if (i in codes) == program and i not in failures]
        count = min(shots + 1, len(rows))
        rows = [rows[i] for i in visit_order(np.arange(count), len(rows), seed=seed)] if rows else []
        place = path
    else:
        solved = [(e.question, e.program if program else e.text) for e in benchmark.exemplars]
        rows = [PoolRow(0, question, "", output, "", {}, "") for question, output in solved if output]
        place = "this package"
    if len(rows) < shots:
        raise InputError(
            f"evaluation.shots={shots}: {place} has {len(rows)} examples with {kind} for {benchmark.name}; "
            "lower it, or set evaluation.shots_path to rows to draw from."
        )
    return [_posed(benchmark, row, program) for row in rows]


def _training_rows(benchmark: Benchmark, path: str, fields: FieldMap) -> list[PoolRow]:
    """Rows with a response to learn from: the benchmark's own training rows, or the pool's."""
    training = dataclasses.replace(
        benchmark, split=benchmark.examples_split, hub=tuple(h for h in benchmark.hub if "[" not in h)
    )
    place = source_path(benchmark, path)
    if benchmark.reader is not None and (path == HUB or not _in_pool_schema(place, fields)):
        problems = read_problems(training, place)
        # Of a program that is held to tests, the answer alone ("passed") shows nothing.
        return [each.row for each in problems if each.worked or benchmark.answered_by != "tests"]
    return [row for row in read_rows(place, fields=fields) if not row.messages or single_turn(row.messages)]


def _in_pool_schema(path: str, fields: FieldMap) -> bool:
    first = next((raw.value for source in find_sources(path, "auto", "train") for raw in source()), None)
    return isinstance(first, dict) and {fields.instruction, fields.output} <= set(first)


def _posed(benchmark: Benchmark, row: PoolRow, program: bool) -> PoolRow:
    """The row with its question in the benchmark's words."""
    if not row.instruction and row.messages:
        if program:
            raise InputError(f"{row.place}: a conversation of several turns cannot be asked for a program.")
        return row
    wording = benchmark.program_prompt if program else benchmark.prompt
    if wording == "{question}":
        return row
    if not row.messages:
        return dataclasses.replace(row, instruction=wording.format(question=row.instruction))
    *before, asked, response = row.messages
    messages = (*before, asked._replace(content=wording.format(question=asked.content)), response)
    instruction, input_ = single_turn(messages) or ("", "")
    return dataclasses.replace(row, messages=messages, instruction=instruction, input=input_)


def _asked(row: PoolRow) -> tuple[str, str]:
    return row.instruction, row.input


def _conversation(row: PoolRow, examples: Sequence[PoolRow]) -> PoolRow:
    """The row as a conversation with its examples as earlier turns, after a system message."""
    own = row.conversation
    lead = own[:1] if own[0].role == "system" else ()
    turns = tuple(m for each in examples for m in each.conversation if m.role != "system")
    return dataclasses.replace(row, messages=(*lead, *turns, *own[len(lead) :]))
