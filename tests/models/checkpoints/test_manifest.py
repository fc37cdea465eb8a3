"""The manifest against the facts of its sources, and the shipped files against the manifest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file

from models.analysis.description import counted
from models.checkpoints import manifest as module
from models.checkpoints.catalogue import Catalogue, read_card
from models.checkpoints.labels import LABEL_SETS
from models.checkpoints.manifest import ManifestRow, known_file, manifest
from models.checkpoints.tensors import normalised
from models.images.preprocess import PRESETS
from models.networks.variants import VARIANTS

#: torchvision's weights of the networks here, by the name of the file.
TORCHVISION: dict[str, Any] = {
    weights.url.rsplit("/", 1)[-1]: weights
    for weights in (
        torchvision.models.AlexNet_Weights.IMAGENET1K_V1,
        torchvision.models.VGG11_Weights.IMAGENET1K_V1,
        torchvision.models.VGG13_Weights.IMAGENET1K_V1,
        torchvision.models.VGG16_Weights.IMAGENET1K_V1,
        torchvision.models.VGG19_Weights.IMAGENET1K_V1,
        torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1,
        torchvision.models.Inception_V3_Weights.IMAGENET1K_V1,
    )
}
#: The ONNX Model Zoo's files, sha256 and bytes, from the Git LFS pointers of its repository.
ZOO = {
    "bvlcalexnet-12.onnx": ("6b0da9510f27f234ee96a85dc3809dd210150fdefad87f6850f9788513216945", 243863787),
    "caffenet-12.onnx": ("ea563e5c47d1f58e1717cf1a2d8bf288b8adc07af0ad228b622096cd243aeecb", 243863798),
    "zfnet512-12.onnx": ("c975ca6a24c0a2e1584c6f82667e0ac9c06084fc7769d267f71b4a154d1f1c72", 349005501),
    "googlenet-12.onnx": ("c99c507058eaf41de8723408fdda7db8325cb57f0a89f2ee07a716d6e963e14e", 28021836),
    "inception-v1-12.onnx": ("814b31a6316873bd03d2d808415ce1f40a7bf48ad88eab5ecc3cdc8dc6cf38ec", 28021958),
    "inception-v2-9.onnx": ("37ed4aa93f817fd0d1cc19bda045ebd70f18d0887a5f51e66ecd0ed8fd5a65c2", 45042799),
    "vgg16-12.onnx": ("722c42f53ca03a5480296bf8f9c85a151de3eed9ec982d7d2302ff6e2900c67b", 553437752),
    "vgg19-7.onnx": ("692f9f927f1df1b89033787a77a73eac59fd9b3344f9ecdf0b13221e41c2046f", 574677321),
}
ROWS = {(row.file or str(row.url)).rsplit("/", 1)[-1]: row for row in manifest()}
SHIPPED = [row for row in manifest() if row.file is not None]


def path(row: ManifestRow) -> Path:
    return Path(str(resources.files("weights") / str(row.file)))


def load_weights(file: Path) -> list[torch.Tensor]:
    """The trained tensors: neither running means nor counts."""
    return [tensor for name, tensor in load_file(file).items() if "running" not in name and "num_batches" not in name]


def test_every_public_file_is_named_once() -> None:
    assert len(ROWS) == len(manifest())
    assert set(ROWS) == {*TORCHVISION, *ZOO, *(str(row.file) for row in SHIPPED)}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_complete(name: str) -> None:
    row = ROWS[name]
    assert (row.file is None) != (row.url is None)
    assert row.labels in LABEL_SETS
    assert row.preprocess in PRESETS
    assert row.origin
    assert (row.top1 is None) == (row.accuracy_source == "")
    assert row.top1 is None or 50 < row.top1 < 100
    assert row.top5 is None or (row.top1 is not None and row.top1 < row.top5 <= 100)


@pytest.mark.parametrize("name", ZOO)
def test_the_zoos_files(name: str) -> None:
    row = ROWS[name]
    assert (row.sha256, row.bytes) == ZOO[name]
    assert row.url == f"https://huggingface.co/onnxmodelzoo/{name[:-5]}/resolve/main/{name}"
    assert (PRESETS[row.preprocess].colour == "bgr") != row.variant.startswith("vgg")


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_files(name: str) -> None:
    row, theirs = ROWS[name], TORCHVISION[name]
    assert row.url == theirs.url
    # The digits in the name are the beginning of the sha256.
    assert row.sha256 == name[:-4].rsplit("-", 1)[1]
    assert row.mib == theirs.meta["_file_size"]
    assert theirs.meta["_metrics"]["ImageNet-1K"] == {"acc@1": row.top1, "acc@5": row.top5}
    assert row.labels == "imagenet1k"


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_files_get_the_input_that_torchvision_gives_them(name: str) -> None:
    """Its transform normalises by ImageNet's mean, and GoogLeNet and Inception v3 undo that in their forward."""
    preprocess, theirs = PRESETS[ROWS[name].preprocess], TORCHVISION[name].transforms()
    assert ([preprocess.resize], [preprocess.crop]) == (theirs.resize_size, theirs.crop_size)
    assert preprocess.fit == "short side"
    crop = torch.randint(0, 256, (1, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    expected = torchvision.transforms.functional.normalize(crop.permute(0, 3, 1, 2) / 255, theirs.mean, theirs.std)
    if name.startswith(("googlenet", "inception")):
        with torch.device("meta"):
            network = torchvision.models.get_model(
                "googlenet" if name.startswith("googlenet") else "inception_v3",
                transform_input=True,
                init_weights=False,
            )
        expected = network._transform_input(expected)
    torch.testing.assert_close(normalised(crop, preprocess), expected, rtol=1e-5, atol=1e-5)


def test_the_first_row_of_a_variant_is_the_published_one() -> None:
    first: dict[str, ManifestRow] = {}
    for row in manifest():
        if row.labels == VARIANTS[row.variant].labels:
            first.setdefault(row.variant, row)
    # No weights of these are published, so that the table has the papers' figures.
    assert set(VARIANTS) - set(first) == {"zfnet", "nin", "vgg11_lrn", "vgg16_c"}
    for name in set(first) - {"lenet5"}:
        assert (first[name].top1, first[name].top5) == VARIANTS[name].published
        assert first[name].preprocess == VARIANTS[name].preprocess


def test_lrn_constants_belong_to_caffes_alexnets() -> None:
    """A state dict fits any constants, so that no error would show a mistake."""
    caffe = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}
    assert ROWS["bvlcalexnet-12.onnx"].network == {"lrn": caffe}
    assert ROWS["caffenet-12.onnx"].network == {"lrn": caffe, "pool_first": True}


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row.file)
def test_a_shipped_file_is_the_one_of_the_manifest(row: ManifestRow) -> None:
    data = path(row).read_bytes()
    assert hashlib.sha256(data).hexdigest() == row.sha256
    assert len(data) == row.bytes


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row.file)
def test_a_shipped_files_card_agrees_with_the_manifest(row: ManifestRow) -> None:
    card = read_card(path(row))
    assert card is not None
    assert (card.variant.name, card.labels, card.top1, card.top5) == (row.variant, row.labels, row.top1, row.top5)
    assert (card.origin, card.recipe, card.accuracy_source) == (row.origin, row.recipe, row.accuracy_source)
    assert card.preprocess == PRESETS[row.preprocess]
    assert card.network == row.network
    with safe_open(path(row), "pt") as file:
        assert json.loads(file.metadata()["topfive"])["variant"] == row.variant


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row.file)
def test_a_shipped_files_costs_are_counted_in_its_own_shape(row: ManifestRow, tmp_path: Path) -> None:
    found = Catalogue(tmp_path).find(row.variant, row.labels)
    assert found.costs == counted(found).own_costs
    assert found.costs.params == sum(tensor.numel() for tensor in load_weights(path(row)))


