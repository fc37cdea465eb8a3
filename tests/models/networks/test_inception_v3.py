"""Inception v3 against table 1 and figures 6 and 7 of its paper."""

from __future__ import annotations

from models.analysis.costs import analyse
from tests.networks import meta, top_shapes


def test_inception_v3_has_the_sizes_of_table_one_with_torchvisions_stem() -> None:
    found = top_shapes(meta("inception_v3"), 299)
    sides = [shape[-1] for name, shape in found.items() if name not in ("avgpool", "dropout", "fc")]
    assert sides == [149, 147, 147, 73, 73, 71, 35, *[35] * 3, *[17] * 5, *[8] * 3]
    assert list(dict.fromkeys(sides)) == [149, 147, 73, 71, 35, 17, 8]
    channels = {name: shape[0] for name, shape in found.items() if name.startswith("Mixed")}
    assert list(channels.values()) == [256, 288, 288, 768, 768, 768, 768, 768, 1280, 2048, 2048]


def test_inception_v3_factorises_its_kernels() -> None:
    """1x7 and 7x1 on 17x17 (figure 6), 1x3 and 3x1 side by side on 8x8 (figure 7)."""
    layers = analyse(meta("inception_v3"), (3, 299, 299)).layers
    kernels = {
        side: {layer.kernel for layer in layers if layer.kind == "convolution" and layer.output[1:] == (side, side)}
        for side in (35, 17, 8)
    }
    assert {(1, 7), (7, 1)} <= kernels[17]
    assert {(1, 3), (3, 1)} <= kernels[8]
    assert not any((7, 7) in found for found in kernels.values())
