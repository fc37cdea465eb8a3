"""Costs of layers against brute force, and receptive fields against published ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import get_model
from models.analysis.costs import Pair, analyse, parameter_count
from models.networks.layers import ConvBNReLU
from models.networks.variants import VARIANTS
from tests.networks import meta

#: The side of pictures for the brute force: more than three layers of the kernels below see.
SIDE = 80
KERNELS = st.sampled_from([(1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1), (1, 3), (3, 1), (2, 3)])
STRIDES = st.sampled_from([(1, 1), (2, 2), (1, 2), (2, 1)])
ODD = st.sampled_from([(1, 1), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1)])


class Branches(nn.Module):
    """Several branches, concatenated."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def all_ones(network: nn.Module) -> nn.Module:
    """Weights of one and no biases, so that whatever is seen shows. In double, for which no kernel is compiled shape by
    shape."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return network.double().eval()


Ends = tuple[int, int]


def lit(network: nn.Module, axis: int) -> list[Ends]:
    """First and last line of a dark picture that, lit, shows in the middle output, and in the one after it.

    Lines rather than the gradient: a max pool has a gradient in its largest pixel only.
    """
    pictures = torch.eye(SIDE, dtype=torch.float64).reshape(SIDE, 1, SIDE, 1).expand(-1, 1, -1, SIDE)
    with torch.inference_mode():
        maps = network(pictures if axis == 0 else pictures.transpose(2, 3))[:, 0]
    middle = maps[:, :, maps.shape[2] // 2] if axis == 0 else maps[:, maps.shape[1] // 2]
    lines = [middle[:, middle.shape[1] // 2 + step].nonzero().flatten().tolist() for step in (0, 1)]
    return [(found[0], found[-1]) for found in lines]


def differentiated(network: nn.Module, axis: int) -> list[Ends]:
    """The same by the gradient of the output, for networks without max pools."""
    picture = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    maps = network(picture)[0, 0]
    row, column = maps.shape[0] // 2, maps.shape[1] // 2
    ends = []
    for one in (maps[row, column], maps[row + 1, column] if axis == 0 else maps[row, column + 1]):
        (gradient,) = torch.autograd.grad(one, picture, retain_graph=True)
        found = gradient[0, 0].sum(1 - axis).nonzero().flatten().tolist()
        ends.append((found[0], found[-1]))
    return ends


def check_against_brute_force(network: nn.Module, sees: Callable[[nn.Module, int], list[Ends]]) -> None:
    last = analyse(network, (1, SIDE, SIDE)).layers[-1]
    all_ones(network)
    for axis in (0, 1):
        (first, end), (next_first, _) = sees(network, axis)
        assert (end - first + 1, next_first - first) == (last.receptive_field[axis], last.jump[axis])


@st.composite
def stacks(draw: st.DrawFn) -> nn.Sequential:
    """Up to three convolutions and pools on one map, some with a ReLU."""
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = draw(KERNELS), draw(STRIDES)
        # torch refuses pools with more padding than half their window.
        padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
        kind = draw(st.sampled_from(["convolution", "max pool", "avg pool"]))
        if kind == "convolution":
            layers.append(nn.Conv2d(1, 1, kernel, stride, padding))
        elif kind == "max pool":
            layers.append(nn.MaxPool2d(kernel, stride, padding, ceil_mode=draw(st.booleans())))
        else:
            layers.append(nn.AvgPool2d(kernel, stride, padding, ceil_mode=draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


@settings(max_examples=40, deadline=None)
@given(network=stacks())
def test_receptive_field_and_stride_of_a_stack_are_what_a_lit_line_shows(network: nn.Sequential) -> None:
    check_against_brute_force(network, lit)


@st.composite
def branched(draw: st.DrawFn) -> nn.Sequential:
    """Branches around one centre, then a layer that sees them all."""
    stride = draw(STRIDES)
    maps = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    branches = []
    for out in maps:
        first, second = draw(ODD), draw(ODD)
        branches.append(
            nn.Sequential(
                nn.Conv2d(1, 2, first, stride, (first[0] // 2, first[1] // 2)),
                nn.Conv2d(2, out, second, 1, (second[0] // 2, second[1] // 2)),
            )
        )
    return nn.Sequential(nn.AvgPool2d(3, 1, 1), Branches(branches), nn.Conv2d(sum(maps), 2, draw(ODD)))


@settings(max_examples=30, deadline=None)
@given(network=branched())
def test_behind_a_concatenation_the_largest_branch_decides(network: nn.Sequential) -> None:
    check_against_brute_force(network, differentiated)


@settings(max_examples=30, deadline=None)
@given(
    channels=st.lists(st.sampled_from([2, 4, 6]), min_size=2, max_size=4),
    kernel=KERNELS,
    stride=STRIDES,
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
)
def test_totals_are_sums_over_parameters_and_outputs(
    channels: list[int], kernel: Pair, stride: Pair, groups: int, bias: bool
) -> None:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, kernel, stride, groups=groups, bias=bias), nn.BatchNorm2d(after), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 5)).eval()
    picture, outputs = torch.empty(1, channels[0], 64, 64), [channels[0] * 64 * 64]
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.AdaptiveAvgPool2d | nn.Linear):
            layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output.numel()))
    with FlopCounterMode(display=False) as counter:
        network(picture)
    expected = (sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2, sum(outputs))
    analysis = analyse(network, (channels[0], 64, 64))
    assert (analysis.params, analysis.multiply_adds, analysis.activations) == expected
    assert parameter_count(network) == analysis.params
    assert analysis.depth == len(channels)


def test_batch_norm_is_counted_to_its_convolution() -> None:
    (conv,) = analyse(nn.Sequential(ConvBNReLU(3, 8, kernel_size=3)), (3, 16, 16)).layers
    assert (conv.name, conv.kind, conv.params) == ("0.conv", "convolution", 8 * 3 * 9 + 2 * 8)
    assert (conv.activations, conv.output, conv.depth) == (8 * 14 * 14, (8, 14, 14), 1)


class Twice(nn.Module):
    """Applies one layer two times."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.first, self.second = layer, nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.second(self.layer(self.first(x))))  # type: ignore[no-any-return]


