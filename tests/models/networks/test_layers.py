"""Layers that several papers share."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.networks.layers import LocalResponseNorm, LRNConstants


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 9),
    alpha=st.floats(1e-5, 2.0),
    beta=st.floats(0.25, 1.5),
    k=st.floats(0.5, 3.0),
    channels=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_local_response_normalisation_is_torchs(
    size: int, alpha: float, beta: float, k: float, channels: int, seed: int
) -> None:
    x = torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(seed)) * 10
    ours = LocalResponseNorm(LRNConstants(size, alpha, beta, k))(x)
    torch.testing.assert_close(ours, nn.LocalResponseNorm(size, alpha, beta, k)(x), rtol=1e-5, atol=1e-6)
