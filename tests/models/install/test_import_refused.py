"""Refused weight files: one line says why; nothing is run, stored, replaced or left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models import get_model
from models.checkpoints.catalogue import Catalogue, WrongWeightsError, card
from models.install.import_ import import_file, write_checkpoint
from models.networks.variants import find_variant
from tests.cards import checkpoint

NOISE = np.random.default_rng(0).bytes(4000)
LENET = find_variant("lenet5")
State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    return get_model("lenet5").state_dict()


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "cache")


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def changed(**tensors: torch.Tensor | None) -> Callable[[State], object]:
    """A state dict with these tensors in it; None takes one away."""

    def change(state: State) -> State:
        merged = {**state, **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}
        return {name: tensor for name, tensor in merged.items() if tensor is not None}

    return change


#: The content of a pickle, and a part of the error.
BAD_PICKLES: dict[str, tuple[Callable[[State], object], str]] = {
    "a missing tensor": (changed(f6__bias=None), "f6.bias is missing"),
    "no last layer": (changed(output__bias=None), "output.bias is missing"),
    "an extra tensor": (changed(f7__bias=torch.zeros(3)), "f7.bias is not part of it"),
    "an extra tensor named like a head": (changed(aux1__bias=torch.zeros(3)), "aux1.bias is not part of it"),
    "a wrong shape": (changed(f6__bias=torch.zeros(85)), "f6.bias is (85,) where (84,) is expected"),
    "NaN": (changed(f6__bias=torch.full((84,), torch.nan)), "f6.bias has values that are not finite"),
    "infinity": (changed(c1__bias=torch.tensor([1, 2, 3, 4, 5, -torch.inf])), "c1.bias has values that are not"),
    "too large for float32": (changed(f6__bias=torch.full((84,), 1e300, dtype=torch.float64)), "not finite"),
    "whole numbers": (changed(f6__bias=torch.zeros(84, dtype=torch.int64)), "f6.bias holds torch.int64"),
    "complex numbers": (changed(f6__bias=torch.zeros(84, dtype=torch.complex64)), "f6.bias holds torch.complex64"),
    "a tensor without values": (changed(f6__bias=torch.zeros(84, device="meta")), "is not a state dict"),
    "a number for a name": (lambda state: dict([*state.items(), (5, torch.zeros(3))]), "is not a state dict"),
    "a list": (lambda state: list(state.values()), "is not a state dict"),
    "a state dict in a dict": (lambda state: {"state_dict": state}, "is not a state dict"),
    "a single tensor": (lambda state: state["f6.bias"], "is not a state dict"),
    "nothing": (lambda state: {}, "output.bias is missing"),
    "a whole module": (lambda state: get_model("lenet5"), "not a complete torch file of plain weights"),
    "another network": (lambda state: {"classifier.6.bias": torch.zeros(1000)}, "output.bias is missing"),
    "seven classes": (lambda state: get_model("lenet5", num_classes=7).state_dict(), "the file has 7 classes"),
}


def refuse(catalogue: Catalogue, path: Path, **options: Any) -> str:
    """Imports over a good checkpoint, which must stay as it is. Returns the error, which is one line."""
    target = catalogue.path_for(LENET, "mnist")
    write_checkpoint(target, get_model("lenet5", weights=None), checkpoint("lenet5", "mnist"))
    before = target.read_bytes()
    with pytest.raises(WrongWeightsError) as caught:
        import_file(LENET, path, catalogue, **options)
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", BAD_PICKLES)
def test_a_bad_pickle_is_refused(catalogue: Catalogue, state: State, tmp_path: Path, name: str) -> None:
    build, expected = BAD_PICKLES[name]
    path = tmp_path / "mine.pth"
    torch.save(build(state), path)
    assert expected in refuse(catalogue, path)


@pytest.mark.parametrize("name", [
    "a missing tensor", "no last layer", "an extra tensor", "a wrong shape", "NaN", "whole numbers", "another network",
])  # fmt: skip
def test_bad_safetensors_are_refused(catalogue: Catalogue, state: State, tmp_path: Path, name: str) -> None:
    build, expected = BAD_PICKLES[name]
    path = tmp_path / "mine.safetensors"
    bad = build(state)
    assert isinstance(bad, dict)
    save_file(bad, path)
    assert expected in refuse(catalogue, path)


# torch warns that checking sparse tensors is slow, and warnings are errors in tests.
@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
def test_sparse_tensors_are_refused(catalogue: Catalogue, state: State, tmp_path: Path) -> None:
    torch.save({**state, "f6.bias": torch.zeros(84).to_sparse()}, tmp_path / "mine.pth")
    assert "is not a state dict" in refuse(catalogue, tmp_path / "mine.pth")


def test_code_in_a_pickle_does_not_run(catalogue: Catalogue, state: State, tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "mine.pth"
    torch.save({**state, "f6.bias": Attack(proof)}, path)
    assert "not a complete torch file of plain weights" in refuse(catalogue, path)
    assert not proof.exists()
    # The attack is a real one.
    torch.load(path, weights_only=False)
    assert proof.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".onnx"])
@pytest.mark.parametrize("data", [b"", b"\0", b"\x80\x02", b"PK\x03\x04", b"<html>", NOISE], ids=lambda data: len(data))
def test_random_bytes_are_refused(catalogue: Catalogue, tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(data)
    assert f"{path} is not a complete " in refuse(catalogue, path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_truncated_files_are_refused(
    catalogue: Catalogue, state: State, tmp_path: Path, suffix: str, share: float
) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path, card(checkpoint("lenet5", "mnist")))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert f"{path} is not a complete " in refuse(catalogue, path)


def test_another_networks_file_is_named(catalogue: Catalogue, state: State, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(state, path, card(checkpoint("googlenet", "imagenet1k")))
    assert f"{path} holds googlenet@imagenet1k, not lenet5" in refuse(catalogue, path)
    lenet = tmp_path / "lenet.pth"
    torch.save(state, lenet)
    with pytest.raises(WrongWeightsError, match=r"does not fit vgg16: classifier\.6\.bias is missing"):
        import_file(find_variant("vgg16"), lenet, catalogue)


def test_the_first_of_many_differences_is_named_and_the_others_counted(
    catalogue: Catalogue, state: State, tmp_path: Path
) -> None:
    torch.save({"output.bias": state["output.bias"]}, tmp_path / "mine.pth")
    text = refuse(catalogue, tmp_path / "mine.pth")
    assert f"c1.weight is missing (and {len(state) - 2} more differences)" in text


@pytest.mark.parametrize("name", ["mine.bin", "mine", "mine.h5", "mine.pth.tar", "pth"])
def test_unknown_suffixes_are_refused(catalogue: Catalogue, state: State, tmp_path: Path, name: str) -> None:
    torch.save(state, tmp_path / name)
    assert "is not a .safetensors, .pth or .onnx file" in refuse(catalogue, tmp_path / name)


def test_label_sets_must_exist_and_fit(catalogue: Catalogue, state: State, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    text = refuse(catalogue, path, label_set="emnist")
    assert text == "unknown label set 'emnist'; known: imagenet1k, cifar10, mnist"
    assert refuse(catalogue, path, label_set="imagenet1k") == "the file has 10 classes, imagenet1k has 1000"
    torch.save(get_model("lenet5", num_classes=1000).state_dict(), path)
    assert refuse(catalogue, path) == "the file has 1000 classes, mnist has 10; say which with --labels"


def test_a_missing_file_and_a_folder_are_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            import_file(LENET, path, catalogue)
    assert not catalogue.cache_dir.exists()


@pytest.mark.parametrize(("field", "value"), [("top1", "99"), ("top1", 1e9), ("origin", 5), ("more", 1)])
def test_a_file_with_a_bad_card_is_refused(
    catalogue: Catalogue, state: State, tmp_path: Path, field: str, value: object
) -> None:
    fields = json.loads(card(checkpoint("lenet5", "mnist"))["topfive"]) | {field: value}
    path = tmp_path / "theirs.safetensors"
    save_file(state, path, {"topfive": json.dumps(fields)})
    told = refuse(catalogue, path)
    assert told.startswith(f"{path}: its card is wrong: {field}: ")


def test_an_unprintable_file_name_makes_a_valid_card(catalogue: Catalogue, state: State, tmp_path: Path) -> None:
    path = tmp_path / "mine\nred\x1b[31m.pth"
    torch.save(state, path)
    stored = import_file(LENET, path, catalogue)
    assert stored.path is not None
    assert catalogue.find("lenet5").origin == "imported from mine?red?[31m.pth"
    assert catalogue.find("lenet5") == stored
