"""Stage `evaluation`: held-out loss and exact match of the untuned target and of every tuned one."""

import dataclasses
import json

import numpy as np
from etils import epath

from s2l_jax import artifacts
from s2l_jax.console import Progress
from s2l_jax.data.chat import CHAT
from s2l_jax.data.identity import data_identity
from s2l_jax.data.order import visit_order
from s2l_jax.data.pool import FieldMap, PoolRow, read_rows
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import tokenize_prompts
from s2l_jax.errors import InputError
from s2l_jax.evaluation.evaluate import evaluate, summarise
from s2l_jax.evaluation.sampling import Sampling
from s2l_jax.models import weights
from s2l_jax.models.decoder import Decoder
from s2l_jax.parallel import processes
from s2l_jax.records import Record
from s2l_jax.stages.models import bound, load_export, open_model
from s2l_jax.stages.pool import tokenizer_of
from s2l_jax.stages.run import Run, what_decides
from s2l_jax.stages.target import folder as target_folder
from s2l_jax.stages.target import target_names

UNTUNED = "untuned"


def evaluate_all(run: Run) -> None:
    """Evaluate what is not evaluated yet; nothing when `evaluation.path` is empty."""
    if not run.config.evaluation.path:
        return
    rows = heldout_rows(run)
    identity = data_identity(run.config.evaluation.path)
    for name in (UNTUNED, *target_names(run)):
        _evaluate_one(run, name, rows, identity)


def folder(run: Run, name: str) -> epath.Path:
    """Where a model's predictions are."""
    return run.workdir / "evaluation" / name


def _evaluate_one(run: Run, name: str, rows: list[PoolRow], identity: str) -> None:
    config = run.config
    options = config.evaluation.to_dict()
    batch_size = options.pop("batch_size")
    settings = {
        "evaluation": options | {"content": identity},
        "tokenize": config.tokenize.to_dict(),
        "target": what_decides(config.target),
        "seed": config.seed,
    }
    record = Record(folder(run, name), f"evaluation/{name}", settings)
    if record.done:
        return
    model: Decoder
    dtype = weights.DTYPES[config.evaluation.dtype]
    if name == UNTUNED:
        model, tokenizer = bound(open_model(run, "target"), dtype), tokenizer_of(config.target)
    else:
        model, tokenizer = load_export(run, target_folder(run, name), dtype)
    progress = Progress(f"evaluating {name}", len(rows), "answers")
    predictions = evaluate(
        model,
        tokenizer,
        rows,
        prompt=config.tokenize.prompt,
        boundary=config.tokenize.boundary,
        max_length=config.tokenize.max_length,
        max_new_tokens=config.evaluation.max_new_tokens,
        batch_size=batch_size,
        dtype=dtype,
        sampling=Sampling(
            config.evaluation.temperature, config.evaluation.top_k, config.evaluation.top_p, config.seed
        ),
        stop=[text.replace("\\n", "\n") for text in config.evaluation.stop.split("|") if text],
        mesh=run.mesh,
        progress=progress.update,
    )
    results = summarise(predictions)
    overall = results["overall"]
    progress.close(f"exact match {overall['accuracy']:.1%}, held-out loss {overall['heldout_loss']:.3f}")
    if processes.is_writer():
        lines = (json.dumps(dataclasses.asdict(p)) for p in predictions)
        artifacts.write_text(record.folder / "predictions.jsonl", "\n".join(lines) + "\n")
    record.finish(results)


def check_heldout(run: Run) -> None:
    """Find now what would stop the evaluation later: bad rows, and prompts that leave no room to answer.

    Raises:
      InputError: see `heldout_rows` and `render`; or a prompt as long as the target's context.
    """
    model, template = open_model(run, "target"), run.config.tokenize.prompt
    rows = heldout_rows(run)
    prompts = [render(template, row, model.tokenizer)[0] for row in rows]
    for row, ids in zip(rows, tokenize_prompts(model.tokenizer, prompts, template), strict=True):
        if len(ids) >= model.config.max_positions:
            raise InputError(
                f"{row.place}: its prompt has {len(ids)} tokens, the target's context is "
                f"{model.config.max_positions}: no room is left for an answer."
            )


def heldout_rows(run: Run) -> list[PoolRow]:
    """The rows that models are evaluated on.

    Raises:
      InputError: a missing file or a bad row.
    """
    config = run.config.evaluation
    if config.path == "synthetic":
        from s2l_jax.data import synthetic

        rows = [
            PoolRow(i, r["instruction"], r.get("input", ""), r["output"], r["source"], r, f"row {i}")
            for i, r in enumerate(synthetic.heldout_rows())
        ]
        return _sample(rows, config.limit)
    fields = FieldMap(**run.config.pool.fields.to_dict())
    multi_turn = run.config.tokenize.prompt == CHAT
    return _sample(list(read_rows(config.path, fields=fields, multi_turn=multi_turn)), config.limit)


def _sample(rows: list[PoolRow], limit: int) -> list[PoolRow]:
    if not limit or limit >= len(rows):
        return rows
    return [rows[i] for i in sorted(visit_order(np.arange(limit), len(rows), seed=0))]
