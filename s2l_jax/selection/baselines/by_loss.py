"""Baselines that rank examples by what their losses say, from the trajectories that S2L clusters."""

from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from jaxtyping import Float, Int

from s2l_jax.data.order import priorities
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.known import Known
from s2l_jax.selection.method import method
from s2l_jax.selection.ranking import Ranking, by_score, ranks, round_robin
from s2l_jax.trajectories.cadence import find_checkpoint


def _check(known: Known, *, checkpoint: str) -> None:
    if known.steps is not None:
        find_checkpoint(checkpoint, known.steps)


def _check_two(known: Known, **options: Any) -> None:
    known.check_columns(2, "this method")


def _check_region(known: Known, *, region: str) -> None:
    known.check_columns(_columns_of(region), f"region={region!r}")


def _check_early(known: Known, *, early: int) -> None:
    known.check_columns(early, f"early={early}")


@method("least_confidence", needs=["trajectories"], check=_check)
def least_confidence(inputs: SelectionInputs, count: int, seed: int, *, checkpoint: str = "last") -> Ranking:
    """The examples that the trained model is least sure of: the highest loss at the last checkpoint.

    Least confidence sampling (Bhatt et al., arXiv 2401.06692; a baseline of arXiv 2403.07384, section
    5, which has it at an early and at the last checkpoint): the mean log-probability of the response's
    tokens stands for the confidence.

    Options:
      checkpoint: whose losses: "first", "last", or a step that was swept after.
    """
    return _highest(inputs, seed, _at(inputs, checkpoint), f"loss at the {_named(checkpoint)}, highest first")


@method("middle_perplexity", needs=["trajectories"], check=_check)
def middle_perplexity(inputs: SelectionInputs, count: int, seed: int, *, checkpoint: str = "last") -> Ranking:
    """The middle of the pool by perplexity: nearest to the median rank at the last checkpoint.

    Marion et al. (arXiv 2309.04564) keep the middle of the perplexity distribution; a baseline of
    arXiv 2403.07384, section 5. Perplexity is exp(loss), so ranks of losses are ranks of perplexities.
    The score is minus the distance of the row's rank, from 0, to (N - 1) / 2.

    Options:
      checkpoint: whose losses: "first", "last", or a step that was swept after.
    """
    losses = _at(inputs, checkpoint)
    rank = ranks(np.lexsort((priorities(inputs.ids, seed), losses)), len(losses))
    distance = np.abs(rank - (len(losses) - 1) / 2)
    return _highest(inputs, seed, -distance, "rank of its perplexity, the middle first")


@method("high_learnability", needs=["trajectories"], check=_check_two)
def high_learnability(inputs: SelectionInputs, count: int, seed: int) -> Ranking:
    """The examples whose loss falls most from the first checkpoint to the last.

    Zhou et al. (arXiv 2310.10688); a baseline of arXiv 2403.07384, section 5. A trajectory with a
    column before training (`trajectories.step_zero`) gives the fall over all of training.
    """
    losses = _losses(inputs, least=2)
    fall = losses[:, 0].astype(np.float64) - losses[:, -1]
    return _highest(inputs, seed, fall, "fall of its loss, highest first")


@method("forgetting", needs=["trajectories"], check=_check_two)
def forgetting(
    inputs: SelectionInputs, count: int, seed: int, *, margin: Annotated[float, Ge(0)] = 0.0
) -> Ranking:
    """The examples that are forgotten most often.

    Toneva et al. (arXiv 1812.05159) count how often an example turns from right to wrong. A response
    is not right or wrong but has a loss, so an event is here a rise of the loss by more than `margin`
    nats from one checkpoint to the next. Of examples with as many events, the one whose rises add up
    to more is first.

    Options:
      margin: nats; a rise of the loss above this counts as forgetting.
    """
    losses = _losses(inputs, least=2)
    events, risen = np.zeros(len(losses), np.int64), np.zeros(len(losses))
    for column in range(1, losses.shape[1]):
        rise = losses[:, column].astype(np.float64) - losses[:, column - 1]
        events += rise > margin
        risen += np.where(rise > margin, rise, 0.0)
    order = np.lexsort((priorities(inputs.ids, seed), -risen, -events))
    return Ranking(order, scores=events, reasons=("times it was forgotten, most first",))


