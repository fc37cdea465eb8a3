"""Analytic memory: what a batch takes, and which batch fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.networks.memory import ELEMENT, Costs, Dtype, Purpose
from models.networks.variants import VARIANTS

DTYPES = st.sampled_from(sorted(ELEMENT))
PURPOSES = st.sampled_from(["inference", "training"])
COSTS = st.builds(Costs, params=st.integers(0, 2_000), activations=st.integers(10, 2_000), multiply_adds=st.just(0))


@given(costs=COSTS, limit=st.integers(0, 30_000), dtype=DTYPES, purpose=PURPOSES)
def test_the_largest_batch_is_the_last_that_fits(costs: Costs, limit: int, dtype: Dtype, purpose: Purpose) -> None:
    batch = 0
    while costs.bytes(batch + 1, dtype, purpose) <= limit:
        batch += 1
    assert costs.largest_batch(limit, dtype, purpose) == batch


@given(costs=COSTS, batch=st.integers(0, 500), dtype=DTYPES, purpose=PURPOSES)
def test_a_limit_that_a_batch_fills_holds_just_that_batch(
    costs: Costs, batch: int, dtype: Dtype, purpose: Purpose
) -> None:
    full = costs.bytes(batch, dtype, purpose)
    assert costs.largest_batch(full, dtype, purpose) == batch
    assert costs.largest_batch(full - 1, dtype, purpose) == max(0, batch - 1)


@given(costs=COSTS, batch=st.integers(1, 500), more=st.integers(1, 500), dtype=DTYPES, purpose=PURPOSES)
def test_bytes_grow_with_the_batch_the_precision_and_training(
    costs: Costs, batch: int, more: int, dtype: Dtype, purpose: Purpose
) -> None:
    assert costs.bytes(batch, dtype, purpose) < costs.bytes(batch + more, dtype, purpose)
    assert 2 * costs.bytes(batch, "float16", purpose) == costs.bytes(batch, "float32", purpose)
    inference, training = (costs.bytes(batch, dtype, each) for each in ("inference", "training"))
    assert 2 * inference <= training <= 3 * inference


@given(costs=COSTS, limit=st.integers(0, 30_000), more=st.integers(0, 30_000), dtype=DTYPES, purpose=PURPOSES)
def test_more_memory_never_holds_less(costs: Costs, limit: int, more: int, dtype: Dtype, purpose: Purpose) -> None:
    assert costs.largest_batch(limit, dtype, purpose) <= costs.largest_batch(limit + more, dtype, purpose)


@pytest.mark.parametrize("limit", [-1, 0, 1, 4 * 1_000 - 1, 4 * 1_000, 4 * 1_010 - 1])
def test_nothing_fits_where_the_parameters_alone_do_not_or_no_picture_beside_them(limit: int) -> None:
    costs = Costs(params=1_000, activations=10, multiply_adds=0)
    assert costs.largest_batch(limit) == 0
    assert costs.largest_batch(4 * 1_010) == 1


def test_training_keeps_gradients_and_momentum() -> None:
    costs = Costs(params=100, activations=10, multiply_adds=0)
    assert costs.bytes(3) == 4 * (100 + 3 * 10)
    assert costs.bytes(3, purpose="training") == 4 * (3 * 100 + 2 * 3 * 10)
    assert costs.bytes(3, "float16", "training") == 2 * (3 * 100 + 2 * 3 * 10)


def test_vgg16_needs_the_600_megabytes_a_picture_that_it_is_known_for() -> None:
    assert VARIANTS["vgg16"].costs.analytic_bytes / 2**20 == pytest.approx(585.9, abs=0.05)
    assert VARIANTS["vgg16"].costs.analytic_bytes / 10**6 == pytest.approx(614.4, abs=0.05)
