"""Trajectories that carry no information: of a proxy that did not learn, all alike, or mere lengths."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from s2l_jax.report.diagnostic import FAULT, WARNING, Measured, Verdict, diagnostic
from s2l_jax.report.findings import Findings

FLAT = 0.02  # of the mean loss: less than this change of a row over training is none
ALIKE = 0.02  # the same between rows
BY_LENGTH = 0.8  # rank correlation from which losses tell little but how long rows are
AT_ONCE = 0.5  # share of rows learnt before the first checkpoint from which it came too late
_LEARNT = 0.05  # nats per token


@diagnostic
def proxy(found: Findings) -> Iterator[Verdict | Measured]:
    """Judges the trajectories as they are, before any clustering."""
    losses = found.measured_losses
    if losses is None or len(losses) < 2:
        return
    mean = float(losses.mean())
    if mean <= 0:
        return
    change = float(np.median(np.ptp(losses, axis=1))) / mean
    between = float(losses.mean(axis=1).std()) / mean
    yield Measured("change of the median row, of the mean loss", f"{100 * change:.3g} %")
    yield Measured("spread of rows, of the mean loss", f"{100 * between:.3g} %")
    if losses.shape[1] > 1 and change < FLAT:
        yield Verdict(
            FAULT,
            "The proxy did not learn",
            f"The median row's loss changed by {100 * change:.2g} % of the mean loss over all checkpoints: "
            "trajectories are flat, and clusters of them say nothing about how rows are learnt.",
            "Train the proxy longer or with a higher learning rate, and look at its learning curve.",
        )
    elif between < ALIKE:
        yield Verdict(
            FAULT,
            "All trajectories are alike",
            f"Rows' mean losses spread by {100 * between:.2g} % of their mean: nothing to cluster by.",
            "See that rows differ, and that losses are of responses (tokenize.prompt, pool.fields).",
        )
    yield from _length(found, losses)
    at_once = float((losses[:, 0] < _LEARNT).mean())
    yield Measured(f"rows learnt (below {_LEARNT} nats) at the first checkpoint", f"{100 * at_once:.3g} %")
    if losses.shape[1] > 1 and at_once > AT_ONCE:
        yield Verdict(
            WARNING,
            "Most rows were learnt before the first checkpoint",
            f"{100 * at_once:.0f} % of the rows had a loss below {_LEARNT} nats at step {found.steps[0]:,}.",
            "Measure earlier and more often at first (trajectories.every, .steps), or use a weaker proxy.",
        )


def _length(found: Findings, losses: Float[np.ndarray, "m t"]) -> Iterator[Verdict | Measured]:
    import scipy.stats

    rows = found.rows
    lengths = () if rows is None else (("responses", rows.response_tokens), ("rows", rows.tokens))
    by_length = []
    for what, tokens in lengths:
        if tokens is None or np.ptp(own := tokens[found.measured_rows]) == 0:
            continue
        correlation = float(scipy.stats.spearmanr(losses.mean(axis=1), own).statistic)
        yield Measured(f"rank correlation of mean losses and the length of {what}", f"{correlation:+.2f}")
        if abs(correlation) >= BY_LENGTH:
            by_length.append((what, correlation))
    for what, correlation in by_length[:1]:
        yield Verdict(
            WARNING,
            f"Losses mostly follow the length of {what}",
            f"The rank correlation of a row's mean loss with the tokens of {what} is {correlation:+.2f}: "
            "clusters will be of lengths.",
            "Compare with a selection by length alone (method longest), and with a run of another distance.",
        )
