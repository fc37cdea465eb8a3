"""Networks on the meta device, and facts of all of them."""

from __future__ import annotations

import torch
from torch import nn

from models import get_model
from models.networks.variants import VARIANTS, Variant

PARAMETERS = {
    "lenet5": 60_850,
    "alexnet": 60_965_224,
    "zfnet": 62_357_608,
    "zfnet512": 87_250_536,
    "nin": 7_595_176,
    "alexnet_owt": 61_100_840,
    "vgg11": 132_863_336,
    "vgg11_lrn": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16_c": 133_638_952,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 6_998_552,
    "googlenet_bn": 6_624_904,
    "inception_v2": 11_194_984,
    "inception_v3": 23_834_568,
}


#: Parameters with the auxiliary heads.
PARAMETERS_WITH_HEADS = {"googlenet": 13_378_280, "googlenet_bn": 13_004_888, "inception_v3": 27_161_264}


ALIASES = {
    "alexnet_2012": "alexnet",
    "vgg": "vgg16",
    "vgg_a": "vgg11",
    "vgg_a_lrn": "vgg11_lrn",
    "vgg_b": "vgg13",
    "vgg_c": "vgg16_c",
    "vgg_d": "vgg16",
    "vgg_e": "vgg19",
    "inception_v1": "googlenet",
    "bn_inception": "inception_v2",
}


def meta(name: str, **arguments: object) -> nn.Module:
    """A network without memory or arithmetic, for questions of shape."""
    with torch.device("meta"):
        return get_model(name, **arguments)  # type: ignore[arg-type]


def variants() -> list[Variant]:
    return list(VARIANTS.values())


def top_shapes(network: nn.Module, side: int) -> dict[str, tuple[int, ...]]:
    """The output of every layer at the top, in the order of running, for one picture."""
    found: dict[str, tuple[int, ...]] = {}
    for name, layer in network.named_children():
        layer.register_forward_hook(lambda _l, _i, output, name=name: found.update({name: tuple(output.shape[1:])}))
    network(torch.empty(1, 3, side, side, device="meta"))
    return found


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
