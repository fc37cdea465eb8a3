"""LeNet-5 against its paper: Table I, the trainable subsampling and the squashing function."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.analysis.costs import analyse
from models.networks.lenet import C3_TABLE, LeNet5, ScaledTanh, Subsampling, TableConv2d
from models.networks.variants import VARIANTS
from tests.networks import meta


def test_table_one_has_sixty_connections() -> None:
    assert len(C3_TABLE) == 16
    assert sum(len(row) for row in C3_TABLE) == 60
    assert [len(row) for row in C3_TABLE] == [3] * 6 + [4] * 9 + [6]
    # Each map of S2 feeds ten maps of C3, and no two maps of C3 see the same ones: the paper's break of symmetry.
    assert [sum(column in row for row in C3_TABLE) for column in range(6)] == [10] * 6
    assert len(set(C3_TABLE)) == 16


@pytest.mark.parametrize("column", range(6))
def test_a_map_of_c3_sees_the_maps_of_s2_in_its_row_and_no_others(column: int) -> None:
    layer, maps = LeNet5().c3, torch.randn(1, 6, 14, 14)
    changed = maps.clone()
    changed[:, column] += 1.0
    before, after = layer(maps)[0], layer(changed)[0]
    assert [not torch.equal(before[row], after[row]) for row in range(16)] == [column in row for row in C3_TABLE]


def test_c3_is_a_convolution_without_the_missing_connections() -> None:
    layer, maps = TableConv2d(6, C3_TABLE, 5), torch.randn(2, 6, 14, 14)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    kernels = iter(layer.weight)
    for row, columns in enumerate(C3_TABLE):
        alone = sum(F.conv2d(maps[:, c : c + 1], next(kernels)[None, None]) for c in columns)
        torch.testing.assert_close(layer(maps)[:, row : row + 1], alone + layer.bias[row], rtol=1e-4, atol=1e-4)


def test_the_squashing_function_maps_one_to_one() -> None:
    squash = ScaledTanh()
    assert squash(torch.tensor([1.0, -1.0, 0.0])).tolist() == pytest.approx([1.0, -1.0, 0.0], abs=1e-4)
    assert squash(torch.tensor([100.0])).item() == pytest.approx(1.7159)


def test_subsampling_sums_four_and_applies_its_own_numbers_a_map() -> None:
    layer = Subsampling(2)
    picture = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(1, 2, 1, 1)
    torch.testing.assert_close(layer(picture), F.avg_pool2d(picture, 2))
    with torch.no_grad():
        layer.coefficient.copy_(torch.tensor([2.0, 3.0]).reshape(2, 1, 1))
        layer.bias.copy_(torch.tensor([10.0, 20.0]).reshape(2, 1, 1))
    assert layer(picture)[0, 0].flatten().tolist() == [2.0 * s + 10 for s in (10, 18, 42, 50)]
    assert layer(picture)[0, 1].flatten().tolist() == [3.0 * s + 20 for s in (10, 18, 42, 50)]


def test_every_parameter_learns() -> None:
    network = LeNet5()
    F.cross_entropy(network(torch.randn(8, 1, 32, 32)), torch.arange(8)).backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert {"s2.coefficient", "s2.bias", "s4.coefficient", "s4.bias"} <= set(network.state_dict())


def test_weights_start_within_the_papers_bounds() -> None:
    """Appendix A: uniform within 2.4 / fan-in. A map of C3 has 60 / 16 maps of 25 inputs in the mean."""
    network = LeNet5()
    for layer, inputs in (
        (network.c1, 25), (network.c3, 25 * 3.75), (network.c5, 400), (network.f6, 120), (network.output, 84),
    ):  # fmt: skip
        bound = 2.4 / inputs
        assert bound * 0.9 < layer.weight.abs().max().item() <= bound
        assert layer.bias is not None
        assert not layer.bias.any()


def test_subsampling_starts_as_an_average() -> None:
    picture = torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(LeNet5().s2(picture), F.avg_pool2d(picture, 2))


def test_lenet5_has_the_papers_connections() -> None:
    """Section II-B counts a unit's bias as a connection."""
    layers = {layer.name: layer for layer in analyse(meta("lenet5"), (1, 32, 32)).layers}
    assert {name: layers[name].multiply_adds + prod(layers[name].output) for name in ("c1", "c3", "c5", "f6")} == {
        "c1": 122_304,
        "c3": 151_600,
        "c5": 48_120,
        "f6": 10_164,
    }
    # Biases need no multiplication; S2 and S4 multiply once an output, and the linear output is not the paper's.
    biases, subsampling, output = 4704 + 1600 + 120 + 84, 1176 + 400, 840
    connections = 122_304 + 151_600 + 48_120 + 10_164
    assert VARIANTS["lenet5"].multiply_adds == connections - biases + subsampling + output
