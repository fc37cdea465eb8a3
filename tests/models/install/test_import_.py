"""``topfive import`` stores a file whole or not at all, and keeps its card."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import get_model
from models.analysis.description import counted
from models.checkpoints.catalogue import Catalogue, WrongWeightsError, card, read_card
from models.checkpoints.weights import Weights
from models.images.preprocess import PRESETS
from models.install import import_ as importing
from models.install.import_ import import_file, write_checkpoint
from models.networks.variants import VARIANTS, find_variant
from tests.cards import checkpoint

LENET = find_variant("lenet5")
State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    return get_model("lenet5").state_dict()


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "cache")


def equal(path: Path | None, state: State) -> bool:
    assert path is not None
    own = load_file(path)
    return set(own) == set(state) and all(torch.equal(own[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".PTH", ".SafeTensors"])
def test_a_good_file_becomes_a_loadable_checkpoint(
    catalogue: Catalogue, state: State, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix.lower() == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    stored = import_file(LENET, path, catalogue)
    assert stored == catalogue.find("lenet5")
    assert stored.name == "lenet5@mnist"
    assert stored.path == catalogue.path_for(LENET, "mnist")
    assert equal(stored.path, state)
    assert (stored.origin, stored.preprocess) == (f"imported from {path.name}", PRESETS["mnist"])
    assert stored.accuracy_source.startswith("not measured on this file")


def test_the_stored_file_is_readable_by_all_and_alone_in_its_folder(
    catalogue: Catalogue, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    stored = import_file(LENET, path, catalogue).path
    assert stored is not None
    assert stat.S_IMODE(stored.stat().st_mode) == 0o644
    assert list(stored.parent.iterdir()) == [stored]


def test_the_caller_chooses_label_set_and_preset(catalogue: Catalogue, state: State, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    stored = import_file(LENET, path, catalogue, label_set="cifar10")
    assert (stored.name, stored.preprocess) == ("lenet5@cifar10", PRESETS["mnist"])
    # The paper's accuracy is on other classes.
    assert (stored.top1, stored.top5, stored.accuracy_source) == (None, None, "")
    assert catalogue.find("lenet5").name == "lenet5@cifar10"
    torch.save(get_model("googlenet", num_classes=10).state_dict(), path)
    stored = import_file(VARIANTS["googlenet"], path, catalogue, label_set="cifar10", preset="half-224")
    assert stored.preprocess == PRESETS["half-224"]


def test_pictures_that_the_network_does_not_take_are_refused(
    catalogue: Catalogue, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    with pytest.raises(WrongWeightsError, match="lenet5 cannot be built as its card asks"):
        import_file(LENET, path, catalogue, label_set="cifar10", preset="half-224")
    assert not list(catalogue.cache_dir.glob("checkpoints/*"))


def test_a_card_travels_from_cache_to_cache(catalogue: Catalogue, state: State, tmp_path: Path) -> None:
    described = checkpoint(
        "lenet5", "cifar10", preprocess=replace(PRESETS["mnist"], ink_on_light=False), accuracy_source="here"
    )
    save_file(state, tmp_path / "theirs.SafeTensors", card(described))
    first = import_file(LENET, tmp_path / "theirs.SafeTensors", catalogue)
    assert card(first) == card(counted(described))
    assert first.path is not None
    second = import_file(LENET, first.path, Catalogue(tmp_path / "other"))
    assert card(second) == card(first)
    assert second.path is not None
    assert equal(second.path, state)
    assert read_card(second.path) == second


def test_a_card_does_not_lend_its_accuracy_to_other_classes(catalogue: Catalogue, state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.safetensors", card(checkpoint("lenet5", "cifar10", accuracy_source="here")))
    stored = import_file(LENET, tmp_path / "a.safetensors", catalogue, label_set="mnist")
    assert (stored.name, stored.top1, stored.accuracy_source) == ("lenet5@mnist", None, "")


def test_network_arguments_travel_and_build_the_network(catalogue: Catalogue, tmp_path: Path) -> None:
    """Any state dict fits every LRN and geometry of GoogLeNet, so that the card has to name them."""
    googlenet = VARIANTS["googlenet"]
    constants = {"size": 3, "alpha": 0.5, "beta": 0.5, "k": 2.0}
    network = get_model("googlenet", num_classes=10)
    described = checkpoint("googlenet", "cifar10", network={"lrn": constants})
    write_checkpoint(tmp_path / "a.safetensors", network, described)
    stored = import_file(googlenet, tmp_path / "a.safetensors", catalogue, as_graph=True)
    assert stored.network == {"lrn": constants, "as_graph": True}
    built: Any = get_model("googlenet", weights=stored.path)
    assert built.norm1.constants.k == 2.0
    assert not built.pool1.ceil_mode


def test_tensors_that_share_memory_are_stored_separately(catalogue: Catalogue, state: State, tmp_path: Path) -> None:
    shared = torch.arange(200.0)
    state |= {"f6.bias": shared[:84], "c5.bias": shared[:120], "output.bias": shared[:1].expand(10)}
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    assert equal(import_file(LENET, path, catalogue).path, state)


def test_a_disk_that_fills_up_leaves_what_was_there(
    catalogue: Catalogue, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    import_file(LENET, path, catalogue)

    def fill_up(_state: State, part: Path, metadata: dict[str, str]) -> None:
        part.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.install.import_.save_file", fill_up)
    with pytest.raises(OSError, match="No space left"):
        import_file(LENET, path, catalogue, label_set="cifar10")
    folder = catalogue.cache_dir / "checkpoints"
    assert [file.name for file in folder.iterdir()] == ["lenet5@mnist.safetensors"]
    assert equal(folder / "lenet5@mnist.safetensors", state)


def test_half_precision_is_for_weights_and_not_for_biases_or_batch_norm(tmp_path: Path) -> None:
    network = get_model("googlenet_bn", num_classes=10)
    with torch.no_grad():
        network.get_parameter("fc.bias").fill_(1 / 3)  # which half precision rounds
    path = tmp_path / "half.safetensors"
    for half, width in ((True, torch.float16), (False, torch.float32)):
        write_checkpoint(path, network, checkpoint("googlenet_bn", "cifar10"), half=half)
        stored = load_file(path)
        assert {tensor.dtype for tensor in stored.values() if tensor.ndim > 1} == {width}
        narrow = {name: tensor for name, tensor in stored.items() if tensor.ndim <= 1}
        assert {tensor.dtype for tensor in narrow.values()} == {torch.float32, torch.int64}
        assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in narrow.items())
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("name", "as_graph", "crop"),
    [("alexnet", True, 224), ("alexnet", False, 227), ("googlenet", True, 224), ("inception_v3", True, 299)],
)
def test_the_zoos_caffe_networks_take_224_pixels(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, as_graph: bool, crop: int
) -> None:
    """On a network that is only described: its weights would be hundreds of megabytes."""
    variant, described = VARIANTS[name], []
    read = Weights({}, 1000, {}, None)
    monkeypatch.setattr(importing, "read_weights", lambda *_arguments, **_options: read)
    monkeypatch.setattr(importing, "build_with", lambda *_arguments, **_options: torch.nn.Identity())
    monkeypatch.setattr(importing, "write_checkpoint", lambda target, _network, made: described.append(made))
    monkeypatch.setattr(importing, "counted", lambda made: made)
    monkeypatch.setattr(Catalogue, "path_for", lambda *_arguments: tmp_path)
    import_file(variant, tmp_path / "graph.onnx", catalogue, as_graph=as_graph)
    assert described[0].preprocess == replace(PRESETS[variant.preprocess], crop=crop)
