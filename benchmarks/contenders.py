"""What the benchmarks against PyTorch share: real rows, one checkpoint, contenders in their own processes."""

import argparse
import dataclasses
import json
import multiprocessing
import os
import pathlib
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from s2l_jax.data.responses import NO_GAPS, Gaps

# Contenders must not inherit each other's libraries, nor a GPU that one of them has opened.
_PROCESSES = multiprocessing.get_context("spawn")
_CEILING_SECONDS = 2.0


@dataclasses.dataclass
class Rows:
    """Tokenised rows with a response, as `data.batching.Examples`; holds no library's objects."""

    tokens: list[np.ndarray]
    prompt_lengths: np.ndarray
    common_prefix: np.ndarray  # tokens that all begin with
    gaps: Gaps = NO_GAPS
    lengths: np.ndarray = dataclasses.field(init=False)  # tokens of each

    def __post_init__(self) -> None:
        self.lengths = np.array([len(tokens) for tokens in self.tokens], np.int32)

    def read(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Token ids of some."""
        return [self.tokens[n] for n in indices]


def parser(description: str | None, *, num_rows: int) -> argparse.ArgumentParser:
    """A parser with the options that say which model, rows and precision."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--config", default="", help="a config.json; its weights are random")
    made.add_argument("--noise", type=float, default=0.02, help="added to every tensor of random weights")
    made.add_argument("--checkpoint", default="", help="a Hugging Face directory; default: an embedded model")
    made.add_argument("--tokenizer", default="", help="a directory; default: that of the model")
    made.add_argument("--rows", default="synthetic", help="a pool, such as a JSONL file; default: embedded")
    made.add_argument("--prompt", default="", help="a template; default: alpaca, for embedded rows plain")
    made.add_argument("--max-length", type=int, default=512, help="tokens kept of a row")
    made.add_argument("--num-rows", type=int, default=num_rows, help="rows drawn from the pool; 0: all")
    made.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    made.add_argument("--json", default="", help="a file for the figures")
    return made


def prepare(options: argparse.Namespace, folder: str) -> tuple[str, Rows]:
    """The checkpoint that all contenders load (written under `folder` if random), and the rows."""
    from s2l_jax.data.datasets.base import base_checkpoint
    from s2l_jax.data.order import visit_order
    from s2l_jax.data.pool import read_rows
    from s2l_jax.data.prompts import render
    from s2l_jax.data.tokens import TokenizedList, tokenize
    from s2l_jax.models import hf

    checkpoint = options.checkpoint or base_checkpoint("proxy")
    if options.config:
        checkpoint = str(pathlib.Path(folder) / "model")
        with Contender("checkpoint", _write_checkpoint, options.config, checkpoint, options.noise):
            pass
    place = options.tokenizer or (str(pathlib.Path(options.config).parent) if options.config else checkpoint)
    tokenizer = hf.load_tokenizer(place)
    pool = [row for row in read_rows(options.rows) if row.output]
    wanted = min(options.num_rows or len(pool), len(pool))
    drawn = [pool[n] for n in visit_order(np.arange(wanted), len(pool), seed=0)]
    template = options.prompt or ("plain" if options.rows == "synthetic" else "alpaca")
    texts = [render(template, row, tokenizer) for row in drawn]
    examples = tokenize(tokenizer, texts, max_length=options.max_length, template=template)
    kept = [e for e in examples if e.prompt_length < len(e.tokens)]
    whole = TokenizedList(kept)
    return checkpoint, Rows([e.tokens for e in kept], whole.prompt_lengths, whole.common_prefix)


