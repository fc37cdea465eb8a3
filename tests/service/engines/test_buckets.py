"""Batch buckets: which sizes there are, which of them a batch runs in, and how they shrink."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import OutOfDeviceMemoryError
from service.engines.buckets import Buckets, powers_up_to


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (12, (1, 2, 4, 8, 12)), (16, (1, 2, 4, 8, 16))]
)
def test_buckets_are_powers_of_two_and_the_largest(largest: int, sizes: tuple[int, ...]) -> None:
    assert powers_up_to(largest) == sizes


@given(st.integers(1, 300), st.data())
def test_a_bucket_is_less_than_twice_its_pictures(largest: int, data: st.DataObject) -> None:
    pictures = data.draw(st.integers(1, largest))
    bucket = Buckets(largest).holding(pictures)
    assert pictures <= bucket < 2 * pictures or bucket == pictures == 1


@pytest.mark.parametrize(("largest", "sizes"), [(16, (1, 2, 4, 8)), (12, (1, 2, 4, 6)), (3, (1,)), (2, (1,))])
def test_halving_lowers_the_largest_bucket_for_good(largest: int, sizes: tuple[int, ...]) -> None:
    buckets, before = Buckets(largest), Buckets.halvings
    buckets.halve(largest)
    assert (buckets.sizes, buckets.largest, buckets.out_of_memory) == (sizes, sizes[-1], 1)
    assert Buckets.halvings == before + 1


def test_a_single_picture_cannot_be_halved() -> None:
    buckets, before = Buckets(1), Buckets.halvings
    with pytest.raises(OutOfDeviceMemoryError, match="a single picture does not fit"):
        buckets.halve(1)
    assert (buckets.sizes, buckets.out_of_memory, Buckets.halvings) == ((1,), 1, before)
