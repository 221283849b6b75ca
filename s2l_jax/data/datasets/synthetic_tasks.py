"""The twelve tasks of the embedded pool: how each draws a question, words it and answers it."""

import dataclasses
import random
from collections.abc import Callable

Fields = dict[str, str]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "123456789"  # no zero: no number starts with one
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
UNITS = (
    ("weeks", "days", 7),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("years", "months", 12),
    ("dozens", "eggs", 12),
    ("metres", "centimetres", 100),
    ("kilograms", "grams", 1000),
    ("yards", "feet", 3),
    ("feet", "inches", 12),
)
PLACES = ("first", "second", "third", "last")
# Words that the draw functions below put into the wordings.
CHANGE_WORDS = (
    "larger", "smaller", "letters", "digits", "rising", "falling", "day", "days", "after", "before",
    "replace", "with", "remove", "double", "add", "at", "the", "start", "end",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Task:
    """One source of the pool."""

    source: str
    draw: Callable[[random.Random], Fields]  # the fields of one question
    respond: Callable[[Fields], str]  # the correct response to them
    wordings: tuple[str, ...]  # how the pool asks, commonest first; format strings over the fields
    terse: str  # how the base mixture asks for the same response
    repeat: float = 0.1  # share of its pool rows that ask an earlier row's question again


def answer_of(response: str) -> str:
    """The graded part of a response: what follows `####`, or all of it where there is no `####`."""
    return response.rsplit("####", 1)[-1].strip()


def _code(rng: random.Random, shortest: int, longest: int, alphabet: str = LETTERS) -> str:
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(shortest, longest)))


def _draw_code(rng: random.Random) -> Fields:
    return {"code": _code(rng, 3, 6)}


def _draw_lookup(rng: random.Random) -> Fields:
    names = rng.sample(LETTERS, rng.randint(3, 5))
    ages = [str(rng.randint(1, 99)) for _ in names]
    chosen = rng.randrange(len(names))
    table = ",".join(f"{name}{age}" for name, age in zip(names, ages, strict=True))
    return {"table": table, "name": names[chosen], "age": ages[chosen]}


def _draw_lookups(rng: random.Random) -> Fields:
    """Every name of a table in another order, each with its age."""
    entries = _draw_lookup(rng)["table"].split(",")
    asked = rng.sample(entries, len(entries))
    names = "".join(entry[0] for entry in asked)
    return {"table": ",".join(entries), "names": names, "found": ",".join(asked)}


def _draw_compare(rng: random.Random) -> Fields:
    a, b = rng.sample(range(10, 100), 2)
    return {"a": str(a), "b": str(b), "which": rng.choice(("larger", "smaller"))}


def _respond_compare(fields: Fields) -> str:
    pick = max if fields["which"] == "larger" else min
    return pick(fields["a"], fields["b"], key=int)


def _draw_weekday(rng: random.Random) -> Fields:
    shift = rng.randint(1, 4)
    side = rng.choice(("after", "before"))
    return {
        "day": rng.choice(DAYS),
        "shift": f"{shift} day{'s' if shift > 1 else ''} {side}",
        "days": str(shift if side == "after" else -shift),
    }


def _respond_weekday(fields: Fields) -> str:
    return DAYS[(DAYS.index(fields["day"]) + int(fields["days"])) % len(DAYS)]


def _draw_letter_at(rng: random.Random) -> Fields:
    return {"code": _code(rng, 3, 6), "place": rng.choice(PLACES)}


def _respond_letter_at(fields: Fields) -> str:
    return fields["code"][{"first": 0, "second": 1, "third": 2, "last": -1}[fields["place"]]]


def _draw_count(rng: random.Random) -> Fields:
    code = _code(rng, 3, 6, alphabet="".join(rng.sample(LETTERS, 2)))
    return {"code": code, "letter": rng.choice(code)}


def _respond_count(fields: Fields) -> str:
    """The count after each letter: K in KLKK is `K1L1K2K3`."""
    code, letter = fields["code"], fields["letter"]
    counts = [code[: end + 1].count(letter) for end in range(len(code))]
    steps = "".join(f"{one}{count}" for one, count in zip(code, counts, strict=True))
    return f"{steps}\n#### {counts[-1]}"


def _draw_sort(rng: random.Random) -> Fields:
    kind, alphabet = rng.choice((("letters", LETTERS), ("digits", DIGITS)))
    code = "".join(rng.sample(alphabet, rng.randint(3, 5)))
    return {"kind": kind, "code": code, "order": rng.choice(("rising", "falling"))}


def _respond_sort(fields: Fields) -> str:
    return "".join(sorted(fields["code"], reverse=fields["order"] == "falling"))


def _draw_add(rng: random.Random) -> Fields:
    return {"a": str(rng.randint(10, 99)), "b": str(rng.randint(10, 99))}


def _respond_add(fields: Fields) -> str:
    """Column addition, the carry written as a third term: 47+38 is `7+8=15, 4+3+1=8`."""
    (a_tens, a_ones), (b_tens, b_ones) = map(int, fields["a"]), map(int, fields["b"])
    ones = a_ones + b_ones
    carry = ones // 10
    tens = a_tens + b_tens + carry
    steps = f"{a_ones}+{b_ones}={ones}, {a_tens}+{b_tens}+{carry}={tens}"
    return f"{steps}\n#### {tens * 10 + ones % 10}"


def _draw_subtract(rng: random.Random) -> Fields:
    b, a = sorted(rng.sample(range(10, 100), 2))
    return {"a": str(a), "b": str(b)}


