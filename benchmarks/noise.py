"""How well late losses tell mislabelled rows, beside cleanlab, on pools with planted noise.

    pip install --group noise
    python benchmarks/noise.py --workdir=runs/noise
    python benchmarks/noise.py --workdir=runs/noise_own --pool=pool.jsonl --steps=750 --shares=0.03,0.1

Noise of four kinds in turn (a response that is too short for one gets the next) is planted in the embedded
pool (without the rows that are mislabelled in it already) or in a sample of another whose rows fit the
quickstart's proxy. That proxy is trained on each pool and swept as the quickstart has it. From the same
losses, or the same weights at the last sweep, come

  suspects          s2l_jax.suspects: the lowest late loss, within its source, in robust standard deviations
  last loss         the loss at the last checkpoint, as it is
  cleanlab, rows    its self-confidence exp(-last loss), less the mean of the row's source (its class)
  cleanlab, tokens  its quality of token labels: the least likely token of a response
  confident tokens  its confident learning over the vocabulary; a row with a token that it marks is marked

A response has no classes, so confident learning does not apply to rows; to tokens it does. cleanlab asks for
predictions of held-out rows, and these are of rows that were trained on, for all alike.
"""

import argparse
import collections
import json
import pathlib
import random
import string
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cleanlab.rank import get_label_quality_scores as row_quality
from cleanlab.token_classification.filter import find_label_issues
from cleanlab.token_classification.rank import get_label_quality_scores as token_quality
from jaxtyping import Bool, Float
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from s2l_jax import config as configs
from s2l_jax import load_trajectories, suspects
from s2l_jax.data.datasets.synthetic import pool_rows
from s2l_jax.data.pool import row_of
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedExample, tokenize
from s2l_jax.models import hf
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.parallel.placement import load_model
from s2l_jax.pipeline import run_pipeline
from s2l_jax.selection import SelectionInputs, select

LEFT_OUT = 0.05  # share of rows that a filter leaves out
SEEDS = range(5)  # of subsets
_AT_ONCE = 64  # examples
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="a folder, for a workdir each")
    parser.add_argument(
        "--pool", default="", help="JSON Lines of source, instruction, output; empty: embedded"
    )
    parser.add_argument("--rows", type=int, default=4000, help="of the pool")
    parser.add_argument("--shares", default="0,0.01,0.03,0.1,0.2", help="of rows, to be made noise")
    parser.add_argument("--steps", type=int, default=0, help="of the proxy; 0: the quickstart's")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and the proxy")
    options = parser.parse_args()
    config = configs.load("quickstart")
    config.seed = options.seed
    config.proxy.save_params = True
    if options.steps:
        config.trajectories.every = config.trajectories.every * options.steps // config.proxy.train.steps
        config.proxy.train.steps = options.steps
    rows = _rows(options, config)
    print(f"{len(rows)} rows of {len({row['source'] for row in rows})} sources")
    for share in map(float, options.shares.split(",")):
        noisy, kinds = with_noise(rows, share, random.Random(f"noise/{options.seed}/{share}"))
        _measure(config, noisy, kinds, options.workdir / f"{share:g}")