@method("cartography", needs=["trajectories"], check=_check_region)
def cartography(
    inputs: SelectionInputs,
    count: int,
    seed: int,
    *,
    region: Literal["ambiguous", "easy", "hard"] = "ambiguous",
) -> Ranking:
    """A region of the dataset map (Swayamdipta et al., arXiv 2009.10795, section 2).

    Confidence is the mean over checkpoints of the probability of the right answer, variability its
    standard deviation; the probability is here exp(-loss), the geometric mean of the response tokens'.

    Options:
      region: which part of the dataset map: "ambiguous" (highest variability), "easy" (highest
        confidence) or "hard" (lowest).
    """
    losses = _losses(inputs, least=_columns_of(region))
    mean = np.zeros(len(losses))
    for column in losses.T:
        mean += np.exp(-column.astype(np.float64)) / losses.shape[1]
    if region == "easy":
        return _highest(inputs, seed, mean, "confidence, highest first")
    if region == "hard":
        return _highest(inputs, seed, -mean, "confidence, lowest first")
    variance = np.zeros(len(losses))
    for column in losses.T:
        variance += (np.exp(-column.astype(np.float64)) - mean) ** 2 / losses.shape[1]
    return _highest(inputs, seed, np.sqrt(variance), "variability, highest first")


@method("early_loss", needs=["trajectories"], check=_check_early)
def early_loss(
    inputs: SelectionInputs, count: int, seed: int, *, early: Annotated[int, Ge(1)] = 1
) -> Ranking:
    """The examples that are hardest early in training, in the manner of EL2N.

    Paul et al. (arXiv 2107.07075) score an example by the norm of its error early in training, mean
    over a few models. Here the score is the mean over the first checkpoints of 1 - exp(-loss), the
    error of the response's probability.

    Options:
      early: how many of the first checkpoints count as early.
    """
    losses = _losses(inputs, least=early)
    error = np.zeros(len(losses))
    for column in losses[:, :early].T:
        error += -np.expm1(-column.astype(np.float64)) / early
    return _highest(inputs, seed, error, "error early in training, highest first")


@method("confidence_curriculum", needs=["trajectories"])
def confidence_curriculum(inputs: SelectionInputs, count: int, seed: int) -> Ranking:
    """Examples of falling confidence as training goes on: from easy ones early to hard ones late.

    A baseline of arXiv 2403.07384, section 5, after Varshney et al. (arXiv 2205.09602): examples of
    decreasing confidence are chosen during training. How many when is not said; here each of the T
    checkpoints is a stage. Ranked by the loss at checkpoint t, the pool is cut into T bands of equal
    size, and stage t takes from band t, the first being the most confident. An example in the band of
    several stages belongs to the first of them. Stages share the budget by Algorithm 1, drawing at
    random within; examples that are in no stage's band come last. The label of a row is its stage.
    """
    losses = _losses(inputs)
    size, stages = losses.shape
    priority = priorities(inputs.ids, seed)
    stage = np.full(size, stages, np.int32)
    bounds = [size * t // stages for t in range(stages + 1)]
    for t in range(stages):
        ranked = np.lexsort((priority, losses[:, t]))
        band = ranked[bounds[t] : bounds[t + 1]]
        stage[band[stage[band] == stages]] = t
    claimed, rest = np.flatnonzero(stage < stages), np.flatnonzero(stage == stages)
    turns = np.unique(stage[claimed], return_inverse=True)[1]  # stages that have rows, without gaps
    order = claimed[round_robin(turns, priority[claimed])]
    order = np.concatenate([order, rest[np.argsort(priority[rest], kind="stable")]])
    return Ranking(
        order,
        labels=stage,
        centroids=_means(losses, stage, stages + 1),
        reasons=("its stage's share", "in no stage's band of confidence"),
        reason_of=(stage == stages).astype(np.int8),
    )


def _columns_of(region: str) -> int:
    return 2 if region == "ambiguous" else 1


def _losses(inputs: SelectionInputs, *, least: int = 1) -> Float[np.ndarray, "n t"]:
    Known(inputs.num_examples, 0, steps=inputs.steps).check_columns(least, "this method")
    return inputs.trajectories


def _at(inputs: SelectionInputs, checkpoint: str) -> Float[np.ndarray, " n"]:
    return _losses(inputs)[:, find_checkpoint(checkpoint, inputs.steps or [])]


def _named(checkpoint: str) -> str:
    return f"checkpoint of step {checkpoint}" if checkpoint.isdecimal() else f"{checkpoint} checkpoint"


def _highest(inputs: SelectionInputs, seed: int, score: Float[np.ndarray, " n"], reason: str) -> Ranking:
    return Ranking(by_score(score, priorities(inputs.ids, seed)), scores=score, reasons=(reason,))


def _means(
    rows: Float[np.ndarray, "n t"], groups: Int[np.ndarray, " n"], count: int
) -> Float[np.ndarray, "k t"]:
    sizes = np.maximum(np.bincount(groups, minlength=count), 1)
    sums = [np.bincount(groups, weights=column, minlength=count) for column in rows.T]
    return (np.stack(sums, axis=1) / sizes[:, None]).astype(np.float32)
