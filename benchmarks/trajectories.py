"""The loss sweep of s2l_jax against PyTorch: same checkpoint, rows and machine, one run, taking turns.

    pip install torch
    python benchmarks/trajectories.py
    python benchmarks/trajectories.py --config=config.json --tokenizer=DIRECTORY --rows=pool.jsonl

s2l_jax     the sweep of a run: the pinned, packed slice and its compiled program
official    one example at a time, float32, loss from model(labels=...): what the published scripts do; on
            every n-th row by length, so that it ends
batched     a strong peer: rows sorted by length, in batches of the number of tokens that it finds fastest,
            already on the device, sdpa attention, inference mode, logits of response positions alone; in
            float32, and with --dtype=bfloat16 in bfloat16 too

Without options the embedded model and pool are used, with --config random weights. Every contender has a
process of its own and works only in its turn; the best round counts, the first, which compiles, left out.
Utilisation is model FLOPs over the largest rate that a matrix product reached here, in JAX or PyTorch, in the
contender's precision. Model FLOPs are the matrix products that the losses need: all tokens through the
layers, causal pairs through attention, responses through the vocabulary; no padding, no prompt logits. A
prefix that all rows share counts for every row, also where it is run once; its part is printed.
"Off float32" is the largest relative difference from the losses of the batched peer in float32.
Memory is the process's resident set at its highest, libraries included, or what the device's allocator says.
"""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

import contenders
import numpy as np
import peers
from contenders import Contender, Rows

OURS, OFFICIAL = "s2l_jax", "official"


def main() -> None:
    parser = contenders.parser(__doc__, num_rows=512)
    parser.add_argument("--rounds", type=int, default=3, help="beside the one that compiles")
    parser.add_argument("--official-rows", type=int, default=32, help="rows that the official way is given")
    parser.add_argument("--batch-tokens", type=int, default=0, help="trajectories.batch_tokens, ours")
    parser.add_argument("--peer-tokens", type=int, default=0, help="tokens of a peer's batch; 0: the fastest")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        checkpoint, rows = contenders.prepare(options, folder)
        all_rows = np.arange(len(rows.tokens))
        few = _every_nth(rows, options.official_rows)
        given = {OURS: all_rows, OFFICIAL: few}
        dtypes = {OURS: options.dtype, OFFICIAL: "float32"}
        running: dict[str, Contender] = {}

        def start(name: str, make: Callable[..., dict[str, Callable]], *args: Any) -> None:
            running[name] = stack.enter_context(Contender(name, make, checkpoint, *args))

        start(OURS, ours, rows, options)
        for dtype in dict.fromkeys(["float32", options.dtype]):
            name = f"batched {dtype}"
            given[name], dtypes[name] = all_rows, dtype
            start(name, batched, rows, dtype, options.peer_tokens)
        start(OFFICIAL, official, rows, few.tolist())
        seconds: dict[str, list[float]] = {name: [] for name in running}
        losses: dict[str, np.ndarray] = {}
        for _ in range(options.rounds + 1):
            for name, contender in running.items():
                took, losses[name] = contender.timed("run")
                seconds[name].append(took)
        peaks = {name: contender.ask("peak") for name, contender in running.items()}
        notes = {name: contender.ask("note") for name, contender in running.items()}
        ceilings = contenders.ceilings(running, list(dtypes.values()))
        flops, sizes, shared = _work(checkpoint, rows, given)
    exact = losses["batched float32"]
    lines = []
    for name in running:
        best, size = min(seconds[name][1:]), sizes[name]
        lines.append(
            {
                "": name,
                "rows": size["rows"],
                "seconds": best,
                "rows/s": size["rows"] / best,
                "tokens/s": size["tokens"] / best,
                "utilisation %": 100 * flops[name] / best / ceilings[dtypes[name]]["best"],
                "host GB": peaks[name]["host"],
                "device GB": peaks[name]["device"],
                "first round s": seconds[name][0],
                "off float32": _relative(losses[name], exact[given[name]]),
            }
        )
    own = lines[0]
    comparisons = []
    for line in lines[1:]:
        theirs = losses[line[""]]
        mine = losses[OURS][given[line[""]]]
        comparisons.append(
            {
                "s2l_jax against": line[""],
                "times as fast, rows/s": own["rows/s"] / line["rows/s"],
                "tokens/s": own["tokens/s"] / line["tokens/s"],
                "largest relative loss difference": _relative(mine, theirs),
                "absolute": float(np.max(np.abs(mine - theirs))),
            }
        )
    print(contenders.machine())
    whole = sizes[OURS]
    print(
        f"{whole['rows']} rows of {options.rows}: {whole['tokens']} tokens, {whole['loss_tokens']} of them "
        f"responses, longest {rows.lengths.max()}; {flops[OURS] / 1e12:.3g} TFLOP a sweep; {options.dtype}"
    )
    print(
        f"all rows begin with the same {len(rows.common_prefix)} tokens, which s2l_jax may run once: "
        f"{100 * shared / flops[OURS]:.3g} % of its model FLOPs are these tokens of all rows but one"
    )
    print(contenders.named(ceilings))
    print("; ".join(f"{name}: {note}" for name, note in notes.items() if note))
    print(f"\n{contenders.table(lines)}\n\n{contenders.table(comparisons)}")
    contenders.write_json(
        options.json,
        {
            "machine": contenders.machine(),
            "options": vars(options),
            "work": sizes,
            "shared_prefix_flops": shared,
            "ceilings": ceilings,
            "notes": notes,
            "seconds": seconds,
            "contenders": lines,
            "comparisons": comparisons,
        },
    )


