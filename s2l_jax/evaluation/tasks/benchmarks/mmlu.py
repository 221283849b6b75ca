"""MMLU (arXiv 2009.03300): questions of 57 subjects with four choices, and rows of the same shape."""

from s2l_jax.data.pool_fields import BadRow, encodable
from s2l_jax.data.pool_files import shortened
from s2l_jax.evaluation.grading.choices import LETTERS
from s2l_jax.evaluation.tasks.benchmark import Parsed, Row, benchmark, text_field


@benchmark(
    "mmlu",
    answer_type="choice",
    answered_by="choices",
    size=14_042,
    hub=("cais/mmlu:all",),
    examples_split="dev",
)
def mmlu(row: Row) -> Parsed:
    texts = row.get("choices")
    if not isinstance(texts, list) or not 2 <= len(texts) <= len(LETTERS):
        raise BadRow(f'its "choices" must be a list of 2 to {len(LETTERS)} texts: {shortened(texts)}')
    lines = [text_field(row, "question")]
    letters = tuple(LETTERS[: len(texts)])
    for letter, text in zip(letters, texts, strict=True):
        if not isinstance(text, str):
            raise BadRow(f'its "choices" hold {type(text).__name__}, not text: {shortened(text)}')
        lines.append(f"{letter}. {encodable(text, 'one of its choices')}")
    question = "\n".join([*lines, "Answer:"])
    return Parsed(
        question, _letter(row.get("answer"), letters), type=text_field(row, "subject", required=False),
        choices=letters,
    )  # fmt: skip


def _letter(answer: object, letters: tuple[str, ...]) -> str:
    """The letter of an answer, which is one itself or counts the choices from 0."""
    if isinstance(answer, str) and answer.strip().upper() in letters:
        return answer.strip().upper()
    if isinstance(answer, int | str) and str(answer).isdecimal() and int(answer) < len(letters):
        return letters[int(answer)]
    raise BadRow(
        f'its "answer" must be a letter of {letters[0]} to {letters[-1]}, or a number from 0 to '
        f"{len(letters) - 1}: {shortened(answer)}"
    )