def _rows(options: argparse.Namespace, config: ConfigDict) -> list[Row]:
    if not options.pool:
        return [row for row in pool_rows(options.rows) if row["clean"]]
    tokenizer = hf.load_tokenizer(config.proxy.checkpoint)
    with open(options.pool, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    random.Random(options.seed).shuffle(rows)
    sample = rows[: 8 * options.rows]  # some are too long
    fit = [
        row
        for row, example in zip(sample, _tokenized(config, tokenizer, sample), strict=True)
        if not example.cut
    ]
    return fit[: options.rows]


def _tokenized(config: ConfigDict, tokenizer: Any, rows: list[Row]) -> list[TokenizedExample]:
    texts = [render(config.tokenize.prompt, row_of(row, f"row {i}")) for i, row in enumerate(rows)]
    return tokenize(tokenizer, texts, max_length=config.tokenize.max_length, template=config.tokenize.prompt)


def wrong(response: str, others: list[str], rng: random.Random) -> str:
    """One letter or digit of the last word is another."""
    end = max((i for i, c in enumerate(response) if c.isalnum()), default=-1)
    start = end
    while start > 0 and response[start - 1].isalnum():
        start -= 1
    if end < 0:
        return response
    place = rng.randint(start, end)
    alike = string.digits if response[place].isdigit() else string.ascii_lowercase
    return response[:place] + rng.choice([c for c in alike if c != response[place]]) + response[place + 1 :]


def of_another(response: str, others: list[str], rng: random.Random) -> str:
    """The response of another row of the source."""
    return rng.choice([other for other in others if other != response] or [response])


def truncated(response: str, others: list[str], rng: random.Random) -> str:
    """Its first half."""
    return response[: max(1, len(response) // 2)]


def garbled(response: str, others: list[str], rng: random.Random) -> str:
    """Its characters in another order."""
    return "".join(rng.sample(response, len(response))).strip()


KINDS: tuple[Callable[[str, list[str], random.Random], str], ...] = (wrong, of_another, truncated, garbled)


def with_noise(rows: list[Row], share: float, rng: random.Random) -> tuple[list[Row], list[str]]:
    """The rows, some of them noise, and the kind of each ("" for what is left as it was)."""
    responses = collections.defaultdict(list)
    for row in rows:
        responses[row["source"]].append(row["output"])
    noisy, kinds = [dict(row) for row in rows], [""] * len(rows)
    for number, place in enumerate(rng.sample(range(len(rows)), round(share * len(rows)))):
        row = noisy[place]
        for spoil in KINDS[number % len(KINDS) :] + KINDS:  # some responses are too short for some kinds
            changed = spoil(row["output"], responses[row["source"]], rng)
            if changed.strip() and changed != row["output"]:
                row["output"], kinds[place] = changed, spoil.__name__
                break
    return noisy, kinds


def _measure(config: ConfigDict, rows: list[Row], kinds: list[str], workdir: pathlib.Path) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / "pool.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = config.copy_and_resolve_references()
    config.pool.path = str(file)
    run_pipeline(config, workdir / "run", stages=["pool", "proxy"])
    losses = load_trajectories(workdir / "run" / "trajectories.zarr").losses
    snapshots = sorted(
        (workdir / "run" / "proxy" / "snapshots").iterdir(), key=lambda folder: int(folder.name)
    )
    sources = np.array([row["source"] for row in rows])
    labels, probabilities = _token_probabilities(config, str(snapshots[-1]), rows)
    scores = {
        "suspects": suspects(losses, sources),
        "last loss": losses[:, -1],
        "cleanlab, rows": -_row_quality(losses[:, -1], sources),
        "cleanlab, tokens": -np.asarray(token_quality(labels, probabilities)[0]),
    }
    planted, kind = np.array(kinds) != "", np.array(kinds)
    print(f"\n{planted.mean():.1%} noise, {len(rows)} rows, {losses.shape[1]} checkpoints")
    if planted.any():
        _print_scores(scores, planted, kind)
        marked = np.zeros(len(rows), bool)
        marked[[row for row, _ in find_label_issues(labels, probabilities, n_jobs=1)]] = True
        found = _precision_and_recall(marked, planted)
        print(
            f"  {'confident tokens':18} {'':6}  {found} of {marked.mean():.1%} of rows, as many as it marks"
        )
    _print_subsets(config, losses, sources, planted)


def _row_quality(losses: Float[np.ndarray, " n"], sources: np.ndarray) -> np.ndarray:
    """cleanlab's, where the classes are the sources and one more, for rows that are wrong."""
    groups = np.unique(sources, return_inverse=True)[1]
    confidence = np.exp(-losses.astype(np.float64))
    classes = np.zeros((len(losses), groups.max() + 2))
    classes[np.arange(len(losses)), groups] = confidence
    classes[:, -1] = 1 - confidence
    return row_quality(groups, classes, method="self_confidence", adjust_pred_probs=True)


def _token_probabilities(
    config: ConfigDict, checkpoint: str, rows: list[Row]
) -> tuple[list[list[int]], list[np.ndarray]]:
    """The response tokens of each row, and of each [T, V]: the probabilities of all tokens in its place."""
    model = load_model(checkpoint, make_mesh(1, 1, 1, devices=jax.devices()[:1]))
    examples = _tokenized(config, hf.load_tokenizer(config.proxy.checkpoint), rows)
    width = config.tokenize.max_length
    positions = jnp.broadcast_to(jnp.arange(width), (_AT_ONCE, width))

    @jax.jit
    def probabilities(model: Any, tokens: jax.Array) -> jax.Array:
        return jax.nn.softmax(model.logits(model(tokens, positions, jnp.ones_like(tokens))))

    labels, found = [], []
    for start in range(0, len(examples), _AT_ONCE):
        batch = examples[start : start + _AT_ONCE]
        tokens = np.zeros((_AT_ONCE, width), np.int32)  # what follows an example is not seen by it
        for row, example in zip(tokens, batch, strict=False):
            row[: len(example.tokens)] = example.tokens
        together = np.asarray(probabilities(model, tokens))
        for row, example in zip(together, batch, strict=False):
            first, end = example.prompt_length, len(example.tokens)
            labels.append(example.tokens[first:end].tolist())
            found.append(row[first - 1 : end - 1])
    return labels, found


def _print_scores(scores: dict[str, np.ndarray], planted: Bool[np.ndarray, " n"], kind: np.ndarray) -> None:
    names = [spoil.__name__ for spoil in KINDS]
    print("  precision / recall at 5 % left out, and at as many as were planted; AUC of", ", ".join(names))
    for name, score in scores.items():
        at_5, at_planted = (_precision_and_recall(_highest(score, n), planted) for n in _counts(planted))
        of_kind = [
            roc_auc_score(kind[~planted | (kind == k)] == k, score[~planted | (kind == k)]) for k in names
        ]
        area = roc_auc_score(planted, score)
        print(f"  {name:18} {area:6.3f}  {at_5:20} {at_planted:20} {' '.join(f'{a:.3f}' for a in of_kind)}")


def _counts(planted: Bool[np.ndarray, " n"]) -> tuple[int, int]:
    return round(LEFT_OUT * len(planted)), int(planted.sum())


def _highest(score: np.ndarray, count: int) -> Bool[np.ndarray, " n"]:
    marked = np.zeros(len(score), bool)
    marked[np.argsort(-score, kind="stable")[:count]] = True
    return marked


def _precision_and_recall(marked: Bool[np.ndarray, " n"], planted: Bool[np.ndarray, " n"]) -> str:
    hits = (marked & planted).sum()
    return f"{hits / max(marked.sum(), 1):.2f} / {hits / planted.sum():.2f}"


def _print_subsets(
    config: ConfigDict, losses: np.ndarray, sources: np.ndarray, planted: Bool[np.ndarray, " n"]
) -> None:
    """The noise in subsets with and without the filter, mean over seeds."""
    inputs = SelectionInputs(trajectories=losses, sources=sources)
    budget, clusters = config.selection.budget, config.clustering.num_clusters
    found = []
    for title, settings in (
        ("s2l", {"method": "s2l", "num_clusters": clusters}),
        ("random by source", {"method": "random", "stratify_by": "source"}),
    ):
        for share in (0.0, LEFT_OUT):
            subsets = [select(inputs, budget, seed=s, drop_unlearnt=share, **settings) for s in SEEDS]
            noise = np.mean([planted[subset.indices].mean() for subset in subsets])
            found.append(f"{title}{' filtered' if share else ''} {noise:.1%}")
    print(f"  noise in subsets of {budget}: {', '.join(found)}")


if __name__ == "__main__":
    main()
