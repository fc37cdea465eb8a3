"""The manifest against the facts of its sources, and the shipped files against the manifest."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from models.analysis.description import counted
from models.checkpoints.catalogue import Catalogue, read_card
from models.checkpoints.labels import LABEL_SETS
from models.checkpoints.manifest import ManifestRow, manifest
from models.images.preprocess import PRESETS
from models.networks.variants import VARIANTS

#: torchvision's files, size in MiB. The digits in the name are the beginning of the sha256.
TORCHVISION = {
    "alexnet-owt-7be5be79.pth": 233.1,
    "vgg11-8a719046.pth": 506.8,
    "vgg13-19584684.pth": 507.5,
    "vgg16-397923af.pth": 527.8,
    "vgg19-dcbb9e9d.pth": 548.1,
    "googlenet-1378be20.pth": 49.7,
    "inception_v3_google-0cc3c7bd.pth": 103.9,
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
    """What is trained: no running means, no counts."""
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
    from torchvision import models as torchvision_models

    row = ROWS[name]
    assert row.sha256 == name[:-4].rsplit("-", 1)[1]
    assert row.mib == pytest.approx(TORCHVISION[name], abs=0.051)
    published = [
        weights
        for model in torchvision_models.list_models(torchvision_models)
        for weights in torchvision_models.get_model_weights(model)
        if weights.url == row.url
    ]
    assert len(published) == 1
    meta = published[0].meta
    assert row.mib == meta["_file_size"]
    assert meta["_metrics"]["ImageNet-1K"] == {"acc@1": row.top1, "acc@5": row.top5}
    transform = published[0].transforms()
    preprocess = PRESETS[row.preprocess]
    assert ([preprocess.resize], [preprocess.crop]) == (transform.resize_size, transform.crop_size)


def test_the_first_row_of_a_variant_is_the_published_one() -> None:
    first: dict[str, ManifestRow] = {}
    for row in manifest():
        if row.labels == VARIANTS[row.variant].labels:
            first.setdefault(row.variant, row)
    # Of these nobody has published weights, so that they carry the papers' figures.
    assert set(VARIANTS) - set(first) == {"zfnet", "nin", "vgg11_lrn", "vgg16_c"}
    for name in set(first) - {"lenet5"}:
        assert (first[name].top1, first[name].top5) == VARIANTS[name].published
        assert first[name].preprocess == VARIANTS[name].preprocess


def test_lrn_constants_belong_to_caffes_alexnets() -> None:
    """A state dict fits the paper's constants as well, so nothing else would notice."""
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
