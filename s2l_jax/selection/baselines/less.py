"""Examples whose gradients point where a few of the target task point."""

import numpy as np

from s2l_jax.data.order import priorities
from s2l_jax.selection.baselines.unit_rows import unit_rows
from s2l_jax.selection.inputs import SelectionInputs
from s2l_jax.selection.method import method
from s2l_jax.selection.ranking import Ranking, by_score

_ROWS_AT_ONCE = 65_536


@method("less", needs=["gradients", "query_gradients"])
def less(inputs: SelectionInputs, count: int, seed: int) -> Ranking:
    """The examples whose training would lower the loss of the target task most, to first order.

    LESS (Xia et al., arXiv 2402.04333, section 4): the influence of an example on a task is the sum over
    checkpoints of the learning rate times the cosine of the example's Adam update with the task's mean
    gradient, both of LoRA parameters and randomly projected; its score is the largest over the tasks.
    `features.gradients` makes the gradients.

    (The published code takes the mean of the cosines with a task's examples instead of the cosine with
    their mean.) An example without a gradient (its response was cut away) has influence 0.
    """
    tasks = np.zeros(len(inputs.query_gradients), np.int64)
    if inputs.query_tasks is not None:
        tasks = np.unique(inputs.query_tasks, return_inverse=True)[1]
    checkpoints = inputs.gradients.shape[1]
    weights = np.ones(checkpoints) if inputs.checkpoint_weights is None else inputs.checkpoint_weights
    influence = np.zeros((int(tasks.max()) + 1, len(inputs.gradients)))
    for number in range(checkpoints):
        means = np.stack(
            [inputs.query_gradients[tasks == task, number].mean(0) for task in range(len(influence))]
        )
        directions = unit_rows(means, f"query_gradients at checkpoint {number}, mean by task")
        for start in range(0, len(inputs.gradients), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            own = np.asarray(inputs.gradients[part, number], np.float32)
            lengths = np.maximum(np.linalg.norm(own, axis=1), np.finfo(np.float32).tiny)
            influence[:, part] += float(weights[number]) * (directions @ own.T) / lengths
    score = influence.max(0)
    order = by_score(score, priorities(inputs.ids, seed))
    return Ranking(order, scores=score, reasons=("influence on the task, highest first",))