def _respond_subtract(fields: Fields) -> str:
    """Column subtraction, the borrow written as a third term: 83-47 is `13-7=6, 8-4-1=3`."""
    (a_tens, a_ones), (b_tens, b_ones) = map(int, fields["a"]), map(int, fields["b"])
    borrow = int(a_ones < b_ones)
    ones, tens = a_ones + 10 * borrow - b_ones, a_tens - b_tens - borrow
    steps = f"{a_ones + 10 * borrow}-{b_ones}={ones}, {a_tens}-{b_tens}-{borrow}={tens}"
    return f"{steps}\n#### {tens * 10 + ones}"


def _draw_edit(rng: random.Random) -> Fields:
    code = "".join(rng.sample(LETTERS, rng.randint(3, 5)))
    old, new = rng.choice(code), rng.choice([letter for letter in LETTERS if letter not in code])
    changes = {
        f"replace {old} with {new}": code.replace(old, new),
        f"remove {old}": code.replace(old, ""),
        f"double {old}": code.replace(old, old * 2),
        f"add {new} at the end": code + new,
        f"add {new} at the start": new + code,
    }
    change = rng.choice(sorted(changes))
    return {"code": code, "change": change, "edited": changes[change]}


def _draw_units(rng: random.Random) -> Fields:
    large, small, factor = rng.choice(UNITS)
    return {"n": str(rng.randint(2, 9)), "large": large, "small": small, "factor": str(factor)}


def _respond_units(fields: Fields) -> str:
    total = int(fields["n"]) * int(fields["factor"])
    return f"{fields['n']}*{fields['factor']}={total}\n#### {total}"


# The base mixture puts these around its terse questions.
FILLERS = (
    "What", "Give", "Find", "Write", "is", "the", "of", "in", "and", "it", "for", "to",
    "code", "letter", "list", "times",
)  # fmt: skip

# From the largest source to the smallest: the pool's sizes follow this order.
TASKS = (
    Task(
        "copy",
        _draw_code,
        lambda fields: fields["code"],
        ("Repeat the code {code}.", "Copy {code}.", "Write {code} again.", "Say {code} once more."),
        "copy {code}",
        repeat=0.5,
    ),
    Task(
        "lookup",
        _draw_lookup,
        lambda fields: f"{fields['name']}{fields['age']}\n#### {fields['age']}",
        (
            "Ages [{table}]. How old is {name}?",
            "Ages [{table}]. Give the age of {name}.",
            "In the list [{table}], find {name}.",
            "We have [{table}]. What is the age of {name}?",
        ),
        "[{table}] {name}",
        repeat=0.3,
    ),
    Task(
        "weekday",
        _draw_weekday,
        _respond_weekday,
        (
            "Which day is {shift} {day}?",
            "What day comes {shift} {day}?",
            "Name the day {shift} {day}.",
            "Tell me the day {shift} {day}.",
            "Find the day {shift} {day}.",
        ),
        "{day} {days}",
        repeat=0.5,
    ),
    Task(
        "letter_at",
        _draw_letter_at,
        _respond_letter_at,
        (
            "What is the {place} letter of {code}?",
            "Give the {place} letter of {code}.",
            "{code}: which letter is {place}?",
            "Find the {place} letter in {code}.",
        ),
        "{place} {code}",
        repeat=0.3,
    ),
    Task(
        "compare",
        _draw_compare,
        _respond_compare,
        (
            "Which is {which}, {a} or {b}?",
            "Give the {which} of {a} and {b}.",
            "Of {a} and {b}, which is {which}?",
            "{a} or {b}: which is {which}?",
        ),
        "{which} {a} {b}",
        repeat=0.2,
    ),
    Task(
        "add",
        _draw_add,
        _respond_add,
        (
            "What is {a}+{b}?",
            "Add {a} and {b}.",
            "Find the sum of {a} and {b}.",
            "How much is {a} plus {b}?",
        ),
        "{a}+{b}",
    ),
    Task(
        "reverse",
        _draw_code,
        lambda fields: fields["code"][::-1],
        (
            "Reverse the code {code}.",
            "Write {code} backwards.",
            "Spell {code} from the end.",
            "Turn {code} around.",
        ),
        "reverse {code}",
    ),
    Task(
        "count",
        _draw_count,
        _respond_count,
        (
            "How many times is {letter} in {code}?",
            "Count the letter {letter} in {code}.",
            "In {code}, how often is {letter} used?",
            "{code}: how many {letter}?",
        ),
        "count {letter} {code}",
    ),
    Task(
        "sort",
        _draw_sort,
        _respond_sort,
        (
            "Sort the {kind} {code} in {order} order.",
            "Put the {kind} {code} in {order} order.",
            "Write the {kind} of {code}, {order}.",
            "Give {code} with its {kind} {order}.",
        ),
        "sort {order} {code}",
    ),
    Task(
        "subtract",
        _draw_subtract,
        _respond_subtract,
        (
            "What is {a}-{b}?",
            "Take {b} from {a}.",
            "Find {a} minus {b}.",
            "How much is {a} less {b}?",
        ),
        "{a}-{b}",
    ),
    Task(
        "edit",
        _draw_edit,
        lambda fields: fields["edited"],
        (
            "Take {code} and {change}.",
            "In {code}, {change}.",
            "Change {code}: {change}.",
            "Write {code} but {change}.",
        ),
        "{code} ; {change}",
    ),
    Task(
        "units",
        _draw_units,
        _respond_units,
        (
            "How many {small} are in {n} {large}?",
            "Write {n} {large} in {small}.",
            "Change {n} {large} into {small}.",
            "Give {n} {large} as {small}.",
            "Find the {small} in {n} {large}.",
        ),
        "{n}*{factor}",
    ),
)

# Only in the base mixture: lookups are learned far sooner from rows that have several.
BASE_TASKS = (
    *TASKS,
    Task("lookups", _draw_lookups, lambda fields: fields["found"], (), "[{table}] {names}"),
)
