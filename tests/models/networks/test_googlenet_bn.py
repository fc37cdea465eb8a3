"""Where GoogLeNet with batch norm differs from the paper. test_parity.py compares it with torchvision's."""

from __future__ import annotations

from tests.networks import convolutions, meta


def test_googlenet_bn_has_3x3_where_the_paper_has_5x5() -> None:
    """torchvision's weights were trained with this mistake; ``googlenet`` is the paper's."""
    kernels = {
        name: {tuple(c.kernel_size) for c in convolutions(meta(name))[1:]} for name in ("googlenet", "googlenet_bn")
    }
    assert kernels == {"googlenet": {(1, 1), (3, 3), (5, 5)}, "googlenet_bn": {(1, 1), (3, 3)}}
