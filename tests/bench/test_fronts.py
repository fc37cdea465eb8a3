"""The fleets with which the numbers of fronts are compared."""

from __future__ import annotations

import tomllib

import pytest
from fronts import name_of, pretending

from service.config.fleet import Deployment, Fleet


@pytest.mark.parametrize("fronts", [1, 2])
def test_a_fleet_has_so_many_fronts_and_a_pretend_device(fronts: int) -> None:
    fleet = tomllib.loads(pretending(fronts).fleet.format(network="googlenet"))
    assert Fleet.model_validate(fleet) == Fleet(
        ray=False, fronts=fronts, deployment=[Deployment(variants=["googlenet"], engine="pretend")]
    )


def test_contenders_have_keys_and_names_of_their_own() -> None:
    assert [pretending(fronts).key for fronts in (1, 2)] == ["fronts-1", "fronts-2"]
    assert [name_of(fronts) for fronts in (1, 2)] == ["1 front", "2 fronts"]
