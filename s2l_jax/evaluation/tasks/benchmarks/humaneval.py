"""HumanEval (arXiv 2107.03374): functions to write, held to tests, and rows of the same shape."""

from s2l_jax.data.pool_fields import BadRow
from s2l_jax.evaluation.execution.tested_programs import PASSED, UnitTests
from s2l_jax.evaluation.tasks.benchmark import Parsed, Row, benchmark, text_field


@benchmark(
    "humaneval",
    answer_type="exact",
    answered_by="tests",
    size=164,
    hub=("openai/openai_humaneval",),
    prompt="Complete this Python function. Write all of it.\n\n{question}",
)
def humaneval(row: Row) -> Parsed:
    start, function, tests = (
        text_field(row, name, strip=False) for name in ("prompt", "entry_point", "test")
    )
    if f"def {function}(" not in start:
        raise BadRow(f'its "prompt" does not begin the function "{function}" that its "entry_point" names')
    solution = text_field(row, "canonical_solution", required=False, strip=False)
    return Parsed(
        question=start,
        reference=PASSED,
        solution=f"{start}{solution}" if solution.strip() else "",
        tests=UnitTests(start, function, f"{tests}\n\ncheck({function})"),
    )
