"""GoogLeNet against Table 1 of its paper, its auxiliary heads, and the geometry of the zoo's graph."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models import get_model
from models.networks.googlenet import GoogLeNet, HeadPool, googlenet

#: Row of Table 1 -> output (channels, side) and thousands (1024) of weights. The counts are of the printed
#: configuration: the printed counts do not all follow from it (2.7 K for conv1, which is 7 x 7 x 3 x 64).
TABLE_1: dict[str, tuple[tuple[int, int], float]] = {
    "conv1": ((64, 112), 9.2),
    "conv2": ((192, 56), 112.0),
    "inception3a": ((256, 28), 159.5),
    "inception3b": ((480, 28), 379.5),
    "inception4a": ((512, 14), 366.75),
    "inception4b": ((512, 14), 438.5),
    "inception4c": ((512, 14), 497.5),
    "inception4d": ((528, 14), 590.5),
    "inception4e": ((832, 14), 847.0),
    "inception5a": ((832, 7), 1018.0),
    "inception5b": ((1024, 7), 1409.5),
}


def sides(network: GoogLeNet) -> dict[str, tuple[int, ...]]:
    """Output shapes of the top layers for one picture, on the meta device."""
    found: dict[str, tuple[int, ...]] = {}
    for name, layer in network.named_children():
        layer.register_forward_hook(lambda _l, _i, output, name=name: found.update({name: tuple(output.shape)}))
    network(torch.empty(1, 3, 224, 224, device="meta"))
    return found


def on_meta(*, as_graph: bool = False) -> GoogLeNet:
    with torch.device("meta"):
        return googlenet(as_graph=as_graph)


@pytest.mark.parametrize("row", TABLE_1)
def test_rows_have_the_sizes_and_weights_of_table_one(row: str) -> None:
    network = on_meta()
    (channels, side), thousands = TABLE_1[row]
    assert sides(network)[row] == (1, channels, side, side)
    parts = ("conv2_reduce", "conv2") if row == "conv2" else (row,)
    weights = sum(p.numel() for part in parts for p in network.get_submodule(part).parameters() if p.ndim == 4)
    assert weights / 1024 == pytest.approx(thousands, abs=0.5)


@pytest.mark.parametrize(("as_graph", "expected"), [(False, [56, 28, 14, 7]), (True, [55, 27, 13, 6])])
def test_pools_round_up_and_in_the_zoos_graph_down(as_graph: bool, expected: list[int]) -> None:
    found = sides(on_meta(as_graph=as_graph))
    assert [found[f"pool{i}"][-1] for i in range(1, 5)] == expected
    assert found["avgpool"] == (1, 1024, 1, 1)


def test_both_geometries_have_the_same_parameters_and_other_answers() -> None:
    ours = get_model("googlenet")
    theirs = get_model("googlenet", as_graph=True)
    theirs.load_state_dict(ours.state_dict())
    picture = torch.randn(1, 3, 224, 224) * 50
    with torch.inference_mode():
        a, b = ours(picture), theirs(picture)
    assert not torch.allclose(a, b, rtol=1e-2)


@pytest.fixture(scope="module")
def heads() -> tuple[GoogLeNet, tuple[torch.Tensor, ...]]:
    """A network in training mode and its three outputs."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = googlenet(num_classes=5, aux_heads=True).train()
        return network, network(torch.randn(1, 3, 224, 224))


def test_training_gives_three_outputs(heads: tuple[GoogLeNet, tuple[torch.Tensor, ...]]) -> None:
    assert [tuple(logits.shape) for logits in heads[1]] == [(1, 5)] * 3


@pytest.mark.parametrize(
    ("head", "reached", "untouched"),
    [
        (0, "inception5b", "aux1"),
        (1, "aux1", "inception4b"),
        (2, "aux2", "inception4e"),
    ],
)
def test_gradient_flows_from_each_head_to_the_first_layer(
    heads: tuple[GoogLeNet, tuple[torch.Tensor, ...]], head: int, reached: str, untouched: str
) -> None:
    """The first auxiliary head is attached to 4a, the second to 4d."""
    network, outputs = heads
    network.zero_grad(set_to_none=True)
    outputs[head].square().sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]

    def has_gradient(part: str) -> bool:
        gradients = [p.grad for p in network.get_submodule(part).parameters()]
        return any(g is not None and bool(g.abs().max() > 0) for g in gradients)

    assert has_gradient("conv1")
    assert has_gradient("inception4a")
    assert has_gradient(reached)
    assert not has_gradient(untouched)


def test_heads_run_in_training_only() -> None:
    with torch.device("meta"):
        with_heads, without = googlenet(aux_heads=True).eval(), googlenet().train()
        picture = torch.empty(1, 3, 224, 224)
        assert with_heads(picture).shape == (1, 1000)
        assert without(picture).shape == (1, 1000)


@pytest.mark.parametrize("side", [14, 15, 16])
def test_the_heads_pool_is_the_papers_where_the_paper_has_it(side: int) -> None:
    maps = torch.randn(2, 5, side, side)
    expected = F.avg_pool2d(maps, kernel_size=5, stride=3)
    assert torch.equal(HeadPool()(maps), expected)
    assert side == 16 or not torch.allclose(F.adaptive_avg_pool2d(maps, 4), expected)


@pytest.mark.parametrize("side", [3, 4, 8, 13, 17, 20])
def test_the_heads_pool_maps_of_other_sizes_to_four_by_four(side: int) -> None:
    maps = torch.randn(2, 5, side, side)
    assert torch.equal(HeadPool()(maps), F.adaptive_avg_pool2d(maps, 4))
    if side == 4:
        assert torch.equal(HeadPool()(maps), maps)


def test_the_last_pool_is_the_papers_at_its_own_size() -> None:
    maps = torch.randn(2, 1024, 7, 7)
    expected = F.avg_pool2d(maps, kernel_size=7)
    torch.testing.assert_close(on_meta().avgpool(maps), expected, rtol=0, atol=1e-6)


def test_heads_take_pictures_of_64_pixels() -> None:
    with torch.device("meta"):
        outputs = googlenet(10, aux_heads=True).train()(torch.empty(2, 3, 64, 64))
    assert [tuple(logits.shape) for logits in outputs] == [(2, 10)] * 3
