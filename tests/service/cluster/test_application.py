"""The Ray Serve application of a fleet, without a cluster: its deployments and their options."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from service.config.fleet import Deployment, Fleet, load_fleet
from service.config.settings import Settings

with warnings.catch_warnings():
    # Ray Serve uses what pydantic deprecates.
    warnings.simplefilter("ignore")
    from service.cluster.application import _options, application

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


def test_a_fleet_of_one_deployment_is_the_ingress(settings: Settings, tmp_path: Path) -> None:
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
