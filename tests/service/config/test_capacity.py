"""Fleets that need more than the machine has, and what a machine has."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.config import capacity
from service.config.capacity import (
    Machine,
    check_fits,
    fronts_of,
    hosted,
    memory_limit,
    most_connections,
    parked_limit,
    with_device,
)
from service.config.fleet import Fleet, FleetError, load_fleet
from service.config.settings import Settings

ROWS = Catalogue(Path("/nonexistent")).checkpoints()
LAPTOP = Machine(cpus=2, gpus=0, free_bytes=4_000_000_000)
#: Megabytes of a replica without a network: measured with Ray, 330 to 360.
PROCESS_MB = 350
#: Parameters and activations of VGG-16, from the paper's table of layers.
VGG_MB = 4 * (138_357_544 + 15_237_608) / 1e6


def all_loadable() -> list[Checkpoint]:
    return [replace(row, path=Path("weights")) for row in ROWS]


def fleet(**changes: object) -> Fleet:
    deployments = [{"variants": ["lenet5"], "num_cpus": 0.5}, {"variants": ["vgg16"], "num_cpus": 0.5, **changes}]
    return Fleet.model_validate({"ingress": {"num_cpus": 0.25}, "deployment": deployments})


@pytest.mark.parametrize("name", ["local", "cluster-cpu", "solo"])
def test_shipped_fleets_fit_two_cores(name: str) -> None:
    """Also with the weights of all networks: a process for each takes 11 GB, one for all of them 6."""
    check_fits(load_fleet(name), all_loadable(), replace(LAPTOP, free_bytes=12_000_000_000), max_batch_size=1)


def test_cpus_are_summed_up_in_the_refusal() -> None:
    check_fits(fleet(replicas=3, num_cpus=0.4), all_loadable(), LAPTOP, max_batch_size=1)
    with pytest.raises(
        FleetError, match=r"2\.25 CPUs \(ingress 1 x 0\.25 \+ lenet5 1 x 0\.5 \+ vgg16 3 x 0\.5\).* has 2$"
    ):
        check_fits(fleet(replicas=3), all_loadable(), LAPTOP, max_batch_size=1)


def test_more_gpus_than_the_machine_has_are_refused() -> None:
    with pytest.raises(FleetError, match=r"0\.5 GPUs \(vgg16 1 x 0\.5\), this machine has 0"):
        check_fits(fleet(num_gpus=0.5), all_loadable(), LAPTOP, max_batch_size=1)


def test_bytes_count_processes_weights_and_activations() -> None:
    needed = 3 * PROCESS_MB + VGG_MB  # the ingress, lenet5 and vgg16
    check_fits(fleet(), all_loadable(), replace(LAPTOP, free_bytes=round((needed + 2) * 1e6)), max_batch_size=1)
    with pytest.raises(FleetError, match=r"MB \(ingress 1 x 350 \+ lenet5 1 x 350 \+ vgg16 1 x 964\)"):
        check_fits(fleet(), all_loadable(), replace(LAPTOP, free_bytes=round((needed - 2) * 1e6)), max_batch_size=1)


def test_a_network_without_weights_costs_nothing_behind_an_ingress() -> None:
    assert list(hosted(fleet(), ROWS)) == ["lenet5"]
    check_fits(fleet(), ROWS, replace(LAPTOP, free_bytes=(2 * PROCESS_MB + 2) * 10**6), max_batch_size=1)
    # In one process there is nothing to leave out.
    assert list(hosted(load_fleet("local"), ROWS)) == ["all"]


def test_activations_count_at_the_largest_batch() -> None:
    with pytest.raises(FleetError, match="vgg16 1 x 1391"):  # 350 + 553.4 + 8 x 60.95
        check_fits(fleet(), all_loadable(), replace(LAPTOP, free_bytes=2_000_000_000), max_batch_size=8)


def test_a_process_needs_the_weights_of_all_its_networks_and_the_activations_of_the_largest() -> None:
    both = Fleet.model_validate({"deployment": [{"variants": ["lenet5", "vgg16"]}]})
    with pytest.raises(FleetError, match=r"lenet5\+vgg16 1 x 965"):  # 350 + 0.24 + 553.43 + 60.95
        check_fits(both, all_loadable(), replace(LAPTOP, free_bytes=900_000_000), max_batch_size=1, memory_limit_mb=4e3)


def test_networks_take_no_more_than_the_memory_limit_together() -> None:
    """Those that do not fit stay on disk until they are asked for."""
    small = replace(LAPTOP, free_bytes=1_200_000_000)
    check_fits(fleet(), all_loadable(), small, max_batch_size=1, memory_limit_mb=100)
    with pytest.raises(FleetError, match=r"lenet5 1 x 350 \+ vgg16 1 x 850"):
        check_fits(fleet(), all_loadable(), small, max_batch_size=1, memory_limit_mb=500)
    with pytest.raises(FleetError, match=r"needs 4850 MB \(all 1 x 4850\), this machine has 4000 free"):
        check_fits(load_fleet("local"), all_loadable(), LAPTOP, max_batch_size=1, memory_limit_mb=4_500)
    # Without a limit one is chosen that leaves room for the process.
    check_fits(load_fleet("local"), all_loadable(), LAPTOP, max_batch_size=1)


def test_the_memory_limit_is_the_setting_or_eighty_percent_of_what_is_free() -> None:
    def unasked() -> int:
        raise AssertionError("a CUDA context would be made for nothing")

    assert memory_limit(Settings(memory_limit_mb=1.5), unasked) == 1_500_000
    assert memory_limit(Settings(), lambda: 1_000_000_001) == 800_000_000


def test_parked_weights_take_a_quarter_of_what_is_free_on_a_gpu_machine_and_nothing_on_a_cpu() -> None:
    def unasked() -> int:
        raise AssertionError("nobody needs to know")

    assert parked_limit(Settings(parked_limit_mb=1.5), "cuda:0", unasked) == 1_500_000
    assert parked_limit(Settings(parked_limit_mb=0), "cuda:0", unasked) == 0
    assert parked_limit(Settings(), "cuda:1", lambda: 1_000_000_001) == 250_000_000
    for settings in (Settings(), Settings(parked_limit_mb=5)):
        assert parked_limit(settings, "cpu", unasked) == 0


def test_without_a_largest_batch_a_check_counts_sixteen_pictures() -> None:
    for size in (16, None):
        with pytest.raises(FleetError, match="MB") as caught:
            check_fits(fleet(), all_loadable(), replace(LAPTOP, free_bytes=500_000_000), max_batch_size=size)
        if size:
            sixteen = str(caught.value)
    assert str(caught.value) == sixteen


def test_one_process_takes_the_gpu_where_there_is_one() -> None:
    """Ray hides GPUs from a replica that reserves none."""
    workstation, local = replace(LAPTOP, gpus=2), load_fleet("local")
    assert with_device(local, "auto", workstation).deployment[0].num_gpus == 1
    assert with_device(local, "cuda:0", workstation).deployment[0].num_gpus == 1
    assert with_device(local, "cpu", workstation) == local
    assert with_device(local, "auto", LAPTOP) == local
    assert with_device(fleet(), "auto", workstation) == fleet()
    with pytest.raises(FleetError, match="no NVIDIA GPU"):
        with_device(local, "cuda:0", LAPTOP)


@pytest.mark.parametrize(
    ("files", "connections"),
    [(resource.RLIM_INFINITY, 4096), (10**6, 4096), (10_340, 4096), (10_339, 4095), (1024, 369), (100, 0)],
)
def test_the_limit_on_open_files_limits_connections(
    monkeypatch: pytest.MonkeyPatch, files: int, connections: int
) -> None:
    """HAProxy needs 2.5 files for each connection; with 4,096 connections it did not start with fewer than 10,267
    files."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, files))
    assert most_connections() == connections


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with four cores, 8 GB of free memory, and no limits; returns the folder of its control group."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8_000_000_000))
    monkeypatch.setattr(capacity, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(capacity, "_GPUS", tmp_path / "gpus")
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def test_without_a_control_group_the_machine_is_the_hosts(host: Path) -> None:
    assert Machine.this() == Machine(cpus=4.0, gpus=0, free_bytes=8_000_000_000)
    assert list(host.iterdir()) == []


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("150000 100000", 1.5), ("50000 100000", 0.5), ("600000 100000", 4.0), ("max 100000", 4.0), ("30000 20000", 1.5)],
)
def test_a_quota_limits_cpus(host: Path, quota: str, cpus: float) -> None:
    """cpu.max holds the microseconds that the group may use, of each period of so many."""
    (host / "cpu.max").write_text(quota + "\n")
    assert Machine.this().cpus == cpus


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [("1000000000", "400000000", 600_000_000), ("20000000000", "1000", 8_000_000_000), ("max", "1000", 8_000_000_000)],
)
def test_a_limit_on_memory_leaves_what_is_not_used(host: Path, limit: str, used: str, free: int) -> None:
    (host / "memory.max").write_text(limit + "\n")
    (host / "memory.current").write_text(used + "\n")
    assert Machine.this().free_bytes == free


