"""Networks that take torchvision's weights give torchvision's logits, for any state dict."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from models import get_model
from models.networks.variants import VARIANTS

#: Ours -> torchvision's.
THEIRS = {
    "alexnet_owt": "alexnet",
    "vgg11": "vgg11",
    "vgg13": "vgg13",
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    "googlenet_bn": "googlenet",
    "inception_v3": "inception_v3",
}
WITH_HEADS = ("googlenet_bn", "inception_v3")


def published(name: str) -> dict[str, Any]:
    """The facts that torchvision publishes with its first weights for ImageNet."""
    meta: dict[str, Any] = torchvision.models.get_model_weights(THEIRS[name])["IMAGENET1K_V1"].meta
    return meta


def torchvisions(name: str, **arguments: Any) -> nn.Module:
    """torchvision's network in eval mode, with auxiliary heads where it has any, and random weights from a fixed seed.

    No layer may drown the signal or add nothing to it, running statistics included: a wrong kernel, eps, order or pool
    has to show in the logits.
    """
    if name in WITH_HEADS:
        arguments["aux_logits"] = True
    if name != "alexnet_owt":
        arguments["init_weights"] = False
    # On the meta device no weights are drawn.
    with torch.device("meta"):
        network: nn.Module = getattr(torchvision.models, THEIRS[name])(**arguments)
    network.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(2014)
    for key, tensor in network.state_dict().items():
        if key.endswith("num_batches_tracked"):
            tensor.zero_()
        elif key.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.1, 0.1, generator=generator)
        else:
            nn.init.kaiming_uniform_(tensor, generator=generator)
    return network


def with_weights_of(theirs: nn.Module, name: str, **arguments: Any) -> nn.Module:
    """Our network with the tensors of theirs, not copies, which saves half the memory."""
    with torch.device("meta"):
        ours = get_model(name, **arguments)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return ours


def pictures(name: str, batch: int) -> torch.Tensor:
    return torch.randn(batch, *VARIANTS[name].input_shape, generator=torch.Generator().manual_seed(batch))


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Checks that logits differ by a small part of their spread at most."""
    assert ours.shape == theirs.shape
    spread = theirs.std().item()
    assert spread > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * spread)


@pytest.mark.parametrize("name", THEIRS)
def test_torchvisions_state_dict_gives_torchvisions_logits(name: str) -> None:
    theirs = torchvisions(name)
    ours = with_weights_of(theirs, name, aux_heads=name in WITH_HEADS)
    with torch.inference_mode():
        x = pictures(name, 2)
        expected = theirs(x)
        assert_same(ours(x), expected)
        assert_same(ours(x[:1]), expected[:1])
    # The pictures matter; else a network that passes only its last biases on would pass too.
    assert (expected[0] - expected[1]).abs().max() > 1000 * 1e-5 * expected.std()


@pytest.mark.parametrize("name", THEIRS)
def test_dropout_is_torchvisions(name: str) -> None:
    """Neither state dicts nor logits show it."""

    def rates(network: nn.Module) -> list[float]:
        return sorted(layer.p for layer in network.modules() if isinstance(layer, nn.Dropout))

    arguments: dict[str, Any] = {"aux_logits": True} if name in WITH_HEADS else {}
    if name != "alexnet_owt":
        arguments["init_weights"] = False
    with torch.device("meta"):
        theirs = getattr(torchvision.models, THEIRS[name])(**arguments)
        assert rates(get_model(name, aux_heads=name in WITH_HEADS)) == rates(theirs)


@pytest.mark.parametrize("name", WITH_HEADS)
def test_a_pth_of_torchvisions_with_heads_loads_with_and_without_them(name: str, tmp_path: Path) -> None:
    theirs, path, x = torchvisions(name, num_classes=5), tmp_path / "theirs.pth", pictures(name, 2)
    state = theirs.state_dict()
    assert any(key.lower().startswith("aux") for key in state)
    torch.save(state, path)
    with torch.inference_mode():
        expected = theirs(x)
        assert (expected[0] - expected[1]).abs().max() > 1000 * 1e-5 * expected.std()
        for aux_heads in (False, True):
            ours = get_model(name, weights=path, aux_heads=aux_heads)
            assert not ours.training
            kept = {key: tensor for key, tensor in state.items() if aux_heads or not key.lower().startswith("aux")}
            own = ours.state_dict()
            assert set(own) == set(kept)
            assert all(torch.equal(own[key], tensor) for key, tensor in kept.items())
            assert_same(ours(x), expected)
    path.unlink()


@pytest.mark.parametrize("name", WITH_HEADS)
def test_in_training_mode_the_heads_are_torchvisions_in_order_of_depth(name: str) -> None:
    theirs = torchvisions(name, num_classes=7)
    ours = with_weights_of(copy.deepcopy(theirs), name, num_classes=7, aux_heads=True)
    for network in (ours.train(), theirs.train()):
        for layer in network.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
    with torch.no_grad():
        x = pictures(name, 3)
        found, named = ours(x), theirs(x)
    # torchvision's tuple has the deeper head first.
    expected = (
        (named.logits, named.aux_logits1, named.aux_logits2)
        if name == "googlenet_bn"
        else (named.logits, named.aux_logits)
    )
    assert type(found) is tuple
    assert len(found) == len(expected)
    for logits, wanted in zip(found, expected, strict=True):
        assert_same(logits, wanted)
        assert (wanted[0] - wanted[1]).abs().max() > 1000 * 1e-5 * wanted.std()
        others = [other for other in expected if other is not wanted]
        assert all((wanted - other).abs().max() > 1000 * 1e-5 * wanted.std() for other in others)
    # The running statistics of batch norm are the same after the batch.
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", THEIRS)
def test_the_table_has_torchvisions_numbers(name: str) -> None:
    variant, theirs = VARIANTS[name], published(name)
    assert variant.published == (theirs["_metrics"]["ImageNet-1K"]["acc@1"], theirs["_metrics"]["ImageNet-1K"]["acc@5"])
    # torchvision counts Inception v3's auxiliary head, and not GoogLeNet's two, which its weights lack.
    with torch.device("meta"):
        ours = get_model(name, aux_heads=name == "inception_v3")
    assert sum(parameter.numel() for parameter in ours.parameters()) == theirs["num_params"]
    if name != "inception_v3":
        assert variant.params == theirs["num_params"]
    assert variant.multiply_adds / 1e9 == pytest.approx(theirs["_ops"], abs=0.0005)


def test_no_other_variant_claims_torchvisions_numbers() -> None:
    claims = {name for name, variant in VARIANTS.items() if variant.published_source.startswith("torchvision")}
    assert claims == set(THEIRS)