def test_a_layer_used_twice_is_refused() -> None:
    for layer in (nn.Conv2d(3, 3, 1), nn.MaxPool2d(1), nn.Dropout()):
        with pytest.raises(ValueError, match=r"^layer is used twice, and a table has one place for it$"):
            analyse(Twice(layer), (3, 8, 8))


def test_a_relu_used_twice_is_not_a_layer() -> None:
    assert [layer.name for layer in analyse(Twice(nn.ReLU()), (3, 8, 8)).layers] == ["first", "second"]


def test_a_batch_norm_used_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        analyse(Twice(nn.BatchNorm2d(3)), (3, 8, 8))


class Residual(nn.Module):
    """Adds its input to itself, which no network here does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


def test_a_layer_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^cannot count a layer of this kind: .*add"):
        analyse(nn.Sequential(Residual()), (3, 8, 8))


def test_a_network_may_concatenate_in_its_own_forward() -> None:
    analysis = analyse(Branches([nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 3, padding=1)]), (3, 8, 8))
    assert [layer.output for layer in analysis.layers] == [(2, 8, 8), (4, 8, 8)]


def test_a_dilated_convolution_sees_what_its_taps_reach() -> None:
    check_against_brute_force(nn.Sequential(nn.Conv2d(1, 1, 3, dilation=2)), differentiated)


def adaptive_window(before: int, after: int) -> Pair:
    (layer,) = analyse(nn.Sequential(nn.AdaptiveAvgPool2d(after)), (1, before, before)).layers
    return layer.kernel


def largest_adaptive_window(before: int, after: int) -> int:
    """By the gradient of each output."""
    line = torch.zeros(1, 1, before, requires_grad=True)
    pooled = nn.functional.adaptive_avg_pool1d(line, after).flatten()
    return max(int(torch.autograd.grad(one, line, retain_graph=True)[0].count_nonzero()) for one in pooled)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *((7, 1), (6, 1), (8, 1), (12, 6), (12, 4), (7, 4), (13, 5)),
        (14, 4),
        (13, 6),
    ],
)
def test_an_adaptive_pool_has_the_window_that_torch_gives_it(before: int, after: int) -> None:
    size = largest_adaptive_window(before, after)
    assert adaptive_window(before, after) == (size, size)


def test_analysis_leaves_mode_weights_and_statistics_as_they_were() -> None:
    network = get_model("inception_v2", num_classes=3).train()
    frozen = network.get_submodule("conv1.bn").eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    first, second = (analyse(network, (3, 224, 224)) for _ in range(2))
    assert first == second
    assert not frozen.training
    assert [module.training for module in network.modules()] == modes
    assert network.state_dict().keys() == before.keys()
    for name, tensor in network.state_dict().items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, before[name]), name
    assert not any(module._forward_hooks for module in network.modules())


def test_counting_leaves_the_network_as_it_was() -> None:
    network = get_model("lenet5").train()
    picture = torch.rand(1, 1, 32, 32)
    before = network(picture)
    # By hand: input, C1, S2, C3, S4, C5, F6, output.
    assert analyse(network, (1, 32, 32)).activations == 1024 + 4704 + 1176 + 1600 + 400 + 120 + 84 + 10
    assert network.training
    assert torch.equal(network(picture), before)


@pytest.mark.parametrize(
    ("name", "heads", "params"),
    [
        ("googlenet", {"aux1": 12, "aux2": 18}, 13_378_280),
        ("googlenet_bn", {"aux1": 12, "aux2": 18}, 13_004_888),
        ("inception_v3", {"AuxLogits": 40}, 27_161_264),
    ],
)
def test_in_training_mode_the_auxiliary_heads_are_layers(name: str, heads: dict[str, int], params: int) -> None:
    """Each head is a path of its own, and the longest path stays the main one."""
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
