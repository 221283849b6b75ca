"""What each library makes below a workdir, written and read again; for workdirs of odd names."""

import jax
import jax.numpy as jnp
import numpy as np

from s2l_jax import artifacts
from s2l_jax.data.pool import PoolRow
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, prepare
from s2l_jax.pipeline.owner import owning
from s2l_jax.training.checkpoints import Checkpoints
from s2l_jax.training.step import TrainState
from s2l_jax.trajectories.store import TrajectoryStore

_ROWS = [PoolRow(n, f"say {n}", "", "x", "", {"number": n}, f"row {n}") for n in range(5)]


def check_parts(workdir):
    """A checkpoint, trajectories, a pool, a file and the owner's mark, each found again as it was written."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state = jax.device_put(TrainState(jnp.int32(3), {"a": jnp.arange(8.0)}, {"m": jnp.arange(4.0)}), sharding)
    with owning(workdir):
        with Checkpoints(workdir / "checkpoints", 2) as checkpoints:
            checkpoints.losses = [2.0, 1.5, 1.0]
            checkpoints.save(3, state)
        with Checkpoints(workdir / "checkpoints", 2) as checkpoints:
            restored = checkpoints.restore(state)
        assert restored is not None
        assert restored.params["a"].tolist() == list(range(8))
        ids = np.arange(5, dtype=np.uint64)
        TrajectoryStore.create(workdir / "t.zarr", ids, {}).append(1, np.ones(5, np.float32))
        assert TrajectoryStore(workdir / "t.zarr").read().tolist() == [[1.0]] * 5
        prepare(workdir / "pool", lambda: _ROWS, None, TokenizeSettings("plain", "separate", 40))
        assert list(PreparedPool(workdir / "pool").originals([3])) == [{"number": 3}]
        artifacts.write_json(workdir / "part" / "stage.json", 1)
    assert [file.name for file in artifacts.files_in(workdir)] == ["checkpoints", "part", "pool", "t.zarr"]
