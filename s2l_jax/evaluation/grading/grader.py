"""Whether a response gives the reference's answer: extraction, then equality of what was extracted."""

import atexit
import dataclasses
import functools
import re
from collections.abc import Sequence
from types import TracebackType

from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution.workers import WorkerPool
from s2l_jax.evaluation.grading import extraction
from s2l_jax.evaluation.grading.numbers import Number, parse_number, same_number

ANSWER_TYPES = ("number", "math", "choice", "yesno", "any")

_TIMEOUT = 5.0  # seconds for one comparison of expressions
_LONGEST = 1000  # characters of an expression that is still compared
_LONGEST_RESPONSE = 20_000  # characters that are looked through, from the end; of a reference as well

_YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_LETTER = re.compile(r"(?:\\(?:text|mbox|mathrm|textbf)\s*\{\s*)?\(?([A-J])\)?\}?")
_WORDS = re.compile(r"\\(?:text|mbox|mathrm|textbf|textrm)\s*\{([^{}]*)\}")
_WORDY = re.compile(r"(?:[A-Za-z]{2,}|[aI])(?:[\s'.-]+[A-Za-z]+)*")
# Units too short to be told from names beside an expression; after a number and a space they are units.
_SHORT_UNIT = re.compile(r"(?<=\d)\s+(?:m|s|g|h|in|cm|mm|km|kg|ft|mi)(?:\s*\^\s*\{?\d\}?)?$")
_FUNCTIONS = re.compile(r"sqrt|pi|sin|cos|tan|log|ln|exp|infty|inf|oo")
_LEADING = re.compile(r"^(?:(?:it|he|she|they|is|was|in|on|at|the|a|an|month|day|of)\s+)+", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a grader says of one response.

    Args:
      correct: whether its answer is the reference's.
      answer: extracted from the response; empty if none was found.
      expected: extracted from the reference.
      reason: a few words.
    """

    correct: bool
    answer: str
    expected: str
    reason: str


class Grader:
    """Grades responses; expressions are compared in child processes, which can hang or die without harm.

    A context manager; the processes are started when an expression first needs them.

    Args:
      num_workers: child processes; 0: one a core.
      timeout: seconds for one comparison of expressions.
    """

    def __init__(self, num_workers: int = 0, *, timeout: float = _TIMEOUT) -> None:
        self._workers = WorkerPool("expressions", num_workers)
        self._timeout = timeout

    def grade(self, answer_type: str, responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
        """A verdict for each response and its reference.

        Args:
          answer_type: one of `ANSWER_TYPES`; "any" takes what fits the reference. References that are not
            of the type asked for are graded as "any".
          responses: of a model, or what its programs printed.
          references: answers, or worked solutions that end in a marked answer.

        Raises:
          InputError: another answer type, or more of one than of the other.
        """
        if answer_type not in ANSWER_TYPES:
            raise InputError(f"answer type {answer_type!r}: must be one of {', '.join(ANSWER_TYPES)}.")
        if len(responses) != len(references):
            raise InputError(f"{len(responses)} responses for {len(references)} references.")
        pairs = list(zip(responses, references, strict=True))
        verdicts = [_verdict(answer_type, response, reference) for response, reference in pairs]
        unsure = [i for i, verdict in enumerate(verdicts) if verdict.reason == _UNSURE]
        requests = [
            {"answer": verdicts[i].answer, "expected": verdicts[i].expected, "timeout": self._timeout}
            for i in unsure
        ]
        answers = self._workers.ask(requests, self._timeout, _lost)
        for i, found in zip(unsure, answers, strict=True):
            verdicts[i] = dataclasses.replace(verdicts[i], correct=found["equal"], reason=found["reason"])
        return verdicts

    def close(self) -> None:
        """End the processes."""
        self._workers.close()

    def __enter__(self) -> "Grader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def grade(benchmark: str, response: str, reference: str) -> bool:
    """Whether a response gives the answer of a benchmark's reference.

    Args:
      benchmark: its name.
      response: of a model.
      reference: an answer, or a worked solution that ends in a marked answer.

    Raises:
      InputError: no benchmark has this name.
    """
    from s2l_jax.evaluation.tasks.reading import benchmark as find

    return _shared_grader().grade(find(benchmark).answer_type, [response], [reference])[0].correct


@functools.cache
def _shared_grader() -> Grader:
    grader = Grader(1)
    atexit.register(grader.close)
    return grader


_UNSURE = "not compared yet"


def _verdict(answer_type: str, response: str, reference: str) -> Verdict:
    """The verdict, as far as it takes no child process; `_UNSURE` is its reason where it does."""
    response = response[-_LONGEST_RESPONSE:]
    expected = extraction.reference_answer(reference[-_LONGEST_RESPONSE:])
    if answer_type == "any" and (numbers := _number_list(expected)):
        return _list(extraction.math_answer(response), expected, numbers)
    answer_type = _type_of(expected, answer_type)
    if answer_type == "number":
        return _number(extraction.number_answer(response), expected)
    if answer_type == "choice":
        letter = _LETTER.fullmatch(expected)
        assert letter is not None
        return _exact(extraction.choice_answer(response), letter.group(1).upper(), "letter")
    if answer_type == "yesno":
        return _exact(extraction.yes_no_answer(response), _YES_NO[expected.lower()], "answer")
    if answer_type == "math":
        return _math(extraction.math_answer(response), expected)
    return _text(extraction.text_answers(response), expected)


def _type_of(expected: str, wanted: str) -> str:
    """The type that a reference is graded as: the one wanted, if the reference is of it."""
    fits = {
        "number": parse_number(expected) is not None,
        "yesno": expected.lower() in _YES_NO,
        "choice": _LETTER.fullmatch(expected) is not None,
        "math": wanted == "math" or _looks_like_math(expected),
    }
    if fits.get(wanted):
        return wanted
    return next((name for name, fit in fits.items() if fit), "text")


def _looks_like_math(text: str) -> bool:
    if len(text) > _LONGEST or "\n" in text or not re.search(r"\d|\\[a-z]|^[a-z]$", text):
        return False
    words = re.findall(r"[A-Za-z]{3,}", re.sub(r"\\[A-Za-z]+", " ", text))
    return all(_FUNCTIONS.fullmatch(word) for word in words)


def _exact(answer: str | None, expected: str, what: str) -> Verdict:
    if answer is None:
        return Verdict(False, "", expected, f"no {what} found")
    same = answer == expected
    return Verdict(same, answer, expected, f"the same {what}" if same else f"another {what}")


def _number(answer: str | None, expected: str) -> Verdict:
    if answer is None:
        return Verdict(False, "", expected, "no number found")
    found, wanted = parse_number(answer), parse_number(expected)
    reason = same_number(found, wanted) if found and wanted else ""
    return Verdict(bool(reason), answer, expected, reason or "different numbers")


def _list(answer: str | None, expected: str, wanted: list[Number]) -> Verdict:
    """Of numbers; their order counts unless the reference has them in square brackets."""
    if answer is None:
        return Verdict(False, "", expected, "no answer found")
    found = _number_list(answer)
    if expected.startswith("["):
        found, wanted = (sorted(each, key=lambda number: number.value) for each in (found, wanted))
    same = len(found) == len(wanted) and all(map(same_number, found, wanted))
    return Verdict(same, answer, expected, "equal lists" if same else "different lists")


def _number_list(text: str) -> list[Number]:
    """The numbers of a text that has two or more, or brackets, and nothing else; or else none."""
    inner = re.sub(r"^\s*(?:\\?[\[{(])|\\?[\]})]\s*$", "", text)
    numbers = [parse_number(part) for part in re.split(r"\s*,\s+|\s+|,(?!\d{3}(?!\d))", inner.strip())]
    if (inner == text and len(numbers) < 2) or None in numbers:
        return []
    return [number for number in numbers if number is not None]


def _math(answer: str | None, expected: str) -> Verdict:
    if answer is None:
        return Verdict(False, "", expected, "no answer found")
    if _normal(answer) == _normal(expected):
        return Verdict(True, answer, expected, "equal text")
    numbers = [parse_number(_without_unit(each)) for each in (answer, expected)]
    if numbers[0] is not None and numbers[1] is not None:
        reason = same_number(numbers[0], numbers[1])
        return Verdict(bool(reason), answer, expected, reason or "different numbers")
    if _is_words(expected) or _is_words(answer):
        same = _words(answer) == _words(expected)
        return Verdict(same, answer, expected, "equal text" if same else "different text")
    if max(len(answer), len(expected)) > _LONGEST:
        return Verdict(False, answer, expected, "too long to compare")
    return Verdict(False, answer, expected, _UNSURE)


def _without_unit(expression: str) -> str:
    return _SHORT_UNIT.sub("", _WORDS.sub("", expression).replace(r"^\circ", "").strip())


def _text(answers: list[str], expected: str) -> Verdict:
    wanted = _words(expected)
    for answer in answers:
        if _words(answer) == wanted:
            return Verdict(True, answer, expected, "equal text")
    if not answers:
        return Verdict(False, "", expected, "no answer found")
    return Verdict(False, answers[0], expected, "different text")


def _normal(expression: str) -> str:
    """An expression without what makes no difference: spaces, sizes of brackets, kinds of fractions."""
    text = re.sub(r"\\\\(?=[dt]?frac|sqrt)", r"\\", expression)  # a backslash escaped once too often
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])", "", text)
    text = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"(?<!\\)\\[!,;: ]|~", "", text)
    return re.sub(r"\s+", "", text)


def _is_words(expression: str) -> bool:
    """Whether words, not values, are the answer: even, (C), or anything that is all `\\text{...}`."""
    if _WORDS.fullmatch(expression.strip()) and parse_number(_WORDS.sub(r"\1", expression).strip()) is None:
        return True
    text = expression.strip().strip("()")
    return _WORDY.fullmatch(text) is not None and not _FUNCTIONS.search(text)


def _words(text: str) -> str:
    """A text without case, articles, punctuation and commands around it."""
    text = _WORDS.sub(r"\1", text)
    text = re.sub(r"[\s~]+", " ", re.sub(r"\\[!,;: ]", " ", text)).strip(" .,:;!?()'\"*$").casefold()
    return _LEADING.sub("", text)


def _lost(reason: str) -> dict[str, object]:
    return {"equal": False, "reason": reason}
