"""HumanEval (arXiv 2107.03374): functions to write, held to tests, and rows of the same shape."""

from s2l_jax.data.pool_fields import BadRow
from s2l_jax.evaluation.execution.tested_programs import PASSED, UnitTests
from s2l_jax.evaluation.tasks.benchmark import Parsed, Row, benchmark


@benchmark(
    "humaneval",
    answer_type="exact",
    answered_by="tests",
    size=164,
    hub=("openai/openai_humaneval",),
    prompt="Complete this Python function. Write all of it.\n\n{question}",
)
def humaneval(row: Row) -> Parsed:
    start, function, tests = (_code(row, name) for name in ("prompt", "entry_point", "test"))
    if f"def {function}(" not in start:
        raise BadRow(f'its "prompt" does not begin the function "{function}" that its "entry_point" names')
    solution = row.get("canonical_solution")
    return Parsed(
        question=start,
        reference=PASSED,
        solution=f"{start}{solution}" if isinstance(solution, str) and solution.strip() else "",
        tests=UnitTests(start, function, f"{tests}\n\ncheck({function})"),
    )


def _code(row: Row, name: str) -> str:
    """A field's text with its spaces, which Python reads."""
    text = row.get(name)
    if not isinstance(text, str) or not text.strip():
        raise BadRow(f'its "{name}" must be text that is not empty')
    return text
