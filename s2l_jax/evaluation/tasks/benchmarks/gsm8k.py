"""GSM8K (arXiv 2110.14168): school problems with worked answers."""

from s2l_jax.data.pool_fields import BadRow
from s2l_jax.data.pool_files import shortened
from s2l_jax.evaluation.tasks.benchmark import Parsed, Row, benchmark, text_field
from s2l_jax.evaluation.tasks.exemplars import WORD_PROBLEMS


@benchmark(
    "gsm8k",
    answer_type="number",
    domain="in",
    size=1319,
    hub=("openai/gsm8k:main",),
    exemplars=WORD_PROBLEMS,
)
def gsm8k(row: Row) -> Parsed:
    answer = text_field(row, "answer")
    if "####" not in answer:
        raise BadRow(f'its "answer" has no "####" before the final number: {shortened(answer)}')
    return Parsed(text_field(row, "question"), answer, answer)
