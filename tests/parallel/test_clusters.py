"""Which group a process joins, from the surroundings that launchers make."""

import pytest
from jax._src import clusters

from s2l_jax.errors import InputError
from s2l_jax.parallel.clusters import find_group

EXPLICIT = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:8476", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
ALLOCATION = {
    "SLURM_JOB_ID": "12", "SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "n[04-07],m1", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}  # fmt: skip
STEP = ALLOCATION | {
    "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
}  # fmt: skip
MPIRUN = {
    "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}  # fmt: skip
MPIRUN_4 = MPIRUN | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """The tests may themselves be started by one."""
    for name in EXPLICIT | STEP | MPIRUN_4:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def group_with(monkeypatch):
    def find(env, mode="auto"):
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return find_group(mode)

    return find


def test_an_explicit_group(group_with):
    group = group_with(EXPLICIT)
    assert (group.address, group.count, group.index, group.local_device_ids) == ("10.0.0.1:8476", 4, 3, None)


def test_an_explicit_group_of_a_steps_tasks_has_their_gpus(group_with):
    own = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    assert group_with(STEP | own).local_device_ids == (1,)


def test_a_slurm_step_has_the_tasks_of_the_step(group_with):
    """Not those of the allocation; tasks that share a node have a GPU each."""
    group = group_with(STEP)
    assert (group.found_by, group.count, group.index, group.local_device_ids) == (
        "Slurm step 12.3",
        2,
        1,
        (1,),
    )
    assert group.address.startswith("n04:")


@pytest.mark.parametrize(("seen", "expected"), [("0", None), ("GPU-8f2a", None), ("0,1", (1,)), ("", (1,))])
def test_a_task_that_sees_its_own_gpu_alone_takes_what_it_sees(group_with, seen, expected):
    """With --gpus-per-task=1 that is number 0 in each task."""
    assert group_with(STEP | {"CUDA_VISIBLE_DEVICES": seen}).local_device_ids == expected


def test_a_slurm_task_that_has_a_node_to_itself_has_all_of_its_gpus(group_with):
    group = group_with(STEP | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0"})
    assert group.local_device_ids is None


@pytest.mark.parametrize(
    "env",
    [
        ALLOCATION,  # a batch script without srun
        {"SLURM_JOB_ID": "12", "SLURM_NTASKS": "4"},  # a shell on the node
        {"SLURM_NTASKS": ""},
    ],
)
def test_a_single_process_in_an_allocation_of_several_runs_alone_and_says_so(group_with, capsys, env):
    assert group_with(env) is None
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"SLURM_NTASKS={env['SLURM_NTASKS']!r}" in line
    assert "--distributed=off" in line


@pytest.mark.parametrize(
    "env", [{}, {"SLURM_NTASKS": "1"}, STEP | {"SLURM_STEP_NUM_TASKS": "1"}, {"OMPI_COMM_WORLD_SIZE": "1"}]
)
def test_one_process_that_is_meant_to_be_alone_says_nothing(group_with, capsys, env):
    assert group_with(env) is None
    assert capsys.readouterr().err == ""


def test_open_mpi_before_the_slurm_step_that_its_daemons_are(group_with):
    group = group_with(STEP | MPIRUN_4)
    assert (group.found_by, group.count, group.index, group.local_device_ids) == ("Open MPI", 8, 5, (1,))
    assert group.address.startswith("10.96.0.1:")


def test_open_mpi_5_needs_an_address_and_takes_the_rest_from_it(group_with):
    with pytest.raises(InputError, match="JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        group_with(MPIRUN)
    group = group_with(MPIRUN | {"JAX_COORDINATOR_ADDRESS": "head:1234"})
    assert (group.address, group.count, group.index) == ("head:1234", 8, 5)


def tpu_hosts(monkeypatch, count, kind=clusters.GkeTpuCluster):
    """A TPU machine as JAX would find it; everything below these is JAX's."""
    hosts = [f"host-{n}" for n in range(count)]
    monkeypatch.setattr(kind, "is_env_present", lambda: True)
    monkeypatch.setattr(kind, "_get_worker_list_in_slice", lambda: hosts)
    monkeypatch.setattr(kind, "_get_process_id_in_slice", lambda: 1)
    monkeypatch.setattr(clusters.cloud_tpu_cluster, "get_tpu_env_value", lambda name: None)
    monkeypatch.setattr(clusters.GkeTpuCluster, "wait_for_coordinator", lambda *_: None)
    monkeypatch.setattr(clusters.GceTpuCluster, "wait_for_coordinator", lambda *_: None)


@pytest.mark.parametrize("kind", [clusters.GkeTpuCluster, clusters.GceTpuCluster])
def test_the_hosts_of_a_tpu_slice(group_with, monkeypatch, kind):
    tpu_hosts(monkeypatch, 4, kind)
    group = group_with({})
    assert (group.found_by, group.count, group.index) == ("a TPU slice", 4, 1)
    assert group.address == "host-0:8482"


def test_several_tpu_slices(group_with, monkeypatch):
    tpu_hosts(monkeypatch, 4)
    multislice = {
        "MEGASCALE_COORDINATOR_ADDRESS": "first:80", "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1",
    }  # fmt: skip
    monkeypatch.setattr(clusters.cloud_tpu_cluster, "get_tpu_env_value", multislice.get)
    group = group_with({})
    assert (group.found_by, group.count, group.index) == ("2 TPU slices", 8, 5)
    assert group.address == "first:8482"


def test_one_tpu_host_is_alone(group_with, monkeypatch):
    tpu_hosts(monkeypatch, 1)
    assert group_with({}) is None


def test_metadata_that_cannot_be_reached_is_an_error(group_with, monkeypatch):
    def unreachable():
        raise ConnectionError("metadata.google.internal")

    monkeypatch.setattr(clusters.GceTpuCluster, "is_env_present", unreachable)
    with pytest.raises(InputError, match=r"TPU chips.*metadata\.google\.internal.*--distributed=off"):
        group_with({})


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS not"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_NUM_PROCESSES and JAX_PROCESS_ID not"),
        (EXPLICIT | {"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4"),
        (EXPLICIT | {"JAX_NUM_PROCESSES": "four"}, "JAX_NUM_PROCESSES='four'"),
        (EXPLICIT | {"JAX_COORDINATOR_ADDRESS": "10.0.0.1"}, "needs host:port"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "two"}, "SLURM_STEP_NUM_TASKS='two'"),
        (MPIRUN | {"OMPI_COMM_WORLD_RANK": ""}, "OMPI_COMM_WORLD_RANK=''"),
    ],
)
def test_surroundings_that_are_wrong_are_named(group_with, env, named):
    with pytest.raises(InputError, match=named):
        group_with(env)


def test_off_looks_at_nothing_and_on_must_find_something(group_with):
    assert group_with(EXPLICIT | {"JAX_PROCESS_ID": "nonsense"}, mode="off") is None


def test_on_must_find_a_group(group_with):
    with pytest.raises(InputError, match="--distributed=on"):
        group_with({"SLURM_NTASKS": "4"}, mode="on")
    assert group_with(EXPLICIT, mode="on").count == 4
