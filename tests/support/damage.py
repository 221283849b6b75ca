"""Files of a workdir damaged one by one, and what the same command then does; not a test itself."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from s2l_jax import artifacts
from s2l_jax.config import run
from s2l_jax.data.datasets import synthetic
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.trajectories.store import TrajectoryStore
from tests.support.pipeline_kills import small_config

SAME, NAMED, WRONG = "same results", "named", "WRONG"
ROWS = 60


def flip(file: pathlib.Path) -> None:
    """Change one bit, of the middle one of the bytes that are not 0: most of a padded file is padding."""
    data = bytearray(file.read_bytes())
    places = np.flatnonzero(np.frombuffer(bytes(data), np.uint8)) if any(data) else np.arange(len(data))
    if len(places):
        data[places[len(places) // 2]] ^= 4
    file.write_bytes(bytes(data))


def halve(file: pathlib.Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(file: pathlib.Path) -> None:
    file.unlink()


WAYS: dict[str, Callable[[pathlib.Path], None]] = {"flip": flip, "halve": halve, "remove": remove}


def tiny_config(checkpoint: str, folder: pathlib.Path):
    """A run of seconds in which every kind of file is left: `folder` holds its inputs."""
    if not (folder / "pool.jsonl").exists():
        rows = [row for row in synthetic.heldout_rows() if len(row["instruction"]) < 60]
        for name, part in (("pool", rows[:ROWS]), ("few", rows[ROWS : ROWS + 4])):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    config = small_config(checkpoint)
    config.pool.update(path=str(folder / "pool.jsonl"), limit=0)
    config.clustering.num_clusters = 2
    config.clustering.compare = (3,)
    config.trajectories.update(every=2)
    config.proxy.save_params = True
    for model in (config.proxy, config.target):
        model.train.update(steps=4, batch_size=16)
    config.selection.update(budget=20, queries=str(folder / "few.jsonl"))
    config.selection.exports = ("jsonl", "messages")
    config.selection.gradients.update(rank=2, warmup_fraction=0.5, epochs=1, batch_size=16, dims=16)
    config.evaluation.update(path=str(folder / "few.jsonl"), limit=4, max_new_tokens=2)
    config.selection.runs = {}
    config.selection.runs.s2l = run(method="s2l")
    config.selection.runs.less = run(method="less", budget=10, train_target=False)
    config.selection.runs.semdedup = run(method="semdedup", train_target=False)
    return config


def proxy_config(checkpoint: str, folder: pathlib.Path):
    """Of that run the proxy alone, and one subset."""
    config = tiny_config(checkpoint, folder)
    config.selection.runs = {"s2l": run(method="s2l", train_target=False)}
    config.clustering.compare = ()
    config.evaluation.path = ""
    config.selection.queries = ""
    return config


@contextlib.contextmanager
def dying(label: str) -> Iterator[None]:
    """Interrupt the run before a file whose path has `label` in it is written, or a column so named."""
    write, append = artifacts.write_bytes, TrajectoryStore.append

    def watched_write(path, data):
        if label in str(path):
            raise KeyboardInterrupt
        write(path, data)

    def watched_append(store, step, column):
        if label == f"column {step}":
            raise KeyboardInterrupt
        append(store, step, column)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "write_bytes", watched_write)
        patch.setattr(TrajectoryStore, "append", watched_append)
        with pytest.raises(KeyboardInterrupt):
            yield


def outcome_of(workdir: pathlib.Path) -> dict[str, str]:
    """What must not change: the numbers, subsets, weights and predictions of a run."""
    results = json.loads((workdir / "results.json").read_text())
    results.pop("timing")
    kept = {"results": json.dumps(results, sort_keys=True)}
    # A finished target's weights are compared when they are read, not at each start.
    for pattern in ("selection/*/indices.npy", "selection/*/*.jsonl", "evaluation/*/*/predictions.jsonl"):
        for file in workdir.glob(pattern):
            kept[str(file.relative_to(workdir))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return kept


@dataclasses.dataclass(frozen=True)
class Case:
    """One file, damaged in one way, and what became of the command."""

    file: str
    way: str
    outcome: str
    said: str = ""

    def __str__(self) -> str:
        return f"{self.outcome:12} {self.way:6} {self.file}  {self.said}"


def damaged(
    base: pathlib.Path,
    file: str,
    way: str,
    config,
    expected: dict[str, str],
    place: pathlib.Path,
) -> Case:
    """The same command on a copy of `base`, at `place`, in which `file` is damaged."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base, place)
    WAYS[way](place / file)
    try:
        run_pipeline(config, place, name="damage")
    except InputError as error:
        said = str(error)
        parents = [place / file, *list((place / file).parents)[: len(pathlib.Path(file).parts) - 1]]
        is_named = any(str(each) in said for each in parents)
        one_line = "\n" not in said or "made with other settings" in said
        return Case(file, way, NAMED if is_named and one_line else WRONG, said)
    except Exception as error:  # anything else would be a traceback, or advice that does not help
        return Case(file, way, WRONG, f"{type(error).__name__}: {error}")
    found = outcome_of(place)
    other = [name for name in expected if found.get(name) != expected[name]]
    return Case(file, way, WRONG if other else SAME, f"other than before: {other}" if other else "")


def files_of(base: pathlib.Path, *beginnings: str) -> list[str]:
    """Files of a workdir by their paths in it, of those that begin so."""
    names = sorted(str(file.relative_to(base)) for file in base.rglob("*") if file.is_file())
    return [name for name in names if not beginnings or name.startswith(beginnings)]
