"""Ensembles as data: their names and what they have in common with a checkpoint."""

from __future__ import annotations

from dataclasses import replace

from models.checkpoints.catalogue import Catalogue
from service.domain.ensemble import LEAST_MEMBERS, MOST_MEMBERS, Ensemble, members_of

CATALOGUE = Catalogue(untrained=True)
VGG, GOOGLENET = CATALOGUE.find("vgg16"), CATALOGUE.find("googlenet")


def test_an_ensemble_is_named_after_its_members_in_the_callers_order() -> None:
    pair = Ensemble((VGG, GOOGLENET))
    assert (pair.model, pair.name) == ("ensemble:vgg16,googlenet", "ensemble:vgg16@untrained,googlenet@untrained")
    assert (pair.labels, pair.state, pair.top1) == ("imagenet1k", "loadable", None)
    assert pair.origin == "average of the probabilities of 2 networks"


def test_an_ensemble_is_trained_if_all_its_members_are() -> None:
    trained = [replace(member, trained=True) for member in (VGG, GOOGLENET)]
    assert Ensemble(tuple(trained)).trained
    assert not Ensemble((trained[0], GOOGLENET)).trained


def test_two_to_eight_members() -> None:
    assert (LEAST_MEMBERS, MOST_MEMBERS) == (2, 8)


def test_a_checkpoint_is_its_own_only_member() -> None:
    assert members_of(VGG) == (VGG,)
    assert members_of(Ensemble((VGG, GOOGLENET))) == (VGG, GOOGLENET)
