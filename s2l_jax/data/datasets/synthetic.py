"""The embedded data: a generated instruction pool, its held-out set and the base mixture."""

import itertools
import random
import zlib
from typing import Any

from s2l_jax.data.datasets.synthetic_tasks import (
    BASE_TASKS,
    DAYS,
    DIGITS,
    FILLERS,
    LETTERS,
    TASKS,
    Fields,
    Task,
    answer_of,
)
from s2l_jax.errors import InputError

ZIPF_EXPONENT = 1.1
MISLABELLED_SHARE = 0.03
HELDOUT_MODULUS = 6  # one instruction in six is in no pool, whatever the seed
MAX_MISSES = 2000  # draws in a row without a new held-out instruction: the source is exhausted


def source_sizes(num_rows: int) -> dict[str, int]:
    """Rows per source: one each, the rest in proportion to 1 / rank ** ZIPF_EXPONENT.

    Raises:
      InputError: fewer rows than sources.
    """
    if num_rows < len(TASKS):
        raise InputError(f"num_rows is {num_rows}; the embedded pool needs at least {len(TASKS)}")
    weights = [1 / rank**ZIPF_EXPONENT for rank in range(1, len(TASKS) + 1)]
    spare = num_rows - len(TASKS)
    cumulative = itertools.accumulate(weights, initial=0.0)
    edges = [round(spare * weight / sum(weights)) for weight in cumulative]
    return {
        task.source: 1 + end - start
        for task, (start, end) in zip(TASKS, itertools.pairwise(edges), strict=True)
    }


def pool_rows(num_rows: int = 4000, seed: int = 0) -> list[dict[str, Any]]:
    """Generate the instruction pool, in shuffled order.

    Sources follow Zipf's law, from `copy` (the largest) to `units`. Questions come back word for
    word or reworded, and common wordings dominate. About MISLABELLED_SHARE of the rows have one
    letter or digit of the answer wrong.

    Returns:
      Rows with `source`, `instruction`, `output`, `answer` (the correct one) and `clean` (False
      where the output is mislabelled).

    Raises:
      InputError: fewer rows than sources.
    """
    rows = []
    for task, size in zip(TASKS, source_sizes(num_rows).values(), strict=True):
        rows += _source_rows(task, size, random.Random(f"pool/{seed}/{task.source}"))
    random.Random(f"pool/{seed}").shuffle(rows)
    return rows


def heldout_rows(per_source: int = 25, seed: int = 0) -> list[dict[str, Any]]:
    """Generate the evaluation set: `per_source` distinct questions of every source.

    Wordings are equally likely and all rows correct. None of the instructions is in any pool,
    whatever the two seeds.

    Raises:
      InputError: a source has fewer than `per_source` held-out instructions.
    """
    rows: list[dict[str, Any]] = []
    for task in TASKS:
        rng = random.Random(f"heldout/{seed}/{task.source}")
        found: dict[str, dict[str, Any]] = {}
        misses = 0
        while len(found) < per_source:
            fields = task.draw(rng)
            instruction = rng.choice(task.wordings).format(**fields)
            if not _is_heldout(instruction) or instruction in found:
                misses += 1
                if misses > MAX_MISSES:
                    raise InputError(
                        f"per_source is {per_source}, but source {task.source!r} has only "
                        f"{len(found)} held-out instructions: ask for at most that many"
                    )
                continue
            misses = 0
            found[instruction] = _row(task, instruction, fields, task.respond(fields))
        rows += found.values()
    return rows


def base_rows(num_rows: int = 100_000, seed: int = 0) -> list[dict[str, Any]]:
    """Generate what the base checkpoints are trained on: the tasks, asked in a terse notation.

    Words that mean nothing stand around the question. The base models so know how to copy, look up,
    sort and calculate, but not how the pool asks for it, nor the table of units. Sources are
    equally likely; every row is correct.
    """
    rng = random.Random(f"base/{seed}")
    rows = []
    for _ in range(num_rows):
        task = rng.choice(BASE_TASKS)
        fields = task.draw(rng)
        words = [task.terse.format(**fields), *rng.choices(FILLERS, k=rng.randint(0, 4))]
        before = rng.randint(0, len(words) - 1)
        instruction = " ".join([*words[1 : 1 + before], words[0], *words[1 + before :]])
        instruction += rng.choice(("", ".", "?"))
        rows.append(_row(task, instruction, fields, task.respond(fields)))
    return rows


def _source_rows(task: Task, size: int, rng: random.Random) -> list[dict[str, Any]]:
    asked: list[Fields] = []
    rows: list[dict[str, Any]] = []
    commonness = [1 / rank for rank in range(1, len(task.wordings) + 1)]
    while len(rows) < size:
        again = bool(asked) and rng.random() < task.repeat
        fields = rng.choice(asked) if again else task.draw(rng)
        instruction = rng.choices(task.wordings, commonness)[0].format(**fields)
        if _is_heldout(instruction):
            continue
        asked.append(fields)
        clean = rng.random() >= MISLABELLED_SHARE
        response = task.respond(fields) if clean else _mislabel(task.respond(fields), rng)
        rows.append(_row(task, instruction, fields, response))
    return rows


def _mislabel(response: str, rng: random.Random) -> str:
    """Change one letter or digit of the answer, or the day; worked steps stay as they are."""
    answer = answer_of(response)
    if answer in DAYS:
        return rng.choice([day for day in DAYS if day != answer])
    place = rng.randrange(len(answer))
    alternatives = LETTERS if answer[place] in LETTERS else DIGITS
    changed = rng.choice([one for one in alternatives if one != answer[place]])
    return response.removesuffix(answer) + answer[:place] + changed + answer[place + 1 :]


def _row(task: Task, instruction: str, fields: Fields, response: str) -> dict[str, Any]:
    answer = answer_of(task.respond(fields))
    return {
        "source": task.source,
        "instruction": instruction,
        "output": response,
        "answer": answer,
        "clean": answer_of(response) == answer,
    }


def _is_heldout(instruction: str) -> bool:
    return zlib.crc32(instruction.encode()) % HELDOUT_MODULUS == 0
