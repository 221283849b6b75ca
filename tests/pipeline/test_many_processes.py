"""The small pipeline on two processes is that on one; tests/campaign has later stages, methods and kills."""

import pytest

from s2l_jax.clustering import rows
from s2l_jax.pipeline import run_pipeline
from tests.support.alike import assert_alike
from tests.support.pipeline_in_processes import config_of
from tests.support.processes import run_together

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]


def test_two_processes_of_two_devices_make_what_one_of_eight_makes(tiny_checkpoint, tmp_path, monkeypatch):
    """From a pool that the first alone can read to a selection and the report; k-means on all devices."""
    monkeypatch.setattr(rows, "_ROWS_A_DEVICE", 1)
    config = config_of("least", str(tiny_checkpoint))
    config.mesh.update(data=4, fsdp=2)
    run_pipeline(config, tmp_path / "one")
    run_together("pipeline_in_processes.py", 2, 2, tiny_checkpoint, tmp_path / "two", "least")
    assert_alike(tmp_path / "two", tmp_path / "one")
    assert (tmp_path / "two" / "report" / "index.html").exists()
