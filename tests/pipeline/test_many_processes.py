"""The small pipeline on two processes is that on one."""

from s2l_jax.pipeline import run_pipeline
from tests.support import pipeline_in_processes
from tests.support.alike import assert_alike
from tests.support.compilation import quickly_compiled
from tests.support.processes import run_together


def test_two_processes_of_two_devices_make_what_one_makes(tiny_checkpoint, tmp_path):
    """From a pool that the first alone can read to the report; k-means on all devices."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    run_together("pipeline_in_processes.py", 2, 2, tiny_checkpoint, together, "few")
    config = pipeline_in_processes.config_of("few", str(tiny_checkpoint))
    config.mesh.tensor = 2  # this process has eight devices
    with quickly_compiled():
        run_pipeline(config, alone)
    assert_alike(together, alone)
    assert (together / "report" / "index.html").exists()
