"""What would stop a run later, found once the pool's size is known: before anything is trained."""

from s2l_jax.console import say
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.errors import InputError
from s2l_jax.pipeline.plan import Plan, sweeps_saved
from s2l_jax.pipeline.stages import cluster_counts, proxy, saved_parameters, selection
from s2l_jax.pipeline.stages import trajectories as columns
from s2l_jax.pipeline.stages.cluster_counts import too_many_clusters
from s2l_jax.selection.export import IN_PARQUET, not_in_parquet
from s2l_jax.training.run import Run, num_steps, trainable
from s2l_jax.trajectories.training_losses import check_epochs, epoch_ends


def check_known(run: Run, plan: Plan, pools: dict[str, PreparedPool]) -> None:
    """Find now what in the settings does not fit the pool or the cadence.

    Raises:
      InputError: a batch larger than the pool, more clusters than rows, a cadence that does not fit the run,
        columns or sources that a selection cannot work with, an export that cannot hold what rows have.
    """
    config = run.config
    if (plan.has("target") or plan.has("analysis")) and "target" in pools:
        _check_batch(config.target.train.batch_size, len(trainable(pools["target"])), "target")
    steps, rows = {}, {}
    for inputs in (*plan.to_train, *plan.swept):
        if (own := pools.get(inputs.model)) is None:
            continue
        made_by = run.inputs_of(inputs)
        if inputs in plan.trained:
            _check_batch(made_by.config.proxy.train.batch_size, len(trainable(own)), inputs.model)
        tracked = columns.tracked_of(made_by, own)
        if tracked.settings:
            rows[inputs] = tracked.rows
            if len(rows) == 1:
                say(f"tracking a slice of {len(tracked.rows)} of {len(own)} pool rows")
        _check_cluster_counts(made_by, len(tracked.rows))
        steps[inputs] = _steps(made_by, own)
    if "selection" in plan.stages and pools:
        selection.check_known(run, selection.contexts_of(run, pools, {}, rows), steps)
        problem = pools["rows"].manifest["not_in_parquet"]
        if config.selection.runs and problem and set(config.selection.exports) & set(IN_PARQUET):
            raise not_in_parquet(problem)


def _check_batch(batch_size: int, size: int, model: str) -> None:
    if batch_size > size:
        raise InputError(
            f"{model}.train.batch_size={batch_size} is above the {size} rows of the pool that can be trained "
            f"on: each step would see rows several times. Use at most {size}."
        )


def _check_cluster_counts(run: Run, size: int) -> None:
    if run.config.clustering.num_clusters > size:
        raise too_many_clusters("num_clusters", run.config.clustering.num_clusters, size)
    cluster_counts.check_counts(run, size)


def _steps(run: Run, pool: PreparedPool) -> list[int]:
    """The steps of the trajectories' columns; clusters that settle may end the run before the last."""
    if sweeps_saved(run.config):
        return saved_parameters.saved_steps(run)
    train, size = run.config.proxy.train, len(trainable(pool))
    steps = num_steps(train, size)
    if run.config.trajectories.source == "train":
        check_epochs(train.batch_size, steps, size)
        return epoch_ends(train.batch_size, steps, size)
    return proxy.planned_sweeps(run, steps)
