"""The fields of evaluation."""

from s2l_jax.config.fields import Field, Group, choice, natural, positive, share, unless, when
from s2l_jax.config.model_fields import DTYPES
from s2l_jax.evaluation.grading.answer_types import ANSWER_TYPES

METRICS = ("accuracy", "bleu", "rouge", "bertscore")

_DRAWS = unless("temperature", 0.0)

EVALUATION = Group(
    "Evaluation of the untuned target and every tuned one",
    path=Field(
        "",
        "held-out file in the pool's schema, or 'synthetic'; with evaluation.benchmarks, the folder or "
        "file of their rows, or 'hub'; empty: no evaluation",
        by_content=True,
    ),
    benchmarks=Field(
        (),
        "benchmarks by name (docs/guide/evaluation.md), or module:name for one of your own; NAME=PATH "
        "for one that is not at evaluation.path; empty: the rows of evaluation.path as they are",
        all,
        "names, none of them empty",
        decides=False,
        adds=True,
    ),
    limit=natural(0, "rows evaluated of each benchmark, drawn at random; 0: all", unit="rows"),
    mode=choice(
        "text",
        ("text", "program", "hybrid"),
        "ask for a worked answer; for a program, which is run; or for a program and, where that fails, "
        "a worked answer; benchmarks of choices and of tests have a way of their own",
    ),
    run_programs=choice(
        False,
        (False, True, "unconfined"),
        "run responses that are programs, those of humaneval among them: True confines them "
        "(docs/design/security.md); unconfined limits their "
        "time, memory and output only, and is for containers that hold nothing you would miss",
    ),
    shots=natural(0, "solved examples before each question", unit="examples"),
    shots_path=Field(
        "",
        "where examples are drawn from: a training file or folder like evaluation.path, a file in the "
        "pool's schema, or 'hub'; empty: a few written for each benchmark",
        by_content=True,
        when=(unless("shots", 0),),
    ),
    answer_type=choice(
        "any",
        tuple(ANSWER_TYPES),
        "how answers to rows in the pool's schema are compared; exact: as text, after the last ####; "
        "number, choice and yesno refuse references that are none",
    ),
    metrics=Field(
        ("accuracy",),
        "metrics of answers: accuracy; for summaries bleu, rouge and bertscore (docs/guide/clinical.md)",
        lambda v: bool(v) and set(v) <= set(METRICS),
        f"of {', '.join(METRICS)}, at least one",
        METRICS,
    ),
    bertscore_model=Field(
        "",
        "model of metric bertscore: a hub id or a directory; empty: bert-score's default",
        when=(when("metrics", "bertscore"),),
    ),
    max_new_tokens=positive(256, "tokens of the longest answer", unit="tokens"),
    batch_size=positive(64, "prompts answered together", decides=False),
    dtype=choice("float32", DTYPES, "type of matrix products in evaluation"),
    temperature=natural(0.0, "temperature of answers drawn at random; 0: the likeliest token (greedy)"),
    top_k=natural(0, "draw among the k likeliest tokens; 0: all", unit="tokens", when=(_DRAWS,)),
    top_p=share(1.0, "draw among the likeliest tokens that together reach this probability", when=(_DRAWS,)),
    stop=Field((), "texts that end an answer", all, "texts, none of them empty"),
)
