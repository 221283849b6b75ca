"""Reading results.json: the numbers as they are, and a table with a row for each run."""

import dataclasses
import functools
import importlib.resources
import json
from typing import Any

from etils import epath

from s2l_jax import artifacts
from s2l_jax.errors import InputError
from s2l_jax.report.runs import RunGroup, RunResult, group_runs

SCHEMA = "results.schema.json"


@dataclasses.dataclass(frozen=True)
class Results:
    """The numbers of a workdir.

    Attributes:
      content: of results.json; `results_schema` says what each field is.
    """

    content: dict[str, Any]

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each run: what it chose, how its target was trained, and how good that got.

        `budget`, `size`: rows. `accuracy`, `accuracy_<benchmark>`: from 0 to 1. `heldout_loss`: nats per
        token. `selection_seconds` has the proxy and its sweeps, where the method used them. What was not
        measured is None.
        """
        return [_row(group, run) for group in group_runs(self.content) for run in group.runs]

    @property
    def table(self) -> Any:
        """The rows as a pandas DataFrame.

        Raises:
          InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise InputError("Results.table needs pandas: pip install pandas, or use Results.rows.") from None
        return pandas.DataFrame(self.rows)


def load_results(workdir: epath.PathLike) -> Results:
    """The results of a workdir, or of a results.json.

    Raises:
      InputError: there are none, or no JSON object.
    """
    path = epath.Path(workdir)
    path = path / "results.json" if path.is_dir() else path
    if not path.exists():
        raise InputError(
            f"{path} does not exist: name the workdir of a run that has ended, or its results.json."
        )
    content = artifacts.read_json(path)
    if not isinstance(content, dict) or "selections" not in content:
        raise InputError(f"{path} is no results.json of a run: it has no 'selections'.")
    return Results(content)


def results_schema() -> dict[str, Any]:
    """The JSON schema of results.json, in which every field has a description."""
    return json.loads(importlib.resources.files(__package__).joinpath(SCHEMA).read_text("utf-8"))


def _row(group: RunGroup, run: RunResult) -> dict[str, Any]:
    selection, target = run.selection, run.target
    benchmarks = run.evaluation.get("benchmarks") or {}
    return {
        "name": run.name,
        "method": run.method,
        "label": group.label,
        "budget": group.budget,
        "size": selection.get("size"),
        "seed": selection.get("seed"),
        "options": selection.get("options"),
        "num_clusters": selection.get("num_clusters"),
        **{
            name: target.get(name)
            for name in ("steps", "epochs", "tokens_seen", "training_flops", "final_loss")
        },
        "accuracy": run.accuracy,
        "heldout_loss": run.heldout_loss,
        **{f"accuracy_{name}": scores.get("accuracy") for name, scores in benchmarks.items()},
        "selection_seconds": run.selection_seconds,
        "target_seconds": run.target_seconds,
    }