def test_a_file_lies_in_the_box_for_every_row_that_says_so() -> None:
    box = {file.name for file in resources.files("weights").iterdir() if file.name.endswith(".safetensors")}
    assert box == {row.file for row in SHIPPED}
    assert {"lenet5-mnist.safetensors", "googlenet-cifar10.safetensors", "inception_v2-cifar10.safetensors"} <= box
    assert all(path(row).stat().st_size < 25e6 for row in SHIPPED)


def test_a_file_is_known_by_its_digest_and_its_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = (row for row in SHIPPED if row.variant == "lenet5")
    file = path(row)
    assert known_file(VARIANTS["lenet5"], file) == row
    # The beginning of the digest is enough, as in torchvision's names; the variant must be the row's.
    short = replace(row, sha256=row.sha256[:8])
    monkeypatch.setattr(module, "manifest", lambda: (short,))
    assert known_file(VARIANTS["lenet5"], file) is short
    assert known_file(VARIANTS["googlenet"], file) is None
    for digest in ("", row.sha256[1:9]):
        monkeypatch.setattr(module, "manifest", lambda digest=digest: (replace(row, sha256=digest),))
        assert known_file(VARIANTS["lenet5"], file) is None
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(file.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(module, "manifest", lambda: (row,))
    assert known_file(VARIANTS["lenet5"], changed) is None


def test_an_exact_size_is_better_than_a_rounded_one() -> None:
    (row,) = (row for row in SHIPPED if row.variant == "lenet5")
    assert replace(row, bytes=1000, mib=5.0).size == 1000
    assert replace(row, bytes=None, mib=2.5).size == 2_621_440
    assert replace(row, bytes=None, mib=None).size == 0
