"""What the subset kept: whether its budget reaches all clusters, and how its rows differ in length."""

from collections.abc import Iterator

import numpy as np

from s2l_jax.report.diagnostic import WARNING, Measured, Verdict, diagnostic
from s2l_jax.report.diagnostics.clusters import TINY
from s2l_jax.report.diagnostics.rows import CUT
from s2l_jax.report.findings import Findings

LEFT = 0.1  # share of the clusters that may go without a row
LONGER = 1.25  # times the pool's mean number of tokens
OFTEN = 20  # epochs over the same rows
FORGOT = 4.0  # times the training loss that a held-out loss may be


@diagnostic
def coverage(found: Findings) -> Iterator[Verdict | Measured]:
    """Clusters that nothing was taken from; those of a row or two may come last by intention."""
    for name in _first_of_each(found):
        if name not in found.clustered:
            continue
        selection = found.part("selections")[name]
        sizes, picked = np.asarray(selection["cluster_sizes"]), np.asarray(selection["picked_per_cluster"])
        empty = int(((picked == 0) & (sizes > TINY)).sum())
        what = f"clusters of more than {TINY} rows that {name} took nothing from"
        yield Measured(what, f"{empty:,} of {len(sizes):,}")
        if empty > LEFT * len(sizes):
            yield Verdict(
                WARNING,
                "The budget does not reach all clusters",
                f"{name} took {selection['size']:,} rows, none of {empty:,} of its {len(sizes):,} clusters.",
                "Raise selection.budget or lower clustering.num_clusters.",
            )


@diagnostic
def lengths(found: Findings) -> Iterator[Verdict | Measured]:
    """Tokens of the subset's rows against the pool's."""
    tokens = found.rows.tokens if found.rows is not None else None
    if tokens is None or not tokens.mean():
        return
    for name in _first_of_each(found):
        taken = found.taken.get(name)
        if taken is None or not taken.any() or taken.all():
            continue
        ratio = float(tokens[taken].mean() / tokens.mean())
        yield Measured(f"tokens of a row of {name}, against the pool's", f"{ratio:.2f} times")
        if not 1 / LONGER < ratio < LONGER:
            word = "longer" if ratio > 1 else "shorter"
            yield Verdict(
                WARNING,
                f"The rows of {name} are {word} than the pool's",
                f"They have {tokens[taken].mean():.0f} tokens in the mean, the pool's {tokens.mean():.0f} "
                f"({ratio:.2f} times): in as many steps its target trains on another number of tokens.",
                "Compare with a budget in tokens (budget_tokens) and with method longest.",
            )


@diagnostic
def not_trained_on(found: Findings) -> Iterator[Verdict | Measured]:
    """Chosen rows whose response was cut away, which the target leaves out: their budget is lost."""
    for name in _first_of_each(found):
        lost = found.part("targets").get(name, {}).get("num_without_loss")
        if not lost:
            continue
        size = found.part("selections")[name]["size"]
        yield Measured(f"rows of {name} without a response to train on", f"{lost:,} of {size:,}")
        if lost > CUT * size:
            yield Verdict(
                WARNING,
                f"Many rows of {name} cannot be trained on",
                f"{lost:,} of {size:,} have no response within tokenize.max_length. Their losses are 0, "
                "which some methods take for rows that are easy.",
                "Raise tokenize.max_length, or leave such rows out of the pool.",
            )


@diagnostic
def overfitting(found: Findings) -> Iterator[Verdict | Measured]:
    """Targets that saw few rows many times, and fit them far better than others."""
    for group in found.groups:
        trained = [run for run in group.runs if run.target.get("epochs") and run.heldout_loss]
        if not trained:
            continue
        epochs = float(np.mean([run.target["epochs"] for run in trained]))
        heldout = float(np.mean([run.heldout_loss or 0 for run in trained]))
        training = float(np.mean([run.target.get("final_loss") or np.nan for run in trained]))
        yield Measured(f"epochs of {group.full_label}'s target", f"{epochs:.1f}")
        if epochs > OFTEN and heldout > FORGOT * training:
            yield Verdict(
                WARNING,
                f"The target of {group.full_label} overfits its subset",
                f"It saw each row {epochs:.0f} times; its training loss ended at {training:.3f}, its "
                f"held-out loss is {heldout:.3f}.",
                "Train for fewer steps (target.match_by='epochs', target.train.epochs) or on more rows.",
            )


def _first_of_each(found: Findings) -> list[str]:
    """One run of each group: replicates differ in their seed alone."""
    return [group.runs[0].name for group in found.groups if group.runs[0].selection]
