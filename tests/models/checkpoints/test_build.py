"""Networks with the weights of files and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models import get_model
from models.checkpoints.build import build_checkpoint, check_weights
from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError, WrongWeightsError
from models.install.import_ import write_checkpoint
from tests.cards import BOX, checkpoint


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test, since ``"default"`` would mean the machine's."""
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(network: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = network.state_dict()
    return set(own) == set(state) and all(torch.equal(own[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("weights", ["default", str(BOX), BOX], ids=["default", "str", "Path"])
def test_weights_come_from_the_box_or_a_path(weights: str | Path) -> None:
    network = get_model("lenet5", weights=weights)
    assert same(network, load_file(BOX))
    assert not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_default_is_what_the_catalogue_finds(empty_cache: Path) -> None:
    own = get_model("lenet5")
    described = checkpoint("lenet5", "mnist")
    write_checkpoint(Catalogue(empty_cache).path_for(described.variant, "mnist"), own, described)
    assert same(get_model("lenet5", weights="default"), own.state_dict())


def test_default_without_weights_says_how_to_get_them() -> None:
    with pytest.raises(WeightsMissingError, match="topfive pull vgg16"):
        get_model("vgg", weights="default")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        get_model("lenet5", weights=tmp_path / "nothing.pth")


def test_the_number_of_classes_comes_from_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "seven.safetensors"
    save_file(get_model("lenet5", num_classes=7).state_dict(), path)
    assert get_model("lenet5", weights=path)(torch.zeros(1, 1, 32, 32)).shape == (1, 7)
    assert get_model("lenet5", weights=path, num_classes=7)(torch.zeros(1, 1, 32, 32)).shape == (1, 7)
    with pytest.raises(WrongWeightsError, match="has 7 classes; num_classes=10 was asked for"):
        get_model("lenet5", weights=path, num_classes=10)


def test_untrained_weights_are_the_same_in_every_build_and_leave_the_random_state_alone(tmp_path: Path) -> None:
    untrained = Catalogue(tmp_path, untrained=True).find("lenet5")
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    first = build_checkpoint(untrained)
    assert torch.equal(torch.rand(3), expected)
    assert same(build_checkpoint(untrained), first.state_dict())
    assert not first.training
    assert not same(first, load_file(BOX))


def test_a_checkpoint_without_weights_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match="vgg16@imagenet1k"):
        build_checkpoint(Catalogue(tmp_path).find("vgg16"))


def test_a_loadable_checkpoint_is_built() -> None:
    assert same(build_checkpoint(Catalogue().find("lenet5")), load_file(BOX))


def test_auxiliary_heads_are_read_from_a_file_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "heads.pth"
    with_heads = get_model("googlenet", num_classes=3, aux_heads=True)
    torch.save(with_heads.state_dict(), path)
    assert same(get_model("googlenet", weights=path, aux_heads=True), with_heads.state_dict())
    without = {name: tensor for name, tensor in with_heads.state_dict().items() if not name.startswith("aux")}
    assert same(get_model("googlenet", weights=path), without)
    torch.save(without, path)
    with pytest.raises(WrongWeightsError, match=r"aux1\.conv\.conv\.weight is missing"):
        get_model("googlenet", weights=path, aux_heads=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "weights.pth"
    state = {name: tensor.to(dtype) for name, tensor in get_model("lenet5").state_dict().items()}
    torch.save(state, path)
    network = get_model("lenet5", weights=path)
    assert same(network, {name: tensor.float() for name, tensor in state.items()})
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_files_without_batch_norms_counters_load(tmp_path: Path) -> None:
    """Some public checkpoints are older than torch 0.4.1, which began to write them."""
    path = tmp_path / "old.pth"
    network = get_model("googlenet_bn", num_classes=3)
    torch.save({name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}, path)
    assert same(get_model("googlenet_bn", weights=path), network.state_dict())


def test_the_headers_of_the_weights_in_the_box_fit_their_networks(tmp_path: Path) -> None:
    for row in Catalogue(tmp_path).checkpoints():
        if row.state == "loadable":
            check_weights(row)
        else:
            with pytest.raises(WeightsMissingError):
                check_weights(row)


def test_wrong_weights_are_found_by_their_header(tmp_path: Path) -> None:
    lenet = Catalogue(tmp_path).find("lenet5")
    assert lenet.path is not None
    path = tmp_path / "wrong.safetensors"
    wrong = replace(lenet, path=path)
    with pytest.raises(FileNotFoundError):
        check_weights(wrong)
    whole = lenet.path.read_bytes()
    for data, says in (
        (whole.replace(b"output.weight", b"output.weigth"), r"output\.weight is missing"),
        (whole[:-1], "not a complete safetensors file"),
        (b"", "not a complete safetensors file"),
    ):
        path.write_bytes(data)
        with pytest.raises(WrongWeightsError, match=says):
            check_weights(wrong)
    state = load_file(lenet.path)
    for name, tensor, says in (
        ("f6.bias", torch.zeros(85), r"f6\.bias is \(85,\)"),
        ("f6.bias", torch.zeros(84, dtype=torch.int64), r"f6\.bias holds torch.int64"),
        ("f7.bias", torch.zeros(1), r"f7\.bias is not part"),
    ):
        save_file({**state, name: tensor}, path)
        with pytest.raises(WrongWeightsError, match=says):
            check_weights(wrong)


@pytest.mark.parametrize("check", [check_weights, build_checkpoint])
def test_arguments_that_the_network_does_not_take_are_wrong_weights(check: Callable[[Checkpoint], object]) -> None:
    lenet = replace(Catalogue().find("lenet5"), network={"pool_first": True})
    with pytest.raises(WrongWeightsError, match="lenet5 cannot be built as its card asks"):
        check(lenet)


def test_an_unreadable_file_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors itself calls it missing."""
    lenet = Catalogue().find("lenet5")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(PermissionError):
        build_checkpoint(lenet)
    with pytest.raises(PermissionError):
        check_weights(lenet)


def test_a_file_with_other_classes_than_its_card_says_is_refused(tmp_path: Path) -> None:
    """Its answers would be labels of other things."""
    wrong = replace(Catalogue(tmp_path).find("lenet5"), labels="imagenet1k")
    for check in (check_weights, build_checkpoint):
        with pytest.raises(WrongWeightsError, match="has 10 classes, imagenet1k has 1,000"):
            check(wrong)
