"""The PyTorch side of the benchmarks: transformers' models, padded batches, losses and training steps."""

import argparse
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import contenders
import numpy as np
from contenders import Rows

from s2l_jax.data.responses import response_starts

LOGITS_AT_ONCE = 2**28  # elements of one chunk of logits without a gradient
TRAINING: dict[str, Any] = {"learning_rate": 2e-5, "warmup_fraction": 0.03}


def load(checkpoint: str, dtype: str = "float32") -> Any:
    """A checkpoint as a transformers model, on the GPU if there is one."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


class Padded(NamedTuple):
    """Examples padded on the right to the longest, and where their response tokens are predicted."""

    ids: Any  # [b, l]
    labels: Any  # [b, l]; -100 at prompts and padding
    mask: Any  # [b, l]; 0 at padding
    index: Any  # [m], into the b x l tokens, of the token before each target
    targets: Any  # [m]
    row: Any  # [m], which of the b examples
    counts: Any  # [b], response tokens


def pad(rows: Rows, numbers: Iterable[int], device: Any) -> Padded:
    """Some examples as one batch on a device."""
    import torch

    tokens = [rows.tokens[n] for n in numbers]
    first = response_starts(rows.prompt_lengths[list(numbers)]).tolist()
    width = max(map(len, tokens))
    ids = np.zeros((len(tokens), width), np.int64)
    labels, mask = np.full_like(ids, -100), np.zeros_like(ids)
    for i, (text, start) in enumerate(zip(tokens, first, strict=True)):
        ids[i, : len(text)], mask[i, : len(text)] = text, 1
        labels[i, start : len(text)] = text[start:]
    row, column = np.nonzero(labels != -100)
    index, counts = row * width + column - 1, np.bincount(row)
    arrays = (ids, labels, mask, index, labels[row, column], row, counts)
    return Padded(*(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays))


def by_length(rows: Rows, numbers: Iterable[int], most: int) -> list[list[int]]:
    """Batches of examples alike in length, longest first, of at most `most` tokens with padding."""
    batches: list[list[int]] = []
    for n in sorted(map(int, numbers), key=lambda n: -len(rows.tokens[n])):
        if batches and (len(batches[-1]) + 1) * len(rows.tokens[batches[-1][0]]) <= most:
            batches[-1].append(n)
        else:
            batches.append([n])
    return batches


def response_losses(model: Any, batch: Padded) -> Any:
    """The mean loss of each example's response tokens, whose logits alone are computed.

    Padding on the right is seen by no token before it, so no mask is needed, and without one
    PyTorch takes its fastest causal kernel.
    """
    import torch

    hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    needed = hidden.flatten(0, 1)[batch.index]
    size = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    losses = [
        torch.nn.functional.cross_entropy(
            model.get_output_embeddings()(part).float(), targets, reduction="none"
        )
        for part, targets in zip(needed.split(size), batch.targets.split(size), strict=True)
    ]
    sums = torch.zeros(len(batch.ids), device=hidden.device).index_add_(0, batch.row, torch.cat(losses))
    return sums / batch.counts


def fastest(candidates: Iterable[int], run: Callable[[int], object]) -> int:
    """The candidate that `run` takes least time for; what comes first each time is not counted."""
    seconds = {}
    for candidate in candidates:
        run(candidate)
        start = time.perf_counter()
        run(candidate)
        seconds[candidate] = time.perf_counter() - start
    return min(seconds, key=seconds.__getitem__)


def official_training(
    checkpoint: str, rows: Rows, steps: list[list[int]], options: argparse.Namespace
) -> dict[str, Callable]:
    """Training as the Hugging Face Trainer does it; `steps` are the examples of each step."""
    import torch

    model = load(checkpoint).train()

    def cut(numbers: list[int]) -> list[list[int]]:
        order = sorted(numbers, key=lambda n: -len(rows.tokens[n]))
        return [order[i : i + options.micro] for i in range(0, len(order), options.micro)]

    def loss(batch: Padded) -> Any:
        # Over the response tokens of the whole step, as the Trainer has it when it accumulates.
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            mean = model(input_ids=batch.ids, attention_mask=batch.mask, labels=batch.labels).loss
        return mean * len(batch.targets)

    note = f"{options.micro} examples at a time"
    return _training(model, rows, steps, options, cut, loss, note, fused=False)


def strong_training(
    checkpoint: str, rows: Rows, steps: list[list[int]], options: argparse.Namespace
) -> dict[str, Callable]:
    """Training as fast as padded batches go in PyTorch."""
    import torch

    model = load(checkpoint).train()
    on_gpu = model.device.type == "cuda"

    def head(hidden: Any, targets: Any) -> Any:
        logits = model.get_output_embeddings()(hidden)
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

    body = model.base_model
    if options.compile:
        body, head = torch.compile(body, dynamic=True), torch.compile(head, dynamic=True)

    def loss(batch: Padded) -> Any:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            hidden = body(input_ids=batch.ids, use_cache=False).last_hidden_state
            return head(hidden.flatten(0, 1)[batch.index], batch.targets)

    def once(most: int) -> None:
        total = 0.0
        for numbers in by_length(rows, steps[0], most):
            part = loss(pad(rows, numbers, model.device))
            part.backward()
            total += float(part.detach())
        model.zero_grad()

    candidates = [4096, 8192, 16_384, 32_768] if on_gpu else [512, 2048]
    tokens = options.peer_tokens or fastest(candidates, once)
    note = f"{'compiled, ' if options.compile else ''}batches of {tokens} tokens"
    return _training(
        model, rows, steps, options, lambda numbers: by_length(rows, numbers, tokens), loss, note, fused=True
    )


def _training(
    model: Any,
    rows: Rows,
    steps: list[list[int]],
    options: argparse.Namespace,
    cut: Callable[[list[int]], list[list[int]]],
    loss: Callable[[Padded], Any],
    note: str,
    *,
    fused: bool,
) -> dict[str, Callable]:
    """Steps on microbatches that `cut` makes of a step's examples; `loss` is a sum over tokens."""
    import torch

    adamw = torch.optim.AdamW(
        model.parameters(), lr=TRAINING["learning_rate"], weight_decay=0.0, fused=fused or None
    )
    warmup = int(np.ceil(TRAINING["warmup_fraction"] * options.total))

    def rate(step: int) -> float:
        if step < warmup:
            return step / warmup
        return 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, options.total - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, rate)
    ahead = iter([[pad(rows, numbers, model.device) for numbers in cut(step)] for step in steps])

    def one() -> Any:
        batches = next(ahead)
        count = sum(len(batch.targets) for batch in batches)
        total = torch.zeros((), device=model.device)
        for batch in batches:
            part = loss(batch) / count
            part.backward()
            total += part.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        schedule.step()
        adamw.zero_grad()
        return total

    def run() -> list[float]:
        return [float(value) for value in [one() for _ in range(options.steps)]]

    threads = f", {os.cpu_count()} threads" if model.device.type == "cpu" else ""
    return {"run": run, "note": lambda: note + threads, "ceiling": contenders.torch_ceiling}
