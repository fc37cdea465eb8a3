"""Checks, before anything is started, whether a fleet fits this machine."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from models.checkpoints.catalogue import Checkpoint
from service.config.fleet import Fleet, FleetError
from service.config.settings import Settings

#: Resident bytes of a replica before it loads a network: 330 to 360 MB, measured with Ray 2.60 and PyTorch 2.14. A
#: replica whose engine does without PyTorch needs half of that, so the check is on the safe side.
PROCESS_BYTES = 350_000_000
#: Where the kernel tells a container what it may use, and where NVIDIA's driver lists GPUs.
_CGROUP, _GPUS = Path("/sys/fs/cgroup"), Path("/proc/driver/nvidia/gpus")
#: The share of the free memory that networks may take if no limit is set. The rest is for pictures and other programs.
_SHARE = 0.8
#: What Ray reserves for a front, in cores. It does not limit it.
FRONT_CPUS = 0.1
#: Resident bytes of a front behind Ray Serve: 163 to 171 MB, of which Ray takes 120. Without Ray it is 70 to 115 MB.
FRONT_BYTES = 170_000_000
#: Behind Ray Serve a fleet has fronts from so many cores on. On two, a front beside the device owner is no faster than
#: one process for everything (measured with LeNet-5 under 64 connections), and takes 170 MB more.
_ENOUGH_CORES = 4
#: The share of the free host memory that parked weights may take on a GPU machine if no limit is set. It is locked, so
#: nothing else can have it meanwhile.
_PARKED_SHARE = 0.25
#: The largest batch that a check counts if none is set: activations of larger ones are in a GPU's memory, not here.
_BATCH = 16
#: Serve lets HAProxy have this many connections.
MOST_CONNECTIONS = 4096
#: Files that HAProxy opens beside its connections: about 30, and room for more replicas.
_FILES_BESIDE = 100


@dataclass(frozen=True, slots=True)
class Machine:
    """The cores, GPUs and free memory of a machine."""

    cpus: float
    gpus: int
    free_bytes: int

    @classmethod
    def this(cls) -> Machine:
        """What this process may use of its machine."""
        # NVIDIA's driver has an entry for each GPU here; asking torch would take seconds.
        gpus = len(list(_GPUS.glob("*")))
        cpus, free_bytes = float(len(os.sched_getaffinity(0))), psutil.virtual_memory().available
        # A container may have less than its host. cpu.max holds two times: what it may use of each period.
        quota = _numbers("cpu.max")
        limit, used = _numbers("memory.max"), _numbers("memory.current")
        if len(quota) == 2:
            cpus = min(cpus, quota[0] / quota[1])
        if limit and used:
            free_bytes = min(free_bytes, round(limit[0] - used[0]))
        return cls(cpus, gpus, free_bytes)


def _numbers(file: str) -> list[float]:
    """The numbers in a file of the control group; empty if the file says ``max`` (no limit) or does not exist."""
    try:
        words = (_CGROUP / file).read_text().split()
    except OSError:
        return []
    return [] if "max" in words else [float(word) for word in words]


def most_connections() -> int:
    """How many connections HAProxy may have at once: Serve's number, or less if the limit on open files is low. HAProxy
    reserves two and a half files for each connection and does not start without them."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, (files - _FILES_BESIDE) * 2 // 5)


def memory_limit(settings: Settings, free_bytes: Callable[[], int]) -> int:
    """The bytes that all loaded networks together may take on a device: the setting, else a share of the free memory.

    Args:
        settings: from the operator.
        free_bytes: the free memory of the device; asked only if there is no setting.
    """
    if settings.memory_limit_mb is not None:
        return int(settings.memory_limit_mb * 1_000_000)
    return int(_SHARE * free_bytes())


def parked_limit(settings: Settings, device: str, free_bytes: Callable[[], int]) -> int:
    """The bytes of host memory that the weights of unloaded networks may take: the setting, else a share of the free
    memory. It is 0 where the networks run on a CPU: weights in host memory are loaded there.

    Args:
        settings: from the operator.
        device: what the networks run on, ``cpu`` or ``cuda:N``.
        free_bytes: the free memory of the host; asked only if there is no setting.
    """
    if device == "cpu":
        return 0
    if settings.parked_limit_mb is not None:
        return int(settings.parked_limit_mb * 1_000_000)
    return int(_PARKED_SHARE * free_bytes())


def with_device(fleet: Fleet, device: str, machine: Machine) -> Fleet:
    """Reserves a GPU for a fleet of one deployment, unless its file or the device setting says otherwise: Ray hides all
    GPUs from a replica that reserves none.

    Raises:
        FleetError: the device setting names a GPU, and the machine has none.
    """
    if device.startswith("cuda") and not machine.gpus:
        raise FleetError(f"device {device} is asked for, and this machine has no NVIDIA GPU")
    (first, *others) = fleet.deployment
    if fleet.ingress is not None or others or device == "cpu" or first.num_gpus or not machine.gpus:
        return fleet
    return fleet.model_copy(update={"deployment": [first.model_copy(update={"num_gpus": 1.0})]})


