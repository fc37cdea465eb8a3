"""The layer table against the papers' own tables."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn

from models import get_model
from models.analysis.costs import Analysis, analyse
from models.analysis.layer_table import Row, columns, layer_rows
from models.networks.googlenet import TABLE_1
from models.networks.inception_v2 import FIGURE_5
from models.networks.variants import VARIANTS

GOOGLENET = ["#1x1", "#3x3 reduce", "#3x3", "#5x5 reduce", "#5x5", "pool proj"]
BN_INCEPTION = ["#1x1", "#3x3 reduce", "#3x3", "double #3x3 reduce", "double #3x3", "pool proj"]
HEADS = [name for name, variant in VARIANTS.items() if variant.has_aux_heads]


@cache
def analysed(name: str, *, training: bool = False) -> Analysis:
    with torch.device("meta"):
        network = get_model(name, aux_heads=training)
    return analyse(network.train(training), VARIANTS[name].input_shape)


def rows_of(name: str) -> dict[str, Row]:
    return {row.name: row for row in layer_rows(analysed(name))}


@pytest.mark.parametrize(
    ("name", "training"), [*((name, False) for name in VARIANTS), *((name, True) for name in HEADS)]
)
def test_rows_cover_every_layer_once(name: str, training: bool) -> None:
    analysis = analysed(name, training=training)
    rows = layer_rows(analysis)
    channels, height, width = analysis.input_shape
    assert sum(row.params for row in rows) == analysis.params
    assert sum(row.multiply_adds for row in rows) == analysis.multiply_adds
    assert channels * height * width + sum(row.activations for row in rows) == analysis.activations
    assert len({row.name for row in rows}) == len(rows)
    # Every inception module is one row.
    modules = dict.fromkeys(layer.module for layer in analysis.layers if layer.module)
    assert [row.name for row in rows if row.type == "inception"] == list(modules)


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_are_in_order_and_end_in_the_logits(name: str) -> None:
    analysis = analysed(name)
    rows = layer_rows(analysis)
    assert sum(row.depth for row in rows) == analysis.depth
    last = analysis.layers[-1]
    assert (rows[-1].output, rows[-1].receptive_field, rows[-1].jump) == (
        last.output,
        last.receptive_field,
        last.jump,
    )
    for above, below in pairwise(rows):
        assert below.receptive_field >= above.receptive_field
        assert below.jump >= above.jump


def test_the_columns_of_googlenet_are_table_one() -> None:
    rows = rows_of("googlenet")
    assert columns(list(rows.values())) == GOOGLENET
    for module, (_, *sizes) in TABLE_1.items():
        row = rows[f"inception{module}"]
        assert row.columns == dict(zip(GOOGLENET, map(str, sizes), strict=True))
        assert (row.type, row.patch, row.depth) == ("inception", "", 2)
        assert row.branches[-1] == f"max pool 3x3, 1x1 {sizes[-1]}"


def test_the_columns_of_inception_v2_are_figure_five() -> None:
    """Where there are two kinds of pool, the paper names it; a module of stride 2 has no 1x1 and passes its pool on."""
    rows = rows_of("inception_v2")
    assert columns(list(rows.values())) == BN_INCEPTION
    for module, (_, *sizes) in FIGURE_5.items():
        row = rows[f"inception{module}"]
        expected = dict(zip(BN_INCEPTION, map(str, sizes), strict=True))
        if sizes[0]:
            expected["pool proj"] = f"{'max' if module == '5b' else 'avg'} + {sizes[-1]}"
        else:
            del expected["#1x1"]
            expected["pool proj"] = "max + pass through"
        assert row.columns == expected, module
        assert (row.patch, row.depth) == ("" if sizes[0] else "/2", 3)


@pytest.mark.parametrize("name", ["googlenet", "inception_v2"])
def test_conv2_and_its_reduction_are_one_row_of_depth_two(name: str) -> None:
    conv2 = rows_of(name)["conv2"]
    assert (conv2.type, conv2.patch, conv2.depth) == ("convolution", "3x3/1", 2)
    assert conv2.columns == {"#3x3 reduce": "64", "#3x3": "192"}
    assert conv2.branches == ("1x1 64, 3x3 192",)
    assert "conv2_reduce" not in rows_of(name)


def test_the_two_3x3_branches_of_googlenet_bn_are_described_in_words() -> None:
    rows = rows_of("googlenet_bn")
    assert columns(list(rows.values())) == []
    for module, (_, ch1x1, reduce3, ch3x3, reduce5, ch5x5, pool) in TABLE_1.items():
        row = rows[f"inception{module}"]
        assert row.columns == {}
        assert row.branches == (
            f"1x1 {ch1x1}",
            f"1x1 {reduce3}, 3x3 {ch3x3}",
            f"1x1 {reduce5}, 3x3 {ch5x5}",
            f"max pool 3x3, 1x1 {pool}",
        )


def test_inception_v3_is_described_in_words_in_the_order_of_its_concatenation() -> None:
    rows = rows_of("inception_v3")
    assert columns(list(rows.values())) == []
    assert rows["Mixed_5b"].branches == (
        "1x1 64",
        "1x1 48, 5x5 64",
        "1x1 64, 3x3 96, 3x3 96",
        "avg pool 3x3, 1x1 32",
    )
    assert rows["Mixed_6a"].branches == ("3x3/2 384", "1x1 64, 3x3 96, 3x3/2 96", "max pool 3x3/2")
    assert rows["Mixed_6b"].branches == (
        "1x1 192",
        "1x1 128, 1x7 128, 7x1 192",
        "1x1 128, 7x1 128, 1x7 128, 7x1 128, 1x7 192",
        "avg pool 3x3, 1x1 192",
    )
    # Two paths begin with one 1x1; they are side by side.
    assert rows["Mixed_7c"].branches == (
        "1x1 320",
        "1x1 384, 1x3 384",
        "1x1 384, 3x1 384",
        "1x1 448, 3x3 384, 1x3 384",
        "1x1 448, 3x3 384, 3x1 384",
        "avg pool 3x3, 1x1 192",
    )
    assert (rows["Mixed_7c"].depth, rows["Mixed_7c"].output) == (3, (2048, 8, 8))
    assert [rows[f"Mixed_{name}"].patch for name in ("5b", "6a", "6b", "7a", "7b")] == ["", "/2", "", "/2", ""]


def test_1x1_layers_of_network_in_network_are_rows_of_their_own() -> None:
    """They are no reductions, but layers of the perceptron after a convolution."""
    rows = rows_of("nin")
    convolutions = [row for row in rows.values() if row.type == "convolution"]
    assert [row.name for row in convolutions] == [f"mlpconv{block}.{i}" for block in range(1, 5) for i in range(3)]
    assert [row.patch for row in convolutions if not row.name.endswith(".0")] == ["1x1/1"] * 8
    assert {row.depth for row in convolutions} == {1}
    assert not any(row.branches for row in rows.values())


def test_1x1_convolutions_of_vgg_c_are_rows_of_their_own() -> None:
    convolutions = [row.patch for row in rows_of("vgg16_c").values() if row.type == "convolution"]
    assert (convolutions.count("3x3/1"), convolutions.count("1x1/1")) == (10, 3)


@pytest.mark.parametrize("name", ["lenet5", "alexnet", "vgg16"])
def test_networks_without_branches_have_no_columns(name: str) -> None:
    rows = layer_rows(analysed(name))
    assert columns(rows) == []
    assert not any(row.branches or row.columns for row in rows)
    assert len(rows) == len(analysed(name).layers)


class Shared(nn.Module):
    """One 1x1 convolution that feeds one 3x3 convolution or two."""

    def __init__(self, users: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.users = nn.ModuleList(nn.Conv2d(4, 5, 3) for _ in range(users))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return torch.cat([user(x) for user in self.users], 1)


@pytest.mark.parametrize(("users", "rows"), [(1, ["users.0"]), (2, ["first", "users.0", "users.1"])])
def test_a_1x1_layer_is_a_reduction_if_it_feeds_one_larger_layer(users: int, rows: list[str]) -> None:
    table = layer_rows(analyse(Shared(users), (3, 8, 8)))
    assert [row.name for row in table] == rows
    assert sum(row.params for row in table) == 3 * 4 + 4 + users * (4 * 5 * 9 + 5)
