"""Fleets that want more than the machine has."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.config.capacity import (
    PROCESS_BYTES,
    Machine,
    check_fits,
    hosted,
    memory_limit,
    most_connections,
    with_device,
)
from service.config.fleet import Fleet, FleetError, load_fleet
from service.config.settings import Settings

ROWS = Catalogue(Path("/nonexistent")).checkpoints()
LAPTOP = Machine(cpus=2, gpus=0, free_bytes=4_000_000_000)


def all_loadable() -> list[Checkpoint]:
    return [replace(row, path=Path("weights")) for row in ROWS]


def fleet(**changes: object) -> Fleet:
    deployments = [{"variants": ["lenet5"], "num_cpus": 0.5}, {"variants": ["vgg16"], "num_cpus": 0.5, **changes}]
    return Fleet.model_validate({"ingress": {"num_cpus": 0.25}, "deployment": deployments})


@pytest.mark.parametrize("name", ["local", "cluster-cpu"])
def test_shipped_fleets_fit_two_cores(name: str) -> None:
    """With every network's weights there: a process each takes 11 GB, and one for all of them 6."""
    check_fits(load_fleet(name), all_loadable(), replace(LAPTOP, free_bytes=12_000_000_000), max_batch_size=1)


def test_cpus_are_summed_up_in_the_refusal() -> None:
    check_fits(fleet(replicas=3, num_cpus=0.4), all_loadable(), LAPTOP, max_batch_size=1)
    with pytest.raises(
        FleetError, match=r"2\.25 CPUs \(ingress 1 x 0\.25 \+ lenet5 1 x 0\.5 \+ vgg16 3 x 0\.5\).* has 2$"
    ):
        check_fits(fleet(replicas=3), all_loadable(), LAPTOP, max_batch_size=1)


def test_gpus_that_are_not_there() -> None:
    with pytest.raises(FleetError, match=r"0\.5 GPUs \(vgg16 1 x 0\.5\), this machine has 0"):
        check_fits(fleet(num_gpus=0.5), all_loadable(), LAPTOP, max_batch_size=1)


def test_bytes_count_processes_weights_and_activations() -> None:
    process, vgg = PROCESS_BYTES / 1e6, 4 * (138_357_544 + 15_237_608) / 1e6
    needed = 2 * process + process + vgg  # the ingress, lenet5 and vgg16
    check_fits(fleet(), all_loadable(), replace(LAPTOP, free_bytes=round((needed + 2) * 1e6)), max_batch_size=1)
    with pytest.raises(FleetError, match=r"MB \(ingress 1 x 350 \+ lenet5 1 x 350 \+ vgg16 1 x 964\)"):
        check_fits(fleet(), all_loadable(), replace(LAPTOP, free_bytes=round((needed - 2) * 1e6)), max_batch_size=1)


def test_a_network_without_weights_costs_nothing_behind_an_ingress() -> None:
    assert list(hosted(fleet(), ROWS)) == ["lenet5"]
    check_fits(fleet(), ROWS, replace(LAPTOP, free_bytes=2 * PROCESS_BYTES + 2_000_000), max_batch_size=1)
    # In one process there is nothing to leave out.
    assert list(hosted(load_fleet("local"), ROWS)) == ["all"]


def test_activations_count_at_the_largest_batch() -> None:
    with pytest.raises(FleetError, match="vgg16 1 x 1391"):  # 350 + 553.4 + 8 x 60.95
        check_fits(fleet(), all_loadable(), replace(LAPTOP, free_bytes=2_000_000_000), max_batch_size=8)


def test_networks_take_no_more_than_the_memory_limit_together() -> None:
    """Those that have no room under it stay on disk until they are asked for."""
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
def test_connections_go_by_the_limit_on_open_files(
    monkeypatch: pytest.MonkeyPatch, files: int, connections: int
) -> None:
    """HAProxy wants 2.5 for each and did not start with 4,096 below 10,267."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, files))
    assert most_connections() == connections