def test_each_entry_of_nvidias_driver_is_a_gpu(host: Path) -> None:
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (host.parent / "gpus" / bus).mkdir(parents=True)
    assert Machine.this().gpus == 2


def test_the_largest_batch_is_the_deployments_own_if_it_has_one() -> None:
    own = fleet(max_batch_size=8)
    with pytest.raises(FleetError, match="vgg16 1 x 1391"):
        check_fits(own, all_loadable(), replace(LAPTOP, free_bytes=2_000_000_000), max_batch_size=1)


def apart(**keys: object) -> Fleet:
    """A fleet of fronts and device owners."""
    replicas = keys.pop("replicas", 1)
    return Fleet.model_validate({"deployment": [{"variants": ["lenet5", "vgg16"], "replicas": replicas}], **keys})


@pytest.mark.parametrize(
    ("keys", "cpus", "gpus", "fronts"),
    [
        ({"fronts": 3}, 2, 0, 3),
        ({"fronts": 0, "ray": False}, 64, 0, 0),
        # Behind Ray, one process is as fast on two cores.
        ({}, 2, 0, 0),
        ({"fronts": "auto"}, 3.9, 0, 0),
        ({}, 4, 0, 2),
        ({"fronts": "auto"}, 16, 0, 8),
        # Without Ray there are cores for both.
        ({"ray": False}, 16, 0, 8),
        ({"ray": False, "fronts": "auto"}, 3.9, 0, 1),
        ({"ray": False}, 1, 0, 1),
        ({"ray": False}, 0.5, 0, 1),
        # A GPU machine: its cores less two.
        ({}, 16, 1, 14),
        ({"fronts": "auto"}, 16, 1, 14),
        ({"ray": False}, 16, 1, 14),
        ({}, 2, 1, 1),
        ({"fronts": 0}, 16, 1, 0),
    ],
)
def test_auto_is_the_number_of_fronts_that_was_measured_to_be_best(
    keys: dict[str, object], cpus: float, gpus: int, fronts: int
) -> None:
    machine = replace(LAPTOP, cpus=cpus, gpus=gpus)
    assert fronts_of(with_device(apart(**keys), "auto", machine), machine) == fronts


