"""Batch buckets: which sizes there are, and which of them a batch is run in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
