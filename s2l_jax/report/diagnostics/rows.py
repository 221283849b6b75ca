"""Rows that look wrong: never learnt, there several times, cut off, or of a source of their own."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, Int64

from s2l_jax.report.diagnostic import FAULT, WARNING, Measured, Verdict, diagnostic
from s2l_jax.report.findings import Findings
from s2l_jax.selection.suspects import suspects

NEVER_LEARNT = 40.0  # robust standard deviations above the late losses of the source
A_FEW = 0.0025  # share of rows that are as hard as that where none is mislabelled
_STILL = 0.5  # of the mean loss at the first checkpoint
FEW_ROWS = 2  # of a source
MANY_SOURCES = 0.2  # sources per row from which the field is no source
CUT = 0.02  # share of rows
DUPLICATES = 0.01  # share of rows


@diagnostic
def never_learnt(found: Findings) -> Iterator[Verdict | Measured]:
    """Rows whose late losses are far above those of their source."""
    losses = found.measured_losses
    if losses is None or losses.shape[1] < 2:
        return
    rows = unlearnt(losses, found.source_codes)
    yield Measured("rows that were never learnt", f"{len(rows):,}")
    if len(rows) > A_FEW * len(losses):
        yield Verdict(
            WARNING,
            "Rows that were never learnt are probably mislabelled",
            f"{len(rows):,} of {len(losses):,} rows ({100 * len(rows) / len(losses):.2g} %) kept a loss more "
            f"than {NEVER_LEARNT:.0f} robust deviations above the rest of their source.",
            "Look at them below; selection.drop_unlearnt leaves them out.",
            found.measured_rows[rows],
        )


def unlearnt(losses: Float[np.ndarray, "m t"], sources: Int[np.ndarray, " m"]) -> Int64[np.ndarray, " u"]:
    """Rows that were never learnt, the worst first."""
    scores = suspects(losses, sources)
    lowest = losses[:, -max(1, round(losses.shape[1] / 3)) :].min(axis=1)
    rows = np.flatnonzero((scores > NEVER_LEARNT) & (lowest > _STILL * losses[:, 0].mean()))
    return rows[np.argsort(-scores[rows], kind="stable")]


@diagnostic
def duplicates(found: Findings) -> Iterator[Verdict | Measured]:
    """Rows whose losses are equal at every checkpoint: their texts are, or nearly."""
    losses = found.measured_losses
    if losses is None or losses.shape[1] < 2 or np.median(np.ptp(losses, axis=1)) == 0:
        return
    tokens = found.rows.tokens if found.rows is not None else None
    rows = repeated(losses, None if tokens is None else tokens[found.measured_rows])
    share = len(rows) / len(losses)
    yield Measured(
        "rows that repeat another (losses equal to 0.001 nats at every checkpoint)", f"{len(rows):,}"
    )
    if share > DUPLICATES:
        yield Verdict(
            WARNING,
            "Rows are there several times",
            f"{len(rows):,} of {len(losses):,} rows ({100 * share:.2g} %) have an earlier row's losses "
            "at every checkpoint: the same text again, or nearly.",
            "Deduplicate the pool; copies take budget from other rows.",
            found.measured_rows[rows],
        )


def repeated(
    losses: Float[np.ndarray, "m t"], tokens: Int[np.ndarray, " m"] | None
) -> Int64[np.ndarray, " d"]:
    """Rows whose losses are those of an earlier row to 0.001 nats at every checkpoint."""
    keys = np.round(losses * 1000).astype(np.int64)
    if tokens is not None:
        keys = np.concatenate([keys, tokens[:, None]], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    return np.setdiff1d(np.arange(len(losses)), first)


@diagnostic
def truncated(found: Findings) -> Iterator[Verdict | Measured]:
    """Rows that were cut at tokenize.max_length, or lost their response to it."""
    pool = found.part("pool")
    count = pool.get("num_examples") or 0
    for key, what in (("num_cut", "cut off"), ("num_without_loss", "without a loss")):
        number = pool.get(key) or 0
        if not count:
            return
        yield Measured(f"rows {what} at tokenize.max_length", f"{number:,}")
        if number / count > CUT:
            yield Verdict(
                WARNING,
                f"Many rows are {what}",
                f"{number:,} of {count:,} rows ({100 * number / count:.2g} %), at tokenize.max_length.",
                "Raise tokenize.max_length, or leave such rows out of the pool.",
            )


@diagnostic
def source_names(found: Findings) -> Iterator[Verdict | Measured]:
    """Sources of a row or two, and a field of sources that is none."""
    sources = found.part("pool").get("sources") or {}
    if len(sources) < 2:
        return
    small = sorted(name for name, size in sources.items() if size <= FEW_ROWS)
    yield Measured(f"sources of at most {FEW_ROWS} rows", f"{len(small):,} of {len(sources):,}")
    if len(sources) > MANY_SOURCES * sum(sources.values()):
        yield Verdict(
            FAULT,
            "There are about as many sources as rows",
            f"{len(sources):,} sources for {sum(sources.values()):,} rows.",
            "Name another field as pool.fields.source, or set selection.stratify_by='none'.",
        )
    elif small:
        named = ", ".join(small[:5]) + (", ..." if len(small) > 5 else "")
        yield Verdict(
            WARNING,
            f"Some sources have at most {FEW_ROWS} rows",
            f"{len(small):,} of {len(sources):,} sources: {named}. A budget that is split over sources takes "
            "such a source whole.",
            "See that they are no slips of pool.fields.source; join them with a larger source.",
        )