def test_fronts_take_memory_beside_the_device_owner() -> None:
    """A front may take 170 MB, and an owner what any process with these networks takes: 965 MB, as above."""
    needed = 2 * 170 + 965
    for ray in (True, False):
        both = apart(fronts=2, ray=ray)
        check_fits(
            both, all_loadable(), replace(LAPTOP, free_bytes=needed * 10**6), max_batch_size=1, memory_limit_mb=4e3
        )
        with pytest.raises(FleetError, match=r"needs 1305 MB \(fronts 2 x 170 \+ lenet5\+vgg16 1 x 965\)"):
            check_fits(
                both,
                all_loadable(),
                replace(LAPTOP, free_bytes=(needed - 1) * 10**6),
                max_batch_size=1,
                memory_limit_mb=4e3,
            )


def test_without_a_limit_networks_leave_room_for_the_fronts_too() -> None:
    """All networks take 5 GB. Of 2 GB, 1.66 are left by two fronts; the owner's networks take 80 % of those."""
    small = replace(LAPTOP, free_bytes=2_000_000_000)
    solo = load_fleet("solo")
    check_fits(solo.model_copy(update={"fronts": 1}), all_loadable(), small, max_batch_size=1)
    with pytest.raises(FleetError, match=r"needs 2018 MB \(fronts 2 x 170 \+ all 1 x 1678\), this machine has 2000"):
        check_fits(solo.model_copy(update={"fronts": 2}), all_loadable(), small, max_batch_size=1)
    # Fronts that need more than all there is.
    with pytest.raises(FleetError, match=r"\(fronts 20 x 170 \+ all 1 x 350\)"):
        check_fits(solo.model_copy(update={"fronts": 20}), all_loadable(), small, max_batch_size=1)


def test_ray_reserves_a_tenth_of_a_core_for_a_front() -> None:
    check_fits(apart(fronts=10), all_loadable(), LAPTOP, max_batch_size=1)
    with pytest.raises(FleetError, match=r"2\.1 CPUs \(fronts 11 x 0\.1 \+ lenet5\+vgg16 1 x 1\), .* has 2$"):
        check_fits(apart(fronts=11), all_loadable(), LAPTOP, max_batch_size=1)
    with pytest.raises(FleetError, match=r"3 CPUs \(lenet5\+vgg16 3 x 1\)"):
        check_fits(apart(fronts=0, replicas=3), all_loadable(), LAPTOP, max_batch_size=1)


def test_without_ray_nothing_reserves_cores() -> None:
    """Half a core of a container is enough to serve with."""
    tiny = replace(LAPTOP, cpus=0.5)
    check_fits(load_fleet("solo"), all_loadable(), tiny, max_batch_size=1)
    with pytest.raises(FleetError, match=r"1 CPUs \(all 1 x 1\), this machine has 0\.5"):
        check_fits(load_fleet("local"), all_loadable(), tiny, max_batch_size=1)


def test_without_ray_gpus_are_still_counted() -> None:
    fleet = Fleet.model_validate({"ray": False, "deployment": [{"variants": ["vgg"], "replicas": 2, "num_gpus": 1}]})
    check_fits(fleet, all_loadable(), replace(LAPTOP, gpus=2), max_batch_size=1)
    with pytest.raises(FleetError, match=r"2 GPUs \(vgg16 2 x 1\), this machine has 1"):
        check_fits(fleet, all_loadable(), replace(LAPTOP, gpus=1), max_batch_size=1)
