"""The small pipeline on two processes is that on one."""

from tests.support.alike import assert_alike
from tests.support.processes import run_together


def test_two_processes_of_two_devices_make_what_one_of_four_makes(tiny_checkpoint, tmp_path):
    """From a pool that the first alone can read to the report; k-means on all devices."""
    for count, devices in ((2, 2), (1, 4)):
        workdir = tmp_path / str(count)
        run_together("pipeline_in_processes.py", count, devices, tiny_checkpoint, workdir, "few", count=count)
    assert_alike(tmp_path / "2", tmp_path / "1")
    assert (tmp_path / "2" / "report" / "index.html").exists()
