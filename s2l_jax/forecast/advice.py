"""What to change where a program needs more memory than a device has."""

from collections.abc import Mapping

from ml_collections import ConfigDict


def advice(config: ConfigDict, what: str, held: Mapping[str, float], available: float) -> list[str]:
    """Changes that help, the likeliest first.

    Args:
      what: "proxy", "target" (their training), "sweep", "selection" or "evaluation".
      held: bytes of a device by what they are, as `Outcome` has them.
      available: bytes that it has.
    """
    state = held.get("parameters", 0.0) + held.get("optimiser state", 0.0)
    found = []
    if what in ("proxy", "target"):
        train = config[what].train
        if held.get("temporaries", 0.0) + state > available / 2:
            if train.remat != "full":
                found.append(f"--config.{what}.train.remat=full (activations are computed again)")
            if train.accumulation < train.batch_size:
                found.append(
                    f"--config.{what}.train.accumulation={2 * train.accumulation} (smaller microbatches)"
                )
        if state > available / 4:
            found.insert(0, "a larger mesh.fsdp, over which parameters and optimiser state are spread")
            if what == "target" and not config.target.lora.rank:
                found.append("--config.target.lora.rank=16 (adapters alone are trained)")
    if what == "sweep":
        tokens = config.trajectories.batch_tokens or 16_384
        found.append(f"--config.trajectories.batch_tokens={tokens // 2}")
    if what == "evaluation":
        found.append(f"--config.evaluation.batch_size={max(1, config.evaluation.batch_size // 2)}")
        if config.evaluation.dtype == "float32":
            found.append("--config.evaluation.dtype=bfloat16")
        found.append("a larger mesh.fsdp or mesh.tensor, over which parameters are spread")
    if any(name.startswith("pinned") for name in held):
        found.append(
            f"--config.trajectories.pinned_mb={config.trajectories.pinned_mb // 4} (rows are streamed)"
        )
    return [*found, "more devices"]
