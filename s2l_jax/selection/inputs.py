"""What selection methods may need, checked once for all of them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int, UInt64

from s2l_jax.errors import InputError

_ROWS_AT_ONCE = 65_536


@dataclasses.dataclass(frozen=True)
class SelectionInputs:
    """What is known of N examples; a method names the fields it cannot do without.

    Attributes:
      trajectories: losses at the checkpoints, in training order.
      ids: stable example ids; row numbers where they are left out.
      sources: the name or number of each example's data source.
      hidden_states: one vector per example.
      num_tokens: length of each example, prompt and response.
      response_tokens: length of each example's response.
      gradients: of each example at c checkpoints, projected; see `selection.gradients`.
      query_states: a vector for each of q examples of the task that the subset is for.
      query_gradients: of those examples.
      query_tasks: which task each of those examples is of; all of one where it is left out.
      checkpoint_weights: of the c checkpoints of `gradients`: the learning rates; 1 where left out.
      embed: gives hidden states by a model that is trained on some rows, for methods that go in rounds;
        it stands for `hidden_states`.
    """

    trajectories: Float[np.ndarray, "n t"] | None = None
    ids: UInt64[np.ndarray, " n"] | None = None
    sources: Sequence[str] | Int[np.ndarray, " n"] | None = None
    hidden_states: Float[np.ndarray, "n d"] | None = None
    num_tokens: Int[np.ndarray, " n"] | None = None
    response_tokens: Int[np.ndarray, " n"] | None = None
    gradients: Float[np.ndarray, "n c p"] | None = None
    query_states: Float[np.ndarray, "q d"] | None = None
    query_gradients: Float[np.ndarray, "q c p"] | None = None
    query_tasks: Sequence[str] | Int[np.ndarray, " q"] | None = None
    checkpoint_weights: Float[np.ndarray, " c"] | None = None
    embed: Callable[[Int[np.ndarray, " b"]], Float[np.ndarray, "n d"]] | None = None

    @property
    def num_examples(self) -> int:
        """N, from the first field of the examples that is given.

        Raises:
          InputError: no such field is given.
        """
        for name in _OF_EXAMPLES:
            value = getattr(self, name)
            if value is not None:
                return len(value)
        raise InputError(
            "SelectionInputs is empty: give trajectories, or at least ids or sources, so that the "
            "number of examples is known"
        )

    def checked(self) -> Self:
        """The same fields as NumPy arrays, ids filled in.

        Raises:
          InputError: fields of different lengths or wrong rank, NaN or infinite values, ids that
            are not whole numbers of at least 0 or come twice, sources that are neither all text nor
            all integers, query fields whose columns are not the examples'.
        """
        size = self.num_examples
        fields: dict[str, Any] = {"ids": np.arange(size, dtype=np.uint64)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if field.name in _OF_EXAMPLES and len(value) != size:
                raise InputError(
                    f"{field.name} has {len(value)} entries for {size} examples; every field "
                    f"needs one entry per example, in the same order"
                )
            check = _CHECKS.get(field.name, lambda name, value: value)
            fields[field.name] = check(field.name, value)
        if size == 0:
            raise InputError("there are no examples to select from")
        for name, query in (("hidden_states", "query_states"), ("gradients", "query_gradients")):
            if name in fields and query in fields and fields[name].shape[1:] != fields[query].shape[1:]:
                raise InputError(
                    f"{name} have shape {fields[name].shape} and {query} {fields[query].shape}: all but the "
                    f"first number must be the same, as they must come from the same model and settings"
                )
        for query in ("query_states", "query_gradients"):
            if query in fields and not len(fields[query]):
                raise InputError(f"{query} has no rows: give at least one example of the task")
            if query in fields and len(fields.get("query_tasks", fields[query])) != len(fields[query]):
                raise InputError(
                    f"query_tasks has {len(fields['query_tasks'])} entries for {len(fields[query])} {query}"
                )
        weights = fields.get("checkpoint_weights")
        if weights is not None and "gradients" in fields and len(weights) != fields["gradients"].shape[1]:
            raise InputError(
                f"checkpoint_weights has {len(weights)} entries for gradients at "
                f"{fields['gradients'].shape[1]} checkpoints"
            )
        return type(self)(**fields)


def _check_matrix(name: str, value: Any) -> np.ndarray:
    return _check_numbers(name, value, 2, "[N, columns]")


def _check_gradients(name: str, value: Any) -> np.ndarray:
    return _check_numbers(name, value, 3, "[N, checkpoints, columns]")


def _check_vector(name: str, value: Any) -> np.ndarray:
    return _check_numbers(name, value, 1, "[N]")


def _check_numbers(name: str, value: Any, rank: int, shape: str) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != rank or 0 in array.shape[1:] or array.dtype.kind not in "fiu":
        raise InputError(f"{name} must be a number array {shape}, got {array.dtype} of shape {array.shape}")
    count, first = 0, -1
    for start in range(0, len(array), _ROWS_AT_ONCE):
        block = array[start : start + _ROWS_AT_ONCE]
        bad = np.flatnonzero(~np.isfinite(block.reshape(len(block), -1)).all(1))
        if len(bad) and not count:
            first = start + int(bad[0])
        count += len(bad)
    if count:
        way_out = ", or set the rows of examples without a loss to 0" if name == "trajectories" else ""
        raise InputError(
            f"{name}: {count} of {len(array)} rows have NaN or infinite values, the first is row "
            f"{first}; drop these examples{way_out}"
        )
    return array


def _check_integers(name: str, value: Any) -> np.ndarray:
    numbers = np.asarray(value)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        hint = "; leave ids out to go by row numbers" if name == "ids" else ""
        raise InputError(
            f"{name} must be whole numbers [N], got {numbers.dtype} of shape {numbers.shape}{hint}"
        )
    if numbers.dtype.kind == "i" and (numbers < 0).any():
        row = int(np.flatnonzero(numbers < 0)[0])
        raise InputError(f"{name} must be at least 0, got {numbers[row]} at row {row}")
    return numbers.astype(np.uint64 if name == "ids" else np.int64)


def _check_ids(name: str, value: Any) -> np.ndarray:
    ids = _check_integers(name, value)
    ordered = np.sort(ids)
    if (repeated := ordered[1:][ordered[1:] == ordered[:-1]]).size:
        raise InputError(
            f"ids must be distinct, and {len(np.unique(repeated))} come more than once; the first: "
            f"{', '.join(map(str, np.unique(repeated)[:5]))}"
        )
    return ids


def _check_sources(name: str, value: Any) -> np.ndarray:
    sources = np.asarray(value)
    if sources.dtype == object and all(isinstance(source, str) for source in sources):
        sources = sources.astype(str)
    if sources.ndim != 1 or sources.dtype.kind not in "Uiu":
        odd = ""
        if sources.ndim == 1:
            row = next((n for n, each in enumerate(sources) if not isinstance(each, str)), 0)
            odd = f"; row {row} has {sources[row]!r}"
        raise InputError(
            f"{name} must be one name or number per example, all of one kind, got "
            f"{sources.dtype} of shape {sources.shape}{odd}"
        )
    return sources


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "trajectories": _check_matrix,
    "ids": _check_ids,
    "sources": _check_sources,
    "hidden_states": _check_matrix,
    "num_tokens": _check_integers,
    "response_tokens": _check_integers,
    "gradients": _check_gradients,
    "query_states": _check_matrix,
    "query_gradients": _check_gradients,
    "query_tasks": _check_sources,
    "checkpoint_weights": _check_vector,
}
_OF_EXAMPLES = (
    "trajectories", "ids", "sources", "hidden_states", "num_tokens", "response_tokens", "gradients",
)  # fmt: skip