def _write_checkpoint(config_file: str, folder: str, noise: float) -> dict[str, Callable]:
    """Random weights with noise on every tensor: at initialisation biases and norms change no loss."""
    import jax
    import jax.numpy as jnp

    from s2l_jax.models import hf
    from s2l_jax.parallel.mesh import make_mesh
    from s2l_jax.parallel.placement import random_params

    config = hf.load_config(config_file)
    params = random_params(config, make_mesh(), jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + noise * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(structure, noisy)
    hf.save_model(folder, params, config, hf.read_config(config_file), dtype=jnp.float32)
    return {}


def batches(
    rows: Rows, options: argparse.Namespace, num_steps: int, groups: int = 1, *, share_prefix: bool = False
) -> Any:
    """The batches of a training run: which examples each step sees, whoever trains on them."""
    from s2l_jax.data.batching import Batches

    everything = np.arange(len(rows.tokens))
    return Batches(
        rows,
        everything,
        np.ones(len(everything), np.float32),
        batch_size=options.batch,
        num_steps=num_steps,
        seed=0,
        max_length=options.max_length,
        microbatches=options.accumulation,
        groups=groups,
        local_groups=range(groups),
        share_prefix=share_prefix,
    )


class Contender:
    """One way of doing the work, in a process of its own that works only when asked.

    Args:
      name: for people.
      make: called there once with `args`; gives the callables that can be asked for, by name.
    """

    def __init__(self, name: str, make: Callable[..., dict[str, Callable]], *args: Any):
        # What JAX takes from a GPU in advance, the others would not have.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self.name = name
        self._pipe, there = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(target=_serve, args=(there, make, args))
        self._process.start()
        there.close()
        print(f"{name}: ready after {self._reply()[0]:.0f} s", file=sys.stderr, flush=True)

    def ask(self, what: str, *args: Any) -> Any:
        """What a callable gives."""
        return self.timed(what, *args)[1]

    def timed(self, what: str, *args: Any) -> tuple[float, Any]:
        """Seconds that a callable took, and what it gives."""
        self._pipe.send((what, args))
        return self._reply()

    def _reply(self) -> tuple[float, Any]:
        try:
            seconds, value, error = self._pipe.recv()
        except EOFError:
            raise SystemExit(f"{self.name}: its process was killed; too little memory?") from None
        if error:
            raise SystemExit(f"{self.name}: {error}")
        return seconds, value

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Any, make: Callable[..., dict[str, Callable]], args: tuple) -> None:
    answers = {"peak": peak_memory}
    what, given = "", args
    while True:
        start = time.perf_counter()
        try:
            if what:
                value = answers[what](*given)
            else:
                answers |= make(*args)
                value = None
            pipe.send((time.perf_counter() - start, value, ""))
        except Exception:
            pipe.send((0.0, None, traceback.format_exc()))
        try:
            what, given = pipe.recv()
        except (EOFError, ConnectionResetError):
            return


def peak_memory() -> dict[str, float]:
    """The most this process has held so far, in GB: on the host, and on a GPU or TPU where one is used."""
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, "device": 0.0}
    if "jax" in sys.modules:
        stats = sys.modules["jax"].local_devices()[0].memory_stats() or {}
        peak["device"] = stats.get("peak_bytes_in_use", 0) / 1e9
    elif "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        peak["device"] = sys.modules["torch"].cuda.max_memory_allocated() / 1e9
    return peak


def jax_ceiling(dtype: str) -> float:
    """FLOP/s of one large square matrix product in JAX, the best of two seconds of them."""
    import jax
    import jax.numpy as jnp

    n = 2048 if jax.devices()[0].platform == "cpu" else 8192
    x = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
    with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        product = jax.jit(jnp.matmul)
        product(x, x).block_until_ready()
        return 2 * n**3 / _best_seconds(lambda: product(x, x).block_until_ready())


def torch_ceiling(dtype: str) -> float:
    """The same in PyTorch."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    n = 2048 if device == "cpu" else 8192
    x = torch.randn(n, n, device=device).to(getattr(torch, dtype))

    def product() -> None:
        torch.matmul(x, x)
        if device == "cuda":
            torch.cuda.synchronize()

    product()
    return 2 * n**3 / _best_seconds(product)


def _best_seconds(run: Callable[[], object]) -> float:
    best, end = float("inf"), time.perf_counter() + _CEILING_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def ceilings(contenders: dict[str, Contender], dtypes: Sequence[str]) -> dict[str, dict[str, float]]:
    """FLOP/s of matrix products by dtype and contender; each also has the "best" of all."""
    found = {}
    for dtype in dict.fromkeys(dtypes):
        rates = {}
        for contender in contenders.values():
            library = "jax" if contender.name.startswith("s2l_jax") else "torch"
            if library not in rates:
                rates[library] = contender.ask("ceiling", dtype)
        found[dtype] = rates | {"best": max(rates.values())}
    return found


def named(ceilings: dict[str, dict[str, float]]) -> str:
    """`ceilings` as lines."""
    lines = []
    for dtype, rates in ceilings.items():
        each = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in rates.items() if name != "best")
        lines.append(f"matrix products in {dtype}, TFLOP/s: {each}")
    return "\n".join(lines)


def machine() -> str:
    """Processor, accelerator and versions, in a line."""
    from importlib.metadata import PackageNotFoundError, version

    def of(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return ""

    model = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            named = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        model = named[0] if named else ""
    libraries = ", ".join(filter(None, map(of, ("jax", "torch", "transformers"))))
    return f"{os.cpu_count()} cores {model}; {libraries}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a text table, the first column to the left."""
    columns = list(rows[0])
    cells = [columns, *([_shown(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write_json(path: str, figures: dict[str, Any]) -> None:
    """The figures in a file, if one was asked for."""
    if path:
        pathlib.Path(path).write_text(json.dumps(figures, indent=2) + "\n")
