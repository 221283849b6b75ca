"""Whether a response gives the reference's answer: what both say is taken out, and compared."""

import dataclasses
from collections.abc import Sequence

from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution.workers import WorkerPool, shared
from s2l_jax.evaluation.grading.answer_types import LONGEST, AnswerType, find_answer_type
from s2l_jax.evaluation.grading.references import check_references
from s2l_jax.evaluation.sandbox import confine

_TIMEOUT = 5.0  # seconds for one comparison of expressions
_UNSURE = "not compared yet"
_CRASHED = "the comparison crashed"


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


class Grader(WorkerPool):
    """Grades responses; expressions are compared in child processes, which can hang or die without harm.

    A context manager; the processes are started when an expression first needs them.

    Args:
      num_workers: child processes; 0: one a core.
      timeout: seconds for one comparison of expressions.
    """

    def __init__(self, num_workers: int = 0, *, timeout: float = _TIMEOUT) -> None:
        super().__init__("expressions", num_workers, confined=not confine.missing())
        self._timeout = timeout

    def grade(self, answer_type: str, responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
        """A verdict for each response and its reference.

        Args:
          answer_type: one of `answer_types.ANSWER_TYPES`.
          responses: of a model, or what its programs printed.
          references: answers, or worked solutions that end in a marked answer.

        Raises:
          InputError: another answer type, a reference that is not of it, or more responses than references.
        """
        graded_as = find_answer_type(answer_type)
        if len(responses) != len(references):
            raise InputError(f"{len(responses)} responses for {len(references)} references.")
        check_references(answer_type, references)
        # Of each row the answers that its response may mean, the likeliest first.
        candidates = [_verdicts(graded_as, *pair) for pair in zip(responses, references, strict=True)]
        unsure = [
            (i, k) for i, row in enumerate(candidates) for k, each in enumerate(row) if each.reason == _UNSURE
        ]
        requests = [
            {
                "arguments": [candidates[i][k].answer, candidates[i][k].expected],
                "timeout": self._timeout,
            }
            for i, k in unsure
        ]
        answers = self.ask(requests, self._timeout, lambda reason: {"value": None, "error": reason})
        for (i, k), said in zip(unsure, answers, strict=True):
            failure = _CRASHED if said["error"] == "crashed" else said["error"]
            correct, reason = said["value"] or (False, failure)
            candidates[i][k] = dataclasses.replace(candidates[i][k], correct=correct, reason=reason)
        return [next((each for each in row if each.correct), row[0]) for row in candidates]


def grade(benchmark: str, response: str, reference: str) -> bool:
    """Whether a response gives the answer of a benchmark's reference.

    Args:
      benchmark: its name.
      response: of a model.
      reference: an answer, or a worked solution that ends in a marked answer.

    Raises:
      InputError: no benchmark has this name.
    """
    from s2l_jax.evaluation.tasks.benchmark import BENCHMARKS

    answer_type = BENCHMARKS.find(benchmark).answer_type
    return shared(Grader).grade(answer_type, [response], [reference])[0].correct


def _verdicts(answer_type: AnswerType, response: str, reference: str) -> list[Verdict]:
    """A verdict on each answer that a response may mean; on the first right one alone, if one is.

    Their reason is `_UNSURE` where it takes a child process to say.
    """
    verdicts = []
    for kind, expected in answer_type.expected(reference):
        answers = kind.answers(response[-LONGEST:])
        for answer in [answers] if isinstance(answers, str) else answers or ():
            correct, reason = kind.compare(answer, expected) or (False, _UNSURE)
            verdicts.append(Verdict(correct, answer, expected, reason))
            if correct:
                return verdicts[-1:]
        if not answers:
            verdicts.append(Verdict(False, "", expected, f"no {kind.noun} found"))
    return verdicts
