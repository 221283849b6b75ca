"""What is known before a method runs, and what can be told from it: in a run, before anything is trained."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int64

from s2l_jax.data.order import priorities
from s2l_jax.errors import InputError
from s2l_jax.selection.ranking import ranks

_SHOWN = 3  # sources that an error names


@dataclasses.dataclass(frozen=True)
class Known:
    """What a choice is from.

    Attributes:
      num_examples: N.
      count: how many the budget comes to at most.
      sources: of each example; None where not known.
      steps: of the trajectories' columns; None where they are not known yet, or there are none.
    """

    num_examples: int
    count: int
    sources: Sequence[str] | Int[np.ndarray, " n"] | None = None
    steps: Sequence[int] | None = None

    @property
    def num_columns(self) -> int | None:
        """T, of the trajectories, where known."""
        return None if self.steps is None else len(self.steps)

    def check_columns(self, least: int, what: str) -> None:
        """Raise an InputError for trajectories of fewer columns, where they are known; `what` needs them."""
        if self.num_columns is not None and self.num_columns < least:
            raise InputError(
                f"{what} needs trajectories of at least {least} columns, and there are {self.num_columns}: "
                "measure at more checkpoints."
            )

    def check_num_clusters(self, num_clusters: int, what: str) -> None:
        """Raise an InputError for more clusters than rows; `what` asks for them."""
        if num_clusters > self.num_examples:
            raise InputError(
                f"{what}: num_clusters={num_clusters} is above the {self.num_examples} rows to cluster; use "
                f"at most {self.num_examples}, better far fewer."
            )

    def check_sources(self, what: str) -> None:
        """Raise an InputError for sources that no budget can be shared over: too many, or of single rows."""
        if self.sources is None or self.count >= self.num_examples:  # nothing is shared: all are taken
            return
        names, sizes = np.unique(np.asarray(self.sources), return_counts=True)
        if len(names) > self.count:
            reason = f"more than the budget of {self.count} examples, so that some would get nothing"
        elif single := mostly_single(sizes):
            reason = f"for {self.num_examples} rows, and {single} are of a single row, no categories"
        else:
            return
        shown = ", ".join(repr(str(name)) for name in names[:_SHOWN])
        raise InputError(
            f"{what}: stratify_by='source' shares the budget over the sources, and there are {len(names)} "
            f"({shown}, ...), {reason}. Set stratify_by='none', or name a field that is a category as the "
            "source (pool.fields.source)."
        )


def mostly_single(sizes: Int[np.ndarray, " s"]) -> int:
    """How many sources are of a single row, where these are most of several: no categories; else 0."""
    single = int((sizes == 1).sum())
    return single if 2 * single > len(sizes) > 1 else 0


def drawn_numbers(names: np.ndarray, seed: int) -> Int64[np.ndarray, " s"]:
    """A number for each of some sources, in an order that the seed draws: ties between them go by it."""
    digests = (hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in names)
    ids = np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)
    return ranks(np.argsort(priorities(ids, seed), kind="stable"), len(names))
