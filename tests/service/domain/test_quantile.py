"""Quantiles, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.quantile import quantile

SECONDS = st.floats(1e-5, 1e3)


@given(st.lists(SECONDS, min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], q: float) -> None:
    assert quantile(values, q) == pytest.approx(np.percentile(values, 100 * q), rel=1e-6)
