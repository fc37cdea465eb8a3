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
        ('ray = false\n[ingress]\n[[deployment]]\nvariants = ["vgg"]\n', r"an \[ingress\] table needs Ray Serve"),
        ('fronts = 1\n[ingress]\n[[deployment]]\nvariants = ["vgg"]\n', r"fleet with an \[ingress\] table has ingress"),
        ('fronts = "auto"\n[ingress]\n[[deployment]]\nvariants = ["vgg"]\n', r"\[ingress\] table has ingress replicas"),
        ('fronts = -1\n[[deployment]]\nvariants = ["vgg"]\n', 'fronts: a number of processes, 0 or more, or "auto"$'),
        ('fronts = 1.5\n[[deployment]]\nvariants = ["vgg"]\n', 'fronts: a number of processes, 0 or more, or "auto"$'),
        ('fronts = true\n[[deployment]]\nvariants = ["vgg"]\n', 'fronts: a number of processes, 0 or more, or "auto"$'),
        (
            'fronts = "all"\n[[deployment]]\nvariants = ["vgg"]\n',
            'fronts: a number of processes, 0 or more, or "auto"$',
        ),
        ('ray = "no"\n[[deployment]]\nvariants = ["vgg"]\n', "ray: Input should be a valid boolean$"),
        ('ray = 0\n[[deployment]]\nvariants = ["vgg"]\n', "ray: Input should be a valid boolean$"),
        (
            'ray = false\nfronts = 0\n[[deployment]]\nvariants = ["vgg"]\nreplicas = 2\n',
            "without Ray and with fronts = 0 there is one process: leave replicas out",
        ),
    ],
)
def test_a_fleet_that_cannot_run_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(FleetError, match=reason) as caught:
        load_fleet(str(file))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "ray", "fronts"),
    [
        ("", True, None),
        ("fronts = 0", True, 0),
        ("fronts = 3", True, 3),
        ('fronts = "auto"', True, "auto"),
        ("ray = false", False, None),
        ("ray = false\nfronts = 2", False, 2),
    ],
)
def test_fronts_stand_before_one_deployment_with_and_without_ray(
    tmp_path: Path, text: str, ray: bool, fronts: object
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'{text}\n[[deployment]]\nvariants = ["lenet5"]\nreplicas = 2\n')
    found = load_fleet(str(file))
    assert (found.ray, found.fronts) == (ray, fronts)


def test_solo_is_local_without_ray() -> None:
    solo, local = load_fleet("solo"), load_fleet("local")
    assert (solo.ray, local.ray) == (False, True)
    assert solo.deployment == local.deployment
    assert solo.fronts == "auto"


def test_an_unknown_fleet_lists_the_shipped_ones() -> None:
    with pytest.raises(FleetError, match="shipped: cluster-cpu, local, solo;"):
        load_fleet("galactic")
