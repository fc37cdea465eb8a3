"""The Ray Serve application of a fleet, without a cluster: its deployments and their options."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.assembly import local as local_assembly
from service.config.capacity import Machine
from service.config.fleet import Deployment, Fleet, load_fleet
from service.config.settings import Settings

with warnings.catch_warnings():
    # Ray Serve uses what pydantic deprecates.
    warnings.simplefilter("ignore")
    from service.cluster import application as module
    from service.cluster.application import Owner, _options, application

FLEET = {
    "ingress": {"replicas": 2, "num_cpus": 0.25},
    "deployment": [
        {"variants": ["lenet5"], "replicas": 3, "num_cpus": 0.5, "num_gpus": 0.25},
        {"variants": ["vgg16"]},
    ],
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path)


def deployment(bound: Any) -> Any:
    """What an application binds."""
    return bound._bound_deployment


def test_a_fleet_of_one_deployment_is_the_ingress(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two cores; where there are more, fronts stand before it."""
    monkeypatch.setattr(module.Machine, "this", lambda: Machine(2, 0, 8_000_000_000))
    found = deployment(application(settings, load_fleet("local"), tmp_path))
    assert found.name == "ingress"
    given, hosted, folder = found.init_args
    assert (given, hosted.names()[0], folder) == (settings, "lenet5", tmp_path)


def test_behind_an_ingress_only_deployments_with_weights_are_started(settings: Settings, tmp_path: Path) -> None:
    found = deployment(application(settings, Fleet.model_validate(FLEET), tmp_path))
    assert (found.name, found.num_replicas) == ("ingress", 2)
    assert found.ray_actor_options["num_cpus"] == 0.25
    handles = found.init_args[3]
    assert set(handles) == {"lenet5"}, "vgg16 has no weights here"
    lenet5 = deployment(handles["lenet5"])
    assert (lenet5.name, lenet5.num_replicas) == ("lenet5", 3)
    assert lenet5.ray_actor_options["num_cpus"] == 0.5
    assert lenet5.ray_actor_options["num_gpus"] == 0.25


def test_with_random_weights_every_deployment_is_started(settings: Settings, tmp_path: Path) -> None:
    untrained = settings.model_copy(update={"untrained": True})
    found = deployment(application(untrained, Fleet.model_validate(FLEET), tmp_path))
    assert set(found.init_args[3]) == {"lenet5", "vgg16"}


def test_the_variants_of_one_deployment_share_a_handle(settings: Settings, tmp_path: Path) -> None:
    fleet = Fleet.model_validate({"ingress": {}, "deployment": [{"variants": ["lenet5", "googlenet"]}]})
    handles = deployment(application(settings, fleet, tmp_path)).init_args[3]
    assert set(handles) == {"lenet5", "googlenet"}
    assert handles["lenet5"] is handles["googlenet"]
    assert deployment(handles["lenet5"]).name == "lenet5+googlenet"


def test_serves_own_limits_never_come_before_ours() -> None:
    """Pictures that wait are counted by the queue (512 by default), and requests that Serve held back would not be."""
    options = _options("all", Deployment(variants=["*"]))
    assert options["max_ongoing_requests"] > 2 * 4096
    assert options["health_check_period_s"] <= 1


def test_fronts_are_the_ingress_and_the_owner_stands_behind_them(settings: Settings, tmp_path: Path) -> None:
    hosted = {"variants": ["lenet5"], "replicas": 2, "num_cpus": 0.5, "num_gpus": 0.25}
    fleet = Fleet.model_validate({"fronts": 3, "deployment": [hosted]})
    front = deployment(application(settings, fleet, tmp_path))
    assert (front.name, front.num_replicas) == ("ingress", 3)
    assert front.ray_actor_options == {"num_cpus": 0.1}, "fronts need no GPU, and more cores than Ray can reserve"
    assert front.init_args[:3] == (settings, tmp_path, 3)
    owner = deployment(front.init_args[3])
    assert (owner.name, owner.num_replicas) == ("owner", 2)
    assert owner.ray_actor_options["num_cpus"] == 0.5
    assert owner.ray_actor_options["num_gpus"] == 0.25
    assert owner.init_args == (settings, fleet.deployment[0], tmp_path)
    for each in (front, owner):
        assert each.max_ongoing_requests > 2 * 4096


def test_no_fronts_are_one_process(settings: Settings, tmp_path: Path) -> None:
    fleet = Fleet.model_validate({"fronts": 0, "deployment": [{"variants": ["lenet5"], "replicas": 2}]})
    found = deployment(application(settings, fleet, tmp_path))
    assert (found.name, found.num_replicas) == ("ingress", 2)
    assert found.init_args == (settings, fleet.deployment[0], tmp_path)


class Owning:
    """Stands in for ``assembly.local.owner``, and for what of Ray an owner asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arguments: tuple[Any, ...] = ()
        self.runs = False
        self.error: Exception | None = None
        monkeypatch.setattr(module.serve, "get_replica_context", lambda: SimpleNamespace(replica_tag="ab12cd34"))
        monkeypatch.setattr(module, "expose", lambda host, _: f"the targets at {host}")
        monkeypatch.setattr(module, "configure_logging", lambda _format: None)
        monkeypatch.setattr(local_assembly, "owner", self._own)

    @asynccontextmanager
    async def _own(self, *arguments: Any) -> AsyncIterator[None]:
        self.arguments = arguments
        if self.error is not None:
            raise self.error
        self.runs = True
        yield
        await asyncio.sleep(0.01)
        self.runs = False


@pytest.fixture
def owning(monkeypatch: pytest.MonkeyPatch) -> Owning:
    return Owning(monkeypatch)


class Kept(Owner):
    """An owner on which Python itself does not call what Serve awaits at the end."""

    def __del__(self) -> None:  # type: ignore[override]
        pass


async def test_an_owner_serves_a_socket_of_its_own_until_serve_ends_it(
    settings: Settings, tmp_path: Path, owning: Owning
) -> None:
    hosted = Deployment(variants=["lenet5"])
    owner = Kept(settings, hosted, tmp_path)
    await asyncio.sleep(0.005)
    given, deployed, path, stopping, targets = owning.arguments
    assert (given, deployed) == (settings, hosted)
    # Two owners on one machine have different ones, and so has the successor of one that died.
    assert path == tmp_path / "o" / "ab12cd34.sock"
    assert path.parent.is_dir()
    assert targets == "the targets at 127.0.0.1"
    assert not stopping()
    assert owning.runs
    owner.check_health()
    await Owner.__del__(owner)
    assert not owning.runs, "its networks are given back before the process ends"
    with pytest.raises(RuntimeError, match="has ended"):
        owner.check_health()


async def test_serve_is_told_of_an_owner_that_cannot_begin(settings: Settings, tmp_path: Path, owning: Owning) -> None:
    """It then replaces the replica."""
    owning.error = OSError("no socket")
    owner = Kept(settings, Deployment(variants=["lenet5"]), tmp_path)
    await asyncio.sleep(0.005)
    with pytest.raises(OSError, match="no socket"):
        owner.check_health()
