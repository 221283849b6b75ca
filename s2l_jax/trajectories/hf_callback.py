"""A callback for the Hugging Face Trainer that writes a trajectory store while PyTorch trains.

It needs PyTorch and transformers, and no JAX. Nothing else in s2l_jax imports this module.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from absl import logging
from etils import epath
from jaxtyping import Float32, Int64, UInt64
from transformers import TrainerCallback

from s2l_jax.data.pool import PoolRow, RowReader
from s2l_jax.data.pool_fields import FieldMap
from s2l_jax.data.pool_files import RawRow
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedExample, tokenize
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.trajectories.store import ROW_NUMBERS, TrajectoryStore

_IGNORED = -100  # the label of a token that is not predicted
_CHUNK = 1024  # rows tokenised at a time


class LabelledExamples(torch.utils.data.Dataset):
    """Rows as token ids and labels: what the Trainer takes as `train_dataset`."""

    def __init__(self, examples: Iterable[TokenizedExample]):
        self._examples = list(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        example = self._examples[number]
        labels = np.full_like(example.tokens, _IGNORED)
        labels[example.loss_places] = example.tokens[example.loss_places]
        return {"input_ids": example.tokens.tolist(), "labels": labels.tolist()}


class TrajectoryCallback(TrainerCallback):
    """Measures the loss of every example each `every` optimiser steps, as a column of a store.

    An example's loss is its mean cross-entropy, in nats, over the labels that are not -100
    (arXiv 2403.07384, section 3.1), 0 where there is none. The model is in eval mode meanwhile and
    under the Trainer's autocast; weights, gradients and random state stay as they were. With several
    processes each measures its part and the first one writes. In resumed training the store's columns
    up to the resumed step stay, and later ones are dropped.

    Args:
      path: of the store, local or gs://.
      examples: rows as `data.pool` has them (`PoolRow`, or mappings with instruction, output and,
        where there is one, input), if there is a tokenizer; else tokenised ones, mappings with
        `input_ids`, `labels` and, where they are padded, `attention_mask`.
      tokenizer: tokenises rows as the pipeline does; `callback.examples` has the result.
      every: optimiser steps between columns; 0 measures whenever the Trainer saves.
      step_zero: measure before the first step too.
      ids: uint64 [N] of tokenised examples. Those of rows are the pool's (see `data.pool.read_rows`);
        without any, the store's `ids` are row numbers and are not compared with a pool's.
      prompt: name of the template rows are rendered with.
      max_length: tokens kept of each row.
      boundary: see `data.tokens.tokenize`.
      turns: see `data.prompts.render`.
      batch_tokens: tokens measured at a time by each process, padding counted; their logits are in
        memory at once.

    Raises:
      InputError: a row that cannot be used, or no example with a loss; at the start of training, a
        store of other examples or another model, or one with later columns when training starts at 0.
      DivergedError: a loss is not finite.
    """

    def __init__(
        self,
        path: epath.PathLike,
        examples: Any,
        tokenizer: Any = None,
        *,
        every: int = 500,
        step_zero: bool = False,
        ids: Sequence[int] | UInt64[np.ndarray, "n"] | None = None,
        prompt: str = "alpaca",
        max_length: int = 512,
        boundary: str = "separate",
        turns: str = "last",
        batch_tokens: int = 4096,
    ):
        if every < 0:
            raise InputError(f"TrajectoryCallback: every={every}; give a number of steps, or 0.")
        if tokenizer is not None:
            rows = _pool_rows(examples)
            texts = [render(prompt, row, tokenizer, turns) for row in rows]
            options: dict[str, Any] = {"max_length": max_length, "boundary": boundary, "template": prompt}
            examples = LabelledExamples(
                example
                for start in range(0, len(texts), _CHUNK)
                for example in tokenize(tokenizer, texts[start : start + _CHUNK], **options)
            )
            ids = [row.id for row in rows] if ids is None else ids
        if not hasattr(examples, "__len__") or not len(examples):
            raise InputError("TrajectoryCallback: needs examples that have a length, and at least one.")
        if ids is not None and len(ids) != len(examples):
            raise InputError(f"TrajectoryCallback: {len(ids)} ids for {len(examples)} examples.")
        self.examples = examples
        self._path, self._every, self._step_zero = epath.Path(path), every, step_zero
        self._attributes = {} if ids is not None else dict(ROW_NUMBERS)
        self._ids = np.arange(len(examples), dtype=np.uint64) if ids is None else np.array(ids, np.uint64)
        self._batches = length_sorted_batches(_lengths(examples), batch_tokens)
        self._known: set[int] = set()
        self._store: TrajectoryStore | None = None  # in the first process only

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the store, and measure the untrained model if that was asked for."""
        model, step = kwargs["model"], state.global_step
        problem = self._open(model, step) if state.is_world_process_zero else ""
        problem, self._known = _from_first((problem, self._known))
        if problem:  # raised in every process, so that none waits for another
            raise InputError(problem)
        if step == 0 and self._step_zero:
            self._measure(model, 0)
        if step and not self._every:  # a kill may have come between the checkpoint and its column
            self._measure(model, step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._every and state.global_step % self._every == 0:
            self._measure(kwargs["model"], state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._every:
            self._measure(kwargs["model"], state.global_step)

    def _open(self, model: Any, step: int) -> str:
        """Make the store ready for columns after `step`; the reason why it cannot be, if any."""
        proxy = getattr(model.config, "_name_or_path", "")
        try:
            if step and (self._path / "zarr.json").exists():
                # A resumed model may come from a checkpoint's folder.
                proxy = TrajectoryStore(self._path).attributes.get("proxy", proxy)
            made_with = {"proxy": proxy, "source": "sweep", "trainer": "transformers", **self._attributes}
            self._store = TrajectoryStore.create(self._path, self._ids, made_with)
        except InputError as error:
            return str(error)
        steps = self._store.steps()
        if not step and len(steps) and steps[-1] > 0:
            return (
                f"{self._path}: holds columns up to step {steps[-1]}, and training starts at 0: continue it "
                "with trainer.train(resume_from_checkpoint=...), remove the store, or give another path."
            )
        self._store.drop_after(step)
        self._known = {int(known) for known in self._store.steps()}
        return ""

    def _measure(self, model: Any, step: int) -> None:
        if step in self._known:
            return
        column = example_losses(model, self.examples, self._batches)
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad):
            raise DivergedError(
                f"TrajectoryCallback: {len(bad)} losses at step {step} are not finite; the first is that of "
                f"example {bad[0]}. Lower the learning rate, or train in float32 or bfloat16."
            )
        if self._store is not None:
            self._store.append(step, column)
        self._known.add(step)
        logging.info("step %d: losses of %d examples, mean %.3f", step, len(column), column.mean())


def _pool_rows(rows: Iterable[Any]) -> list[PoolRow]:
    rows = list(rows)
    if all(isinstance(row, PoolRow) for row in rows):
        return rows
    raw = [RawRow(f"row {number}", row) for number, row in enumerate(rows)]
    return list(RowReader([lambda: iter(raw)], "the examples", 0, FieldMap(), skip=False, multi_turn=True))


def _lengths(examples: Sequence[Mapping[str, Any]]) -> Int64[np.ndarray, "n"]:
    lengths, without_loss = np.zeros(len(examples), np.int64), []
    for number in range(len(examples)):
        example = examples[number]
        lengths[number] = len(example["input_ids"])
        if (np.asarray(example["labels"])[1:] == _IGNORED).all():
            without_loss.append(number)
    if len(without_loss) == len(lengths):
        raise InputError("TrajectoryCallback: no example has a label to predict; raise max_length.")
    if without_loss:
        first = ", ".join(map(str, without_loss[:5]))
        logging.warning(
            "%d examples have no label to predict (%s); their loss is 0", len(without_loss), first
        )
    return lengths


def length_sorted_batches(lengths: Int64[np.ndarray, "n"], batch_tokens: int) -> list[Int64[np.ndarray, "b"]]:
    """Batches of like lengths that pad to at most `batch_tokens` tokens, the longest first.

    A batch has at least one example. In this order too little memory shows at once.
    """
    order, batches = np.argsort(-lengths, kind="stable"), []
    while len(order):
        size = max(1, batch_tokens // max(int(lengths[order[0]]), 1))
        batches.append(order[:size])
        order = order[size:]
    return batches


@torch.no_grad()
def example_losses(
    model: Any, examples: Sequence[Mapping[str, Any]], batches: Sequence[Int64[np.ndarray, "b"]]
) -> Float32[np.ndarray, "n"]:
    """The loss of every example under a PyTorch model, whole in every process."""
    world, rank = (dist.get_world_size(), dist.get_rank()) if _distributed() else (1, 0)
    device = next(model.parameters()).device
    column = torch.zeros(len(examples), dtype=torch.float32, device=device)
    was_training = model.training
    model.eval()
    try:
        # Sharded models gather weights in each forward pass: every process makes as many of them.
        for first in range(0, len(batches), world):
            mine = first + rank
            indices = batches[min(mine, len(batches) - 1)]
            losses = _batch_losses(model, [examples[int(index)] for index in indices], device)
            if mine < len(batches):
                column[torch.as_tensor(indices, device=device)] = losses
    finally:
        model.train(was_training)
    if _distributed():
        dist.all_reduce(column)
    return column.cpu().numpy()


def _batch_losses(model: Any, batch: Sequence[Mapping[str, Any]], device: Any) -> torch.Tensor:
    def padded(name: str, fill: int) -> torch.Tensor:
        values = [example.get(name, [1] * len(example["input_ids"])) for example in batch]
        rows = [torch.as_tensor(value, dtype=torch.long) for value in values]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill).to(device)

    tokens, mask, labels = padded("input_ids", 0), padded("attention_mask", 0), padded("labels", _IGNORED)
    logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1]
    following = labels[:, 1:]
    predicted = following != _IGNORED
    losses = torch.zeros(predicted.shape, device=device)
    losses[predicted] = torch.nn.functional.cross_entropy(
        logits[predicted].float(), following[predicted], reduction="none"
    )
    return losses.sum(dim=1) / predicted.sum(dim=1).clamp(min=1)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _from_first(value: Any) -> Any:
    """What the first process has."""
    if not _distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
