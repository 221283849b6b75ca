"""Whose weights hidden states are of: those a model came with, the proxy's at a sweep, or a folder's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etils import epath
from ml_collections import ConfigDict

from s2l_jax.config.fingerprint import deciding, untrained
from s2l_jax.errors import InputError
from s2l_jax.trajectories.cadence import Cadence, find_checkpoint, is_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from s2l_jax.models.parameters import Params
    from s2l_jax.training.run import Run

UNTUNED = "untuned"


def settings_of(config: ConfigDict, checkpoint: str) -> dict[str, Any]:
    """The settings of the config that decide the weights."""
    model = config.selection.states.model
    if is_checkpoint(checkpoint):
        return deciding(config, ("proxy", "seed"))
    at_random = checkpoint == UNTUNED and config[model].init == "random"
    return deciding(config, (*untrained(model), *(("seed",) if at_random else ())))


def label_of(checkpoint: str) -> str:
    """What tells the weights from others in the name of a folder."""
    import hashlib

    if checkpoint == UNTUNED:
        return ""
    if is_checkpoint(checkpoint):
        return f"-{'step' * checkpoint.isdecimal()}{checkpoint}"
    return f"-{hashlib.sha256(checkpoint.encode()).hexdigest()[:8]}"


def check(run: Run, checkpoint: str, where: str) -> None:
    """Find now what is wrong with a checkpoint, as far as that is known before the proxy's steps are.

    Raises:
      InputError: begins with `where`; a checkpoint that the config keeps none of, no such folder, or another
        model in it.
    """
    from s2l_jax.models import hf
    from s2l_jax.models.weight_files import index_of

    config, asked = run.config, f"{where}.checkpoint={checkpoint!r}"
    if checkpoint == UNTUNED:
        return
    if is_checkpoint(checkpoint):
        if config.selection.states.model != "proxy":
            raise InputError(
                f"{asked}: the proxy's checkpoints are kept; set selection.states.model='proxy', or "
                "name a folder with tuned weights of the target, such as target/full/hf of a workdir."
            )
        if config.trajectories.path:
            raise InputError(
                f"{asked}: trajectories.path={config.trajectories.path!r} has losses, and no parameters of "
                "the proxy are kept: leave it out, or name a folder with tuned weights."
            )
        if not (config.proxy.save_params or config.trajectories.snapshots):
            raise InputError(
                f"{asked}: no parameters of the proxy are kept; set proxy.save_params=True, or "
                "trajectories.snapshots to where another workdir has them."
            )
        return
    folder = epath.Path(checkpoint)
    if not folder.is_dir():
        raise InputError(
            f"{asked}: neither untuned, first, last, a step of the proxy, nor a folder with weights."
        )
    index_of(folder)
    if hf.load_config(folder) != run.model(config.selection.states.model).config:
        raise InputError(
            f"{asked} is no {config.selection.states.model}: its config.json is of another model."
        )


def check_steps(checkpoint: str, steps: Sequence[int] | None) -> None:
    """Raise an InputError for a checkpoint that is not among the steps at which the proxy is swept."""
    if is_checkpoint(checkpoint) and steps is not None:
        find_checkpoint(checkpoint, steps)


def content_of(run: Run, checkpoint: str) -> dict[str, Any]:
    """The content of the files of weights, as a setting of what is made with them."""
    from s2l_jax.models.weight_files import identity
    from s2l_jax.trajectories.snapshots import read_mark

    content = run.model_content(run.config.selection.states.model)
    if checkpoint == UNTUNED:
        return content
    folder = _folder(run, checkpoint)
    digests = read_mark(folder)["sha256"] if is_checkpoint(checkpoint) else identity(folder)
    return content | {"hidden_states.weights": digests}


def load(run: Run, checkpoint: str, dtype: Any) -> Params:
    """The weights on the mesh, in a dtype."""
    import jax

    from s2l_jax.models.parameters import model_params
    from s2l_jax.parallel.placement import load_model
    from s2l_jax.trajectories.snapshots import load_snapshot

    if checkpoint == UNTUNED:
        return run.model(run.config.selection.states.model).initial_params(dtype)
    folder = _folder(run, checkpoint)
    if not is_checkpoint(checkpoint):
        return model_params(load_model(str(folder), run.mesh, dtype))
    return jax.tree.map(lambda p: p.astype(dtype), model_params(load_snapshot(folder, run.mesh)))


def _folder(run: Run, checkpoint: str) -> epath.Path:
    from s2l_jax.trajectories.snapshots import find_snapshots

    if not is_checkpoint(checkpoint):
        return epath.Path(checkpoint)
    asked = run.config.trajectories
    found = find_snapshots(asked.snapshots or run.workdir / "proxy" / "snapshots")
    swept = Cadence.of(asked).among(found) if asked.snapshots else list(found)
    return found[swept[find_checkpoint(checkpoint, swept)]]
