"""VGG against table 1 of its paper."""

from __future__ import annotations

from torch import nn

from models.analysis.costs import analyse
from models.networks.layers import LRN_PAPER, LocalResponseNorm
from tests.networks import convolutions, meta

#: Table 1 of VGG's paper, as kernel x maps.
STAGES_C = [
    *("3x64", "3x64", "3x128", "3x128", "3x256", "3x256", "1x256"),
    *("3x512", "3x512", "1x512", "3x512", "3x512", "1x512"),
]


def test_vgg_c_is_vgg_d_with_three_1x1_convolutions() -> None:
    c, d = ([f"{k.kernel_size[0]}x{k.out_channels}" for k in convolutions(meta(name))] for name in ("vgg_c", "vgg_d"))
    assert c == STAGES_C
    assert sum(kernel.startswith("1x") for kernel in c) == 3
    assert d == [kernel.replace("1x", "3x", 1) if kernel.startswith("1x") else kernel for kernel in STAGES_C]
    # 1x1 layers pad nothing, or the maps would grow.
    pools = [layer for layer in analyse(meta("vgg16_c"), (3, 224, 224)).layers if layer.kind == "max pool"]
    assert [pool.output[1] for pool in pools] == [112, 56, 28, 14, 7]


def test_only_vgg_a_lrn_normalises_once_after_its_first_convolution_as_alexnet_does() -> None:
    with_lrn = list(meta("vgg11_lrn").get_submodule("features").children())
    without = list(meta("vgg11").get_submodule("features").children())
    norms = [layer for layer in with_lrn if isinstance(layer, LocalResponseNorm)]
    assert [norm.constants for norm in norms] == [LRN_PAPER]
    assert [type(layer) for layer in with_lrn[:4]] == [nn.Conv2d, nn.ReLU, LocalResponseNorm, nn.MaxPool2d]
    with_lrn.remove(norms[0])
    assert [repr(layer) for layer in with_lrn] == [repr(layer) for layer in without]
    for name in ("vgg13", "vgg16_c", "vgg16", "vgg19"):
        assert not any(isinstance(layer, LocalResponseNorm) for layer in meta(name).modules())
