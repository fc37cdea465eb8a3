"""Lookup of what ``model=`` names: checkpoints, and ensembles with the label set that their members share."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError
from models.networks.variants import UnknownModelError
from service.domain.ensemble import Ensemble, members_of
from service.domain.errors import BadParameterError
from service.routing.lookup import find, find_ensemble
from tests.cards import checkpoint, put

UNTRAINED = Catalogue(untrained=True)
PAIR = Ensemble((UNTRAINED.find("googlenet"), UNTRAINED.find("inception_v2")))


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """ImageNet's weights for AlexNet and GoogLeNet, CIFAR-10's for GoogLeNet and BN-Inception; LeNet-5's in the box."""
    for variant, labels in (
        ("alexnet", "imagenet1k"),
        ("googlenet", "imagenet1k"),
        ("googlenet", "cifar10"),
        ("inception_v2", "cifar10"),
    ):
        put(tmp_path, variant, labels)
    return Catalogue(tmp_path)


@pytest.mark.parametrize(
    ("model", "labels", "name"),
    [
        ("alexnet,googlenet", None, "ensemble:alexnet@imagenet1k,googlenet@imagenet1k"),
        ("googlenet,inception_v2", None, "ensemble:googlenet@cifar10,inception_v2@cifar10"),
        ("bn_inception,inception_v1", None, "ensemble:inception_v2@cifar10,googlenet@cifar10"),
        ("googlenet,alexnet@imagenet1k", None, "ensemble:googlenet@imagenet1k,alexnet@imagenet1k"),
        ("googlenet@cifar10,inception_v2", None, "ensemble:googlenet@cifar10,inception_v2@cifar10"),
        ("googlenet,inception_v2@cifar10", "cifar10", "ensemble:googlenet@cifar10,inception_v2@cifar10"),
    ],
)
def test_the_label_set_is_the_stated_one_or_the_first_for_which_all_have_weights(
    catalogue: Catalogue, model: str, labels: str | None, name: str
) -> None:
    found = find_ensemble(catalogue, f"ensemble:{model}", labels)
    assert found.name == name
    assert found.model == ",".join(part.partition("@")[0] for part in name.split(","))
    assert found.labels == name.rpartition("@")[2]
    assert (found.trained, found.top1, found.state) == (True, None, "loadable")


def test_untrained_networks_make_an_ensemble() -> None:
    for name in ("ensemble:googlenet,vgg16", "ensemble:googlenet@untrained,vgg16"):
        found = find_ensemble(UNTRAINED, name)
        assert (found.name, found.labels) == ("ensemble:googlenet@untrained,vgg16@untrained", "imagenet1k")
        assert not found.trained
    with pytest.raises(BadParameterError, match="googlenet has imagenet1k; lenet5 has mnist"):
        find_ensemble(UNTRAINED, "ensemble:googlenet,lenet5")


@pytest.mark.parametrize(
    ("model", "labels", "error", "says"),
    [
        ("googlenet", None, BadParameterError, "2 to 8"),
        ("", None, BadParameterError, "2 to 8"),
        ("googlenet,", None, BadParameterError, "2 to 8"),
        (",".join(["googlenet"] * 9), None, BadParameterError, "2 to 8"),
        ("googlenet,alexnet,inception_v1", None, BadParameterError, "googlenet is named 2 times"),
        ("googlenet@cifar10,googlenet@imagenet1k", None, BadParameterError, "googlenet is named 2 times"),
        ("googlenet@cifar10,alexnet@imagenet1k", None, BadParameterError, "cifar10 and imagenet1k"),
        ("googlenet,lenet5", None, BadParameterError, "googlenet has imagenet1k and cifar10; lenet5 has mnist"),
        ("googlenet@cifar10,alexnet", None, BadParameterError, "share no label set"),
        ("googlenet,nobody", None, UnknownModelError, "'nobody'"),
        ("googlenet,ensemble:alexnet", None, UnknownModelError, "'ensemble:alexnet'"),
        ("googlenet, alexnet", None, UnknownModelError, "' alexnet'"),
        ("googlenet,alexnet@mnist", None, UnknownModelError, "alexnet@mnist"),
        ("googlenet,alexnet", "mnist", UnknownModelError, "googlenet@mnist"),
        ("googlenet,alexnet@imagenet1k", "cifar10", UnknownModelError, "labels=cifar10"),
        ("googlenet,vgg16", None, WeightsMissingError, "topfive pull vgg16"),
        ("inception_v2,vgg16", "imagenet1k", WeightsMissingError, "inception_v2@imagenet1k"),
        ("vgg16,vgg19,inception_v3", None, WeightsMissingError, "vgg16@imagenet1k"),
    ],
)
def test_a_wrong_ensemble_says_what_is_wrong(
    catalogue: Catalogue, model: str, labels: str | None, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as raised:
        find(catalogue, f"ensemble:{model}", labels)
    assert says in str(raised.value)


class _Rows(Catalogue):
    """A catalogue of these checkpoints alone."""

    def __init__(self, cache: Path, *rows: Checkpoint) -> None:
        super().__init__(cache)
        self._given = list(rows)

    def _read(self) -> list[Checkpoint]:
        return self._given


def test_where_no_label_set_is_complete_the_error_is_that_of_the_most_complete(tmp_path: Path) -> None:
    here = tmp_path / "weights"
    rows = [checkpoint(name, "imagenet1k") for name in ("googlenet", "inception_v2")]
    rows += [checkpoint("googlenet", "cifar10", path=here), checkpoint("inception_v2", "cifar10")]
    with pytest.raises(WeightsMissingError, match="inception_v2@cifar10"):
        find(_Rows(tmp_path, *rows), "ensemble:googlenet,inception_v2")


def test_a_single_checkpoint_is_found(catalogue: Catalogue) -> None:
    found = find(catalogue, "googlenet")
    assert isinstance(found, Checkpoint)
    assert members_of(found) == (found,)
    with pytest.raises(WeightsMissingError):
        find(catalogue, "vgg16")


def test_a_label_set_whose_members_can_be_served_is_preferred(tmp_path: Path) -> None:
    here = tmp_path / "weights"
    names, sets = ("googlenet", "inception_v2"), ("imagenet1k", "cifar10")
    rows = [checkpoint(name, labels, path=here) for name in names for labels in sets]
    model = "ensemble:googlenet,inception_v2"
    assert find(_Rows(tmp_path, *rows), model, serves=lambda _row: True).labels == "imagenet1k"
    assert find(_Rows(tmp_path, *rows), model, serves=lambda row: row.labels == "cifar10").labels == "cifar10"
