"""What trajectories and snapshots of another workdir took there, which selections by them are charged."""

from typing import Any

from etils import epath

from s2l_jax.config.inputs import PROXY_PARTS
from s2l_jax.records import stored_digests, stored_results

UNKNOWN = {"training_flops": None}  # of what was trained elsewhere, and left no record of its cost
ELSEWHERE = "seconds_elsewhere"  # in the results of a part: wall time of the parts it was made from


def cost_of_losses(path: epath.PathLike, digest: str) -> dict[str, Any]:
    """What measuring a trajectory store took: operations of the proxy's training and of its sweeps, seconds.

    Args:
      path: of the store; the record of the part that measured it is beside it.
      digest: of its content, which that part must have left.
    """
    for part in PROXY_PARTS:
        folder = epath.Path(path).parent / part
        if digest in stored_digests(folder).values():
            return _cost(folder, ("training_flops", "sweep_flops"))
    return UNKNOWN


def cost_of_snapshots(path: epath.PathLike) -> dict[str, Any]:
    """What training the proxy whose snapshots these are took; its seconds include the sweeps of then."""
    return _cost(epath.Path(path).parent, ("training_flops",))


def _cost(folder: epath.Path, counts: tuple[str, ...]) -> dict[str, Any]:
    stored = stored_results(folder)
    if stored is None:
        return UNKNOWN
    results = stored["results"]
    found = {name: results[name] for name in counts if name in results}
    return UNKNOWN | found | {ELSEWHERE: round(stored["seconds"] + results.get(ELSEWHERE, 0.0), 3)}
