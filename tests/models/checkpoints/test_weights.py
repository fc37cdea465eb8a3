"""State dicts from weight files. install/test_import_refused.py has those that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models import get_model
from models.checkpoints.catalogue import WrongWeightsError, card
from models.checkpoints.manifest import manifest
from models.checkpoints.weights import check_fit, read_outline, read_weights
from models.networks.variants import VARIANTS
from tests.cards import BOX, checkpoint

LENET = VARIANTS["lenet5"]


def test_the_box_is_read_with_its_card() -> None:
    read = read_weights(LENET, BOX)
    expected = load_file(BOX)
    assert set(read.state) == set(expected)
    assert all(torch.equal(read.state[name], tensor.float()) for name, tensor in expected.items())
    assert (read.num_classes, read.network, read.known) == (10, {}, None)


def test_the_networks_arguments_come_from_the_card(tmp_path: Path) -> None:
    path, lrn = tmp_path / "a.safetensors", {"size": 3, "alpha": 0.5, "beta": 0.5, "k": 2.0}
    state = {"fc8.bias": torch.zeros(10)}
    save_file(state, path, card(checkpoint("alexnet", "cifar10", network={"lrn": lrn})))
    read = read_weights(VARIANTS["alexnet"], path)
    assert (read.num_classes, read.network) == (10, {"lrn": lrn})


def test_a_public_file_has_its_row_of_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = next(row for row in manifest() if row.variant == "vgg16")
    monkeypatch.setattr("models.checkpoints.weights.known_file", lambda variant, path: row)
    torch.save(get_model("lenet5").state_dict(), tmp_path / "a.pth")
    assert read_weights(LENET, tmp_path / "a.pth").known is row


def test_an_outline_has_the_shapes_and_types_and_no_numbers() -> None:
    outline, read = read_outline(LENET, BOX), read_weights(LENET, BOX)
    assert outline.num_classes == 10
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in outline.state.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in read.state.items()
    }
    assert all(tensor.is_meta for tensor in outline.state.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_every_width_are_outlined_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"output.bias": torch.zeros(10, dtype=dtype), "count": torch.tensor(3)}, path)
    state = read_outline(LENET, path).state
    assert (state["output.bias"].dtype, state["count"].dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize(("value", "refused"), [(0.0, False), (-1e-30, True)])
def test_a_variance_may_be_zero_and_not_less(tmp_path: Path, value: float, refused: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save({"output.bias": torch.zeros(10), "bn.running_var": torch.tensor([1.0, value])}, path)
    if refused:
        with pytest.raises(WrongWeightsError, match=r"bn\.running_var has variances below zero"):
            read_weights(LENET, path)
    else:
        assert read_weights(LENET, path).num_classes == 10


def test_the_last_layers_bias_has_a_number_a_class(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"output.bias": torch.zeros(3)}, path)
    assert read_weights(LENET, path).num_classes == 3
    torch.save({"output.bias": torch.zeros(3, 1)}, path)
    with pytest.raises(WrongWeightsError, match=r"output\.bias is missing"):
        read_weights(LENET, path)


def test_all_differences_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = network.state_dict()
    check_fit(tmp_path, "it", network, state)
    cases = [
        ({"0.bias": None}, "0.bias is missing"),
        ({"2.bias": torch.zeros(1)}, "2.bias is not part of it"),
        ({"0.bias": torch.zeros(4)}, r"0.bias is \(4,\) where \(3,\) is expected"),
        ({"0.bias": torch.zeros(3).half()}, r"0.bias holds torch.float16 where torch.float32 is expected"),
        ({"0.bias": None, "2.bias": torch.zeros(1)}, r"0.bias is missing \(and 1 more differences\)"),
        ({"0.bias": torch.zeros(4).half(), "0.weight": None}, r"0.weight is missing \(and 2 more differences\)"),
    ]
    for change, says in cases:
        merged = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
        with pytest.raises(WrongWeightsError, match=f"does not fit it: {says}$"):
            check_fit(tmp_path, "it", network, merged)