def _every_nth(rows: Rows, count: int) -> np.ndarray:
    """Row numbers evenly spread over the lengths, so that a few rows are as long as all on average."""
    order = np.argsort(rows.lengths, kind="stable")
    count = min(count, len(order))
    return np.sort(order[((np.arange(count) + 0.5) * len(order) / count).astype(int)])


def _relative(losses: np.ndarray, reference: np.ndarray) -> float:
    """The largest relative difference."""
    return float(np.max(np.abs(losses - reference) / np.abs(reference)))


def _work(checkpoint: str, rows: Rows, given: dict[str, np.ndarray]) -> tuple[dict, dict, float]:
    """Model FLOPs and sizes of what each contender was given; FLOPs of a prefix run again for every row."""
    import dataclasses

    from s2l_jax.data.batching import Size, size_of
    from s2l_jax.models.hf import load_config
    from s2l_jax.training.flops import forward_flops

    config = load_config(checkpoint)
    sizes = {name: size_of(rows, numbers) for name, numbers in given.items()}
    flops = {name: forward_flops(config, size) for name, size in sizes.items()}
    again, prefix = len(rows.tokens) - 1, len(rows.common_prefix)
    shared = forward_flops(config, Size(again * prefix, 0, again * prefix * (prefix + 1) // 2))
    by_name = {name: dataclasses.asdict(s) | {"rows": len(given[name])} for name, s in sizes.items()}
    return flops, by_name, shared


def ours(checkpoint: str, rows: Rows, options: argparse.Namespace) -> dict[str, Callable]:
    """The sweep as stage `proxy` makes it, with live float32 parameters."""
    import jax

    from s2l_jax.models.parameters import model_params
    from s2l_jax.models.weights import DTYPES
    from s2l_jax.parallel.host_memory import keep_freed_memory
    from s2l_jax.parallel.mesh import make_mesh
    from s2l_jax.parallel.placement import load_model
    from s2l_jax.trajectories.packed_dataset import PackedDataset
    from s2l_jax.trajectories.sweep import make_sweep

    if jax.default_backend() == "cpu":
        keep_freed_memory()  # as launch.py does
    mesh = make_mesh()
    model = load_model(checkpoint, mesh)
    params = model_params(model)
    tracked = PackedDataset(
        rows,
        np.arange(len(rows.tokens)),
        mesh,
        max_length=options.max_length,
        batch_tokens=options.batch_tokens,
        pinned_bytes=2**32,
    )
    sweep = make_sweep(model.config, tracked, mesh, dtype=DTYPES[options.dtype])
    return {
        "run": lambda: np.asarray(sweep(params)),
        "note": lambda: str(jax.devices()[0].device_kind),
        "ceiling": contenders.jax_ceiling,
    }


def official(checkpoint: str, rows: Rows, numbers: list[int]) -> dict[str, Callable]:
    """One example at a time."""
    import torch

    model = peers.load(checkpoint).eval()

    def run() -> np.ndarray:
        losses = []
        with torch.no_grad():
            for n in numbers:
                batch = peers.pad(rows, [n], model.device)
                losses.append(model(input_ids=batch.ids, labels=batch.labels).loss.item())
        return np.array(losses)

    return {"run": run, "note": lambda: "", "ceiling": contenders.torch_ceiling}


def batched(checkpoint: str, rows: Rows, dtype: str, tokens: int) -> dict[str, Callable]:
    """Batches of rows alike in length."""
    import torch

    model = peers.load(checkpoint, dtype).eval()
    on_gpu = model.device.type == "cuda"

    def batches(numbers: Any, most: int) -> list[tuple[list[int], peers.Padded]]:
        return [(some, peers.pad(rows, some, model.device)) for some in peers.by_length(rows, numbers, most)]

    def sweep(batches: list[tuple[list[int], peers.Padded]]) -> np.ndarray:
        losses = np.zeros(len(rows.tokens))
        with torch.inference_mode():
            found = [(numbers, peers.response_losses(model, batch)) for numbers, batch in batches]
            for numbers, values in found:
                losses[numbers] = values.float().cpu().numpy()
        return losses

    if not tokens:
        some = range(len(rows.tokens)) if on_gpu else _every_nth(rows, 96)
        candidates = [8192, 32_768, 131_072] if on_gpu else [256, 1024, 4096]
        tokens = peers.fastest(candidates, lambda most: sweep(batches(some, most)))
    pinned = batches(range(len(rows.tokens)), tokens)
    note = f"batches of {tokens} tokens, {os.cpu_count()} threads"
    return {"run": lambda: sweep(pinned), "note": lambda: note, "ceiling": contenders.torch_ceiling}


if __name__ == "__main__":
    main()
