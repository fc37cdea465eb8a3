"""Fleets that run, and fleets that are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.networks.variants import VARIANTS
from service.config.fleet import FleetError, load_fleet


def test_local_hosts_every_variant_in_one_deployment() -> None:
    (deployment,) = load_fleet("local").deployment
    assert deployment.names() == list(VARIANTS)


def test_a_file_is_a_fleet(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[deployment]]\nvariants = ["vgg", "lenet5"]\nthreads = 1\nmax_batch_size = 4\n')
    (deployment,) = load_fleet(str(file)).deployment
    assert deployment.names() == ["vgg16", "lenet5"]
    assert (deployment.threads, deployment.max_batch_size) == (1, 4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "deployment"),
        ("deployment = []", "deployment"),
        ('[[deployment]]\nvariants = ["lenet5"]\nreplica = 2\n', "replica"),
        ('[[deployment]]\nvariants = ["resnet50"]\n', "unknown model 'resnet50'"),
        ('[[deployment]]\nvariants = ["vgg", "vgg16"]\n', "vgg16"),
        ('[[deployment]]\nvariants = ["*"]\n[[deployment]]\nvariants = ["lenet5"]\n', "lenet5"),
        ('[[deployment]]\nvariants = ["lenet5"]\nreplicas = 0\n', "replicas"),
        ('[[deployment]]\nvariants = ["lenet5"]\npinned = ["vgg20"]\n', "vgg20"),
        ("[[deployment]\n", "mine.toml"),
    ],
)
def test_a_fleet_that_cannot_run_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(FleetError, match=reason):
        load_fleet(str(file))


def test_an_unknown_fleet_lists_the_shipped_ones() -> None:
    with pytest.raises(FleetError, match="local"):
        load_fleet("galactic")
