"""Which group of processes this one belongs to, by what its surroundings say."""

import dataclasses
import os
from collections.abc import Mapping

from s2l_jax.console import say
from s2l_jax.errors import InputError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
WAIT_SECONDS = 300  # for the other processes, and for names and metadata on the way to them
_ALONE = "--distributed=off runs this process alone"


@dataclasses.dataclass(frozen=True)
class Group:
    """Processes that make one run, and this one's place among them."""

    found_by: str  # for people
    address: str  # host:port of process 0
    count: int
    index: int
    local_device_ids: tuple[int, ...] | None = None  # GPUs of this process; None: all that it sees


@dataclasses.dataclass(frozen=True)
class _Place:
    """A place in a launcher's group; a launcher need not say where process 0 is."""

    found_by: str
    count: int
    index: int
    local_device_ids: tuple[int, ...] | None
    address: str = ""


def find_group(mode: str = "auto") -> Group | None:
    """The group to join, or None for a process that runs alone.

    In this order: an explicit group (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; the
    address alone, where a launcher says the rest), Open MPI, the tasks of a Slurm step, and the hosts of TPU
    slices. What of these has one process only is no group.

    Args:
      mode: "auto"; "on": being alone is an error; "off": nothing is looked at.

    Raises:
      InputError: variables that contradict each other, that are not numbers, or of which some are missing.
    """
    if mode == "off":
        return None
    env = os.environ
    group = _explicit(env)
    if group is None and (place := _open_mpi(env) or _slurm_step(env) or _tpu_hosts()):
        group = Group(place.found_by, place.address, place.count, place.index, place.local_device_ids)
    if group is None or group.count == 1:
        if mode == "on":
            raise InputError(
                f"--distributed=on: no group of processes is to be seen. Set {ADDRESS} (host:port of "
                f"process 0), {COUNT} and {INDEX} on each; or start them with srun or mpirun, or on all "
                "hosts of a TPU slice."
            )
        _explain_slurm(env)
        return None
    return group


def _explicit(env: Mapping[str, str]) -> Group | None:
    given = [name for name in (ADDRESS, COUNT, INDEX) if env.get(name)]
    if not given:
        return None
    place = _open_mpi(env) or _slurm_step(env) if ADDRESS in given else None
    if place is not None and given == [ADDRESS]:
        found_by = f"{place.found_by}, {ADDRESS}"
        return Group(found_by, env[ADDRESS], place.count, place.index, place.local_device_ids)
    if missing := [name for name in (ADDRESS, COUNT, INDEX) if name not in given]:
        raise InputError(
            f"{' and '.join(given)} set, {' and '.join(missing)} not: a group needs the three of them. Set "
            f"what is missing on each process, or unset the rest; {_ALONE}."
        )
    host, _, port = env[ADDRESS].rpartition(":")
    if not (host and port.isdigit()):
        raise InputError(f"{ADDRESS}={env[ADDRESS]}: needs host:port of process 0, such as 10.0.0.1:8476.")
    count, index = _number(env, COUNT), _number(env, INDEX)
    if not 0 <= index < count:
        raise InputError(f"{INDEX}={index}, {COUNT}={count}: processes are numbered from 0 to {count - 1}.")
    local_device_ids = None
    if place is not None and (place.count, place.index) == (count, index):
        local_device_ids = place.local_device_ids
    return Group(ADDRESS, env[ADDRESS], count, index, local_device_ids)


def _open_mpi(env: Mapping[str, str]) -> _Place | None:
    size = "OMPI_COMM_WORLD_SIZE"
    if not env.get(size) or _number(env, size) == 1:
        return None
    rank, local = _number(env, "OMPI_COMM_WORLD_RANK"), _number(env, "OMPI_COMM_WORLD_LOCAL_RANK")
    sharing = _number(env, "OMPI_COMM_WORLD_LOCAL_SIZE") > 1
    address = env.get(ADDRESS, "")
    if not address:
        from jax._src import clusters  # private, as nothing public tells an address that JAX finds

        if not clusters.OmpiCluster.is_env_present():
            raise InputError(
                f"{size}={env[size]}: this mpirun does not say where its rank 0 runs (Open MPI 5 does not). "
                f"Set {ADDRESS}=HOST:PORT, its machine and a free port, for all ranks; {_ALONE}."
            )
        address = clusters.OmpiCluster.get_coordinator_address(WAIT_SECONDS, env.get("JAX_COORDINATOR_PORT"))
    return _Place("Open MPI", _number(env, size), rank, _own_gpu(env, local) if sharing else None, address)


