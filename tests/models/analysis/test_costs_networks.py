"""The analysis of whole networks: auxiliary heads, and receptive fields that others have computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import get_model
from models.analysis.costs import analyse
from models.networks.variants import VARIANTS


def meta(name: str, **arguments: object) -> nn.Module:
    """A network without memory or arithmetic, for questions of shape."""
    with torch.device("meta"):
        return get_model(name, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "heads", "params"),
    [
        ("googlenet", {"aux1": 12, "aux2": 18}, 13_378_280),
        ("googlenet_bn", {"aux1": 12, "aux2": 18}, 13_004_888),
        ("inception_v3", {"AuxLogits": 40}, 27_161_264),
    ],
)
def test_in_training_mode_the_auxiliary_heads_are_layers(name: str, heads: dict[str, int], params: int) -> None:
    """Each a way of its own from where it branches off, so that the longest way stays the main one."""
    network = meta(name, aux_heads=True)
    serving = analyse(network, VARIANTS[name].input_shape)
    training = analyse(network.train(), VARIANTS[name].input_shape)
    assert (serving.params, training.params) == (VARIANTS[name].params, params)
    assert serving.depth == training.depth
    trunk = {layer.name for layer in serving.layers}
    extra = [layer for layer in training.layers if layer.name not in trunk]
    depths: dict[str, int] = {}
    for layer in extra:
        head = layer.name.split(".")[0]
        depths[head] = max(depths.get(head, 0), layer.depth)
        assert layer.module is None
    assert depths == heads
    assert {layer.name: layer for layer in training.layers if layer.name in trunk} == {
        layer.name: layer for layer in serving.layers
    }


@pytest.mark.parametrize(
    ("name", "last", "pixels"),
    [
        ("alexnet", "pool5", 195),
        ("alexnet", "fc6", 355),
        ("vgg16", "features.30", 212),
        ("inception_v2", "inception5b", 699),
        ("inception_v3", "Mixed_7c", 1311),
    ],
)
def test_receptive_fields_are_those_that_others_have_computed(name: str, last: str, pixels: int) -> None:
    """Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks" (Distill, 2019), for the
    last map of each network; fc6 sees the whole of AlexNet's. Of a module the largest branch counts."""
    analysis = analyse(meta(name), VARIANTS[name].input_shape)
    fields = [layer.receptive_field for layer in analysis.layers if last in (layer.name, layer.module)]
    assert [max(sizes) for sizes in zip(*fields, strict=True)] == [pixels, pixels]
    assert analysis.layers[-1].jump == (32, 32)
