"""Fleet files that are read, and those that are refused with the reason."""

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


def test_the_name_of_a_deployment_is_that_of_its_variants(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[ingress]\n[[deployment]]\nvariants = ["vgg", "lenet5"]\nmax_queue_mb = 1.5\n')
    (deployment,) = load_fleet(str(file)).deployment
    assert deployment.name == "vgg16+lenet5"
    assert load_fleet("local").deployment[0].name == "all"
    assert deployment.max_queue_bytes == 1_500_000


def test_a_variant_may_be_pinned_by_an_alias_where_it_is_hosted(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[deployment]]\nvariants = ["*"]\npinned = ["vgg", "lenet5"]\n')
    assert load_fleet(str(file)).deployment[0].pinned == ["vgg", "lenet5"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "deployment"),
        ("deployment = []", "deployment"),
        ('[[deployment]]\nvariants = ["lenet5"]\nreplica = 2\n', "replica"),
        ('[[deployment]]\nvariants = ["resnet50"]\n', "unknown model 'resnet50'"),
        ('[[deployment]]\nvariants = ["vgg", "vgg16"]\n', "vgg16 is hosted twice"),
        (
            '[ingress]\n[[deployment]]\nvariants = ["*"]\n[[deployment]]\nvariants = ["lenet5"]\n',
            "lenet5 is hosted twice",
        ),
        ('[[deployment]]\nvariants = ["vgg16"]\n[[deployment]]\nvariants = ["lenet5"]\n', r"need an \[ingress\] table"),
        ('[[deployment]]\nvariants = ["lenet5"]\npinned = ["vgg"]\n', "vgg is pinned where it is not hosted"),
        (
            '[[deployment]]\nvariants = ["lenet5"]\nmax_queue_mb = 0\n',
            r"deployment\.0\.max_queue_mb: Input should be greater",
        ),
        ('[[deployment]]\nvariants = ["lenet5"]\nengine = "tpu"\n', r"deployment\.0\.engine"),
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