def _slurm_step(env: Mapping[str, str]) -> _Place | None:
    """Of the step, not of the allocation, in which this process may be the only one that was started."""
    tasks = "SLURM_STEP_NUM_TASKS"
    if not env.get(tasks) or _number(env, tasks) == 1:
        return None
    index, local = _number(env, "SLURM_PROCID"), _number(env, "SLURM_LOCALID")
    address = env.get(ADDRESS, "")
    if not address:
        from jax._src import clusters  # as above

        if not clusters.SlurmCluster.is_env_present():
            raise InputError(
                f"{tasks}={env[tasks]}, but SLURM_JOB_ID, SLURM_STEP_NODELIST or SLURM_NTASKS is not set: "
                f"start the processes with srun and leave its variables as they are; {_ALONE}."
            )
        address = clusters.SlurmCluster.get_coordinator_address(WAIT_SECONDS, env.get("JAX_COORDINATOR_PORT"))
    # Tasks that share a node have a GPU each, as JAX has it; a task alone on a node has all of them.
    alone = set(env.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0].split(",")) == {"1"}
    step = f"Slurm step {env.get('SLURM_JOB_ID', '')}.{env.get('SLURM_STEP_ID', '')}"
    return _Place(step, _number(env, tasks), index, None if alone else _own_gpu(env, local), address)


def _own_gpu(env: Mapping[str, str], local: int) -> tuple[int, ...] | None:
    """The GPU of a task that shares a node; None where it sees no other, as by Slurm's --gpus-per-task=1."""
    seen = [each for each in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    return None if len(seen) == 1 else (local,)


def _tpu_hosts() -> _Place | None:
    """The hosts of this machine's TPU slice, or of all slices, as GKE or Google's metadata have them."""
    from jax._src import clusters  # as above

    try:
        kinds = clusters.GkeTpuCluster, clusters.GceTpuCluster
        kind = next((kind for kind in kinds if kind.is_env_present()), None)
        if kind is None or (count := kind.get_process_count()) == 1:
            return None
        address = kind.get_coordinator_address(WAIT_SECONDS, os.environ.get("JAX_COORDINATOR_PORT"))
        slices = kind._get_num_slices()
        found_by = f"{slices} TPU slices" if slices > 1 else "a TPU slice"
        return _Place(found_by, count, kind.get_process_id(), None, address)
    except Exception as error:  # whatever is wrong with the metadata
        raise InputError(
            f"this machine has TPU chips, but which hosts belong to their slice could not be found "
            f"({type(error).__name__}: {error}). Set {ADDRESS}, {COUNT} and {INDEX}; {_ALONE}."
        ) from error


def _explain_slurm(env: Mapping[str, str]) -> None:
    """Say that this process is alone though it has variables of a Slurm job of several tasks."""
    allocated = env.get("SLURM_NTASKS")
    if allocated is None or allocated == "1" or env.get("SLURM_STEP_NUM_TASKS"):
        return
    names = [name for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST") if name in env]
    job = f"a Slurm job of {allocated} tasks" if allocated.isdigit() else "a Slurm job"
    say(
        f"{', '.join(f'{name}={env[name]!r}' for name in names)} are of {job}, but srun did not start this "
        "process as a task (SLURM_STEP_NUM_TASKS is not set): it runs alone. To run them together: srun "
        "python launch.py ...; --distributed=off runs alone without this line"
    )


def _number(env: Mapping[str, str], name: str) -> int:
    text = env.get(name, "")
    if not text.isdigit():
        raise InputError(f"{name}={text!r}: needs a whole number, as srun, mpirun or you set it; {_ALONE}.")
    return int(text)