def fronts_of(fleet: Fleet, machine: Machine) -> int:
    """How many fronts a fleet without an ingress has on this machine; 0 if one process does everything."""
    if isinstance(fleet.fronts, int):
        return fleet.fronts
    cores = int(machine.cpus)
    if any(deployment.num_gpus for deployment in fleet.deployment):
        # The device owner needs a core, and the driver of the GPU part of another.
        return max(1, cores - 2)
    if fleet.ray and cores < _ENOUGH_CORES:
        return 0
    return max(1, cores // 2)


@dataclass(frozen=True, slots=True)
class _Share:
    """What a deployment needs of a resource."""

    name: str
    replicas: int
    each: float

    def __str__(self) -> str:
        return f"{self.name} {self.replicas} x {self.each:g}"


def check_fits(
    fleet: Fleet,
    checkpoints: Sequence[Checkpoint],
    machine: Machine,
    *,
    max_batch_size: int | None,
    memory_limit_mb: float | None = None,
) -> None:
    """Checks that the fleet needs no more than the machine has.

    Args:
        fleet: the deployments to run.
        checkpoints: the catalogue; only loadable checkpoints take memory.
        machine: the machine that the fleet runs on.
        max_batch_size: of deployments that do not set it; 16 if it is not set either.
        memory_limit_mb: what the networks of one process may take together; networks beyond it stay on disk until they
            are asked for. The default is a share of what is free.

    Raises:
        FleetError: the fleet needs more; the text has the sum.
    """
    fronts = fronts_of(fleet, machine) if fleet.ingress is None else 0
    if fleet.ray:
        _check("CPUs", _cpus(fleet, fronts), machine.cpus, "")
    _check("GPUs", [_Share(d.name, d.replicas, d.num_gpus) for d in fleet.deployment], machine.gpus, "")
    free_mb = machine.free_bytes / 1e6
    front = [_Share("fronts", fronts, round(FRONT_BYTES / 1e6))] if fronts else []
    # A device owner finds less free memory once the fronts have theirs.
    limit_mb = memory_limit_mb if memory_limit_mb is not None else _SHARE * (free_mb - fronts * FRONT_BYTES / 1e6)
    networks = _memory(fleet, checkpoints, max_batch_size or _BATCH, max(0.0, limit_mb))
    _check("MB", front + networks, free_mb, " free")


def hosted(fleet: Fleet, checkpoints: Sequence[Checkpoint]) -> dict[str, list[Checkpoint]]:
    """The loadable checkpoints of each deployment, by its name. A deployment behind an ingress that has none is left
    out: its processes would only take memory."""
    by_deployment = {
        d.name: [c for c in checkpoints if c.state == "loadable" and c.variant.name in d.names()]
        for d in fleet.deployment
    }
    if fleet.ingress is None:
        return by_deployment
    return {name: loadable for name, loadable in by_deployment.items() if loadable}


def _cpus(fleet: Fleet, fronts: int) -> list[_Share]:
    """The cores that Ray reserves for each deployment. Without Ray nothing is reserved."""
    shares = [_Share(d.name, d.replicas, d.num_cpus) for d in fleet.deployment]
    if fleet.ingress is not None:
        return [_Share("ingress", fleet.ingress.replicas, fleet.ingress.num_cpus), *shares]
    return [_Share("fronts", fronts, FRONT_CPUS), *shares] if fronts else shares


def _memory(fleet: Fleet, checkpoints: Sequence[Checkpoint], max_batch_size: int, limit_mb: float) -> list[_Share]:
    """The megabytes of each deployment. A replica needs its process, the parameters of its networks in float32, and the
    activations of the largest network at the largest batch; the networks need no more than the limit, under which
    they take turns."""
    deployments = {d.name: d for d in fleet.deployment}
    shares = []
    for name, loadable in hosted(fleet, checkpoints).items():
        weights = sum(4 * c.costs.params for c in loadable)
        batch = deployments[name].max_batch_size or max_batch_size
        activations = batch * max((4 * c.costs.activations for c in loadable), default=0)
        megabytes = round(PROCESS_BYTES / 1e6 + min(limit_mb, (weights + activations) / 1e6))
        shares.append(_Share(name, deployments[name].replicas, megabytes))
    if fleet.ingress is not None:
        shares.insert(0, _Share("ingress", fleet.ingress.replicas, round(PROCESS_BYTES / 1e6)))
    return shares


def _check(unit: str, shares: Sequence[_Share], there: float, which: str) -> None:
    wanted = sum(share.replicas * share.each for share in shares)
    # A sum of floats like 0.1 may be off in its last bit; Ray itself counts in ten-thousandths.
    if wanted > there + 1e-6:
        sum_of = " + ".join(str(share) for share in shares if share.each)
        raise FleetError(f"the fleet needs {wanted:g} {unit} ({sum_of}), this machine has {there:.6g}{which}")
