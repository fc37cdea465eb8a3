"""All networks: outputs, auxiliary heads and their gradients, and fresh weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import get_model
from models.analysis.costs import parameter_count
from models.networks.variants import VARIANTS, Variant
from models.training.loss import classification_loss
from tests.networks import PARAMETERS, PARAMETERS_WITH_HEADS, meta, variants


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.name)
def test_any_batch_size_gives_a_row_of_logits_a_picture(variant: Variant) -> None:
    network = meta(variant.name, num_classes=13)
    assert not network.training
    for batch in (1, 3, 7):
        assert network(torch.empty(batch, *variant.input_shape, device="meta")).shape == (batch, 13)


def test_a_picture_gets_the_same_logits_alone_and_in_a_batch() -> None:
    network, pictures = get_model("lenet5").double(), torch.rand(7, 1, 32, 32, dtype=torch.float64)
    whole = network(pictures)
    for i in range(7):
        torch.testing.assert_close(network(pictures[i : i + 1])[0], whole[i], rtol=1e-9, atol=1e-15)
    assert not torch.allclose(whole[0], whole[1], rtol=1e-3, atol=0)


def is_head(name: str) -> bool:
    return name.lower().startswith("aux")


def test_auxiliary_heads_have_the_papers_size() -> None:
    assert {variant.name for variant in variants() if variant.has_aux_heads} == set(PARAMETERS_WITH_HEADS)
    for name, params in PARAMETERS_WITH_HEADS.items():
        network = meta(name, aux_heads=True)
        assert parameter_count(network) == params
        heads = sum(p.numel() for parameter, p in network.named_parameters() if is_head(parameter))
        assert params - heads == PARAMETERS[name]


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.name)
def test_a_network_that_serves_has_no_heads_and_returns_logits_alone(variant: Variant) -> None:
    """Without heads in both modes, and with heads in eval mode."""
    pictures = torch.empty(2, *variant.input_shape, device="meta")
    network = meta(variant.name, num_classes=13)
    assert not any(is_head(name) for name in network.state_dict())
    serving = [network] if not variant.has_aux_heads else [network, meta(variant.name, num_classes=13, aux_heads=True)]
    for one in serving:
        logits = one(pictures)
        assert type(logits) is torch.Tensor
        assert logits.shape == (2, 13)
    assert type(network.train()(pictures)) is torch.Tensor


class Taught(NamedTuple):
    """A network in training mode, its outputs for three pictures, and their classes."""

    name: str
    network: nn.Module
    outputs: tuple[torch.Tensor, ...]
    classes: torch.Tensor

    def losses(self) -> list[torch.Tensor]:
        return [F.cross_entropy(logits, self.classes) for logits in self.outputs]

    def gradients(self, loss: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """The gradient of every parameter, by name; None if the loss does not reach it."""
        names, parameters = zip(*self.network.named_parameters(), strict=True)
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return dict(zip(names, found, strict=True))


#: The head, and the module whose output it sees: sections 5 of GoogLeNet's paper and 4 of Inception v3's.
BRANCHES = {
    "googlenet": {"aux1": "inception4a", "aux2": "inception4d"},
    "googlenet_bn": {"aux1": "inception4a", "aux2": "inception4d"},
    "inception_v3": {"AuxLogits": "Mixed_6e"},
}


@pytest.fixture(scope="module", params=BRANCHES)
def taught(request: pytest.FixtureRequest) -> Iterator[Taught]:
    """One forward for all tests of a network's gradients. Three pictures, since of two values that batch norm brings to
    -1 and 1 hardly any gradient is left."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = get_model(request.param, num_classes=7, aux_heads=True).train()
        outputs = network(torch.randn(3, *VARIANTS[request.param].input_shape))
        yield Taught(request.param, network, outputs, torch.tensor([0, 3, 6]))


def teaches(gradient: torch.Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())


def test_every_parameter_learns_from_the_losses_together(taught: Taught) -> None:
    """Weighted as in GoogLeNet's paper, section 5: 0.3 for each head."""
    branches = BRANCHES[taught.name]
    assert [tuple(logits.shape) for logits in taught.outputs] == [(3, 7)] * (1 + len(branches))
    loss = classification_loss(taught.outputs, taught.classes)
    main, *heads = taught.losses()
    torch.testing.assert_close(loss, main + 0.3 * sum(heads))
    assert torch.equal(classification_loss(taught.outputs[0], taught.classes), main)
    for name, gradient in taught.gradients(loss).items():
        assert teaches(gradient), name


def test_a_heads_own_loss_reaches_what_lies_before_it_and_nothing_else(taught: Taught) -> None:
    branches = BRANCHES[taught.name]
    trunk = [name for name, _ in taught.network.named_children() if not is_head(name)]
    for loss, (head, branch) in zip(taught.losses()[1:], branches.items(), strict=True):
        before = {head, *trunk[: trunk.index(branch) + 1]}
        for name, gradient in taught.gradients(loss).items():
            if name.split(".")[0] in before:
                assert teaches(gradient), name
            else:
                assert gradient is None, name


def test_the_main_loss_does_not_reach_the_heads(taught: Taught) -> None:
    for name, gradient in taught.gradients(taught.losses()[0]).items():
        assert (gradient is None) == is_head(name), name


#: A layer of each network -> the standard deviation of its fresh weights.
FRESH = {
    # Krizhevsky et al., section 5.
    ("alexnet", "conv2"): 0.01,
    ("alexnet", "fc7"): 0.01,
    ("alexnet_owt", "features.3"): 0.01,
    ("zfnet", "conv2"): 0.01,
    # Glorot's: sqrt(2 / (inputs + outputs)), of 3x3 from 96 maps to 128, and of 1024 units to 1000.
    ("googlenet", "inception3a.branch2.1.conv"): (2 / (9 * (96 + 128))) ** 0.5,
    ("googlenet", "fc"): (2 / 2024) ** 0.5,
    # He's: sqrt(2 / (kernel * outputs)), and 0.01 for linear layers.
    ("nin", "mlpconv2.0.conv"): (2 / (25 * 256)) ** 0.5,
    ("googlenet_bn", "inception3a.branch2.1.conv"): (2 / (9 * 128)) ** 0.5,
    ("googlenet_bn", "fc"): 0.01,
    ("vgg11", "features.3"): (2 / (9 * 128)) ** 0.5,
    ("inception_v2", "conv2.conv"): (2 / (9 * 192)) ** 0.5,
    ("inception_v3", "Mixed_5b.branch5x5_2.conv"): (2 / (25 * 64)) ** 0.5,
}


@pytest.fixture(scope="module")
def fresh() -> Callable[[str], nn.Module]:
    """Builds a network with fresh weights, once for all tests."""

    @cache
    def build(name: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            return get_model(name)

    return build


@pytest.mark.parametrize(("name", "layer"), FRESH, ids=" ".join)
def test_fresh_weights_have_the_spread_of_their_scheme(
    fresh: Callable[[str], nn.Module], name: str, layer: str
) -> None:
    weight = fresh(name).get_parameter(f"{layer}.weight")
    assert weight.std().item() == pytest.approx(FRESH[name, layer], rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=0.02 * FRESH[name, layer])
