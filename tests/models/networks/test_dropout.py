"""The dropouts of all networks: where they stand, and their rates, as the papers have them."""

from __future__ import annotations

import pytest

from models.analysis.costs import analyse
from models.networks.variants import VARIANTS
from tests.networks import meta

#: The dropouts of each network: the layer before, the rate, the layer after.
DROPOUTS: dict[str, list[tuple[str, float, str]]] = {
    "lenet5": [],
    # Krizhevsky et al., section 4.2: "the first two fully-connected layers", 0.5.
    "alexnet": [("fc6", 0.5, "fc7"), ("fc7", 0.5, "fc8")],
    # Zeiler and Fergus, section 3.1: layers 6 and 7, 0.5.
    "zfnet": [("fc6", 0.5, "fc7"), ("fc7", 0.5, "fc8")],
    "zfnet512": [("fc6", 0.5, "fc7"), ("fc7", 0.5, "fc8")],
    # Lin, Chen and Yan, section 4.1, between mlpconv layers; before the last one in the authors' ImageNet network.
    "nin": [("pool3", 0.5, "mlpconv4.0.conv")],
    "alexnet_owt": [("features.12", 0.5, "classifier.1"), ("classifier.1", 0.5, "classifier.4")],
    # Simonyan and Zisserman, section 3.1: "the first two fully-connected layers", 0.5.
    "vgg16": [("classifier.0", 0.5, "classifier.3"), ("classifier.3", 0.5, "classifier.6")],
    # Szegedy et al. 2014, table 1, 40 %; section 5, 70 % in the heads.
    "googlenet": [("avgpool", 0.4, "fc"), ("aux1.fc1", 0.7, "aux1.fc2"), ("aux2.fc1", 0.7, "aux2.fc2")],
    # torchvision's.
    "googlenet_bn": [("avgpool", 0.2, "fc"), ("aux1.fc1", 0.7, "aux1.fc2"), ("aux2.fc1", 0.7, "aux2.fc2")],
    # Ioffe and Szegedy, section 4.2.1: "Remove Dropout".
    "inception_v2": [],
    "inception_v3": [("avgpool", 0.5, "fc")],
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_stands_where_the_paper_has_it(name: str) -> None:
    network = meta(name, aux_heads=VARIANTS[name].has_aux_heads).train()
    layers = analyse(network, VARIANTS[name].input_shape).layers
    users = {source: layer.name for layer in layers for source in layer.sources}
    found = [
        (layer.sources[0], network.get_submodule(layer.name).p, users[layer.name])
        for layer in layers
        if layer.kind == "dropout"
    ]
    assert found == DROPOUTS[name]
