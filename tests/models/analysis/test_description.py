"""Descriptions of every variant, and of checkpoints with another geometry or label set than their variant's."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from models.analysis.description import REFERENCE, Description, compare, describe, of_the_paper
from models.checkpoints.catalogue import Catalogue
from models.images.preprocess import PRESETS
from models.networks.variants import VARIANTS, UnknownModelError, Variant
from tests.cards import box_top1, put

BOX_TOP1 = box_top1()

#: The checkpoints of a machine where nothing was imported.
CATALOGUE = Catalogue(Path("there is no such folder"))
GIB = 2**30


@cache
def described(name: str, *, as_graph: bool = False) -> Description:
    return describe(of_the_paper(CATALOGUE, name), as_graph=as_graph)


def described_card(cache: Path, variant: str, labels: str = "imagenet1k", **fields: Any) -> Description:
    """The description of a checkpoint with this card."""
    put(cache, variant, labels, **fields)
    return describe(Catalogue(cache).find(f"{variant}@{labels}"))


def outputs(description: Description) -> dict[str, tuple[int, ...]]:
    return {layer.name: layer.output for layer in description.analysis.layers}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_a_description_is_json_with_the_numbers_of_the_table(variant: Variant) -> None:
    told = json.loads(json.dumps(described(variant.name).to_json(batch=16, memory=None)))
    assert (told["name"], told["year"], told["paper"]) == (variant.name, variant.year, variant.paper)
    assert told["aliases"] == list(variant.aliases)
    assert told["checkpoint"] == f"{variant.name}@{variant.labels}"
    assert told["input"] == list(variant.input_shape)
    assert (told["params"], told["activations"], told["multiply_adds"]) == (
        variant.params,
        variant.activations,
        variant.multiply_adds,
    )
    assert (told["params_in_training"] > told["params"]) == variant.has_aux_heads
    layers = told["layers"]
    assert sum(row["params"] for row in layers) == variant.params
    assert sum(row["multiply_adds"] for row in layers) == variant.multiply_adds
    inference = told["memory"]["float32"]["inference"]
    assert inference == {
        "1": variant.costs.analytic_bytes,
        "16": 4 * (variant.params + 16 * variant.activations),
    }
    assert told["memory"]["float16"]["inference"] == {batch: n // 2 for batch, n in inference.items()}
    assert "largest_batch" not in told
    assert "memory_limit" not in told


def test_a_checkpoint_says_whether_its_weights_are_here() -> None:
    states = {name: described(name).to_json(batch=1, memory=None)["state"] for name in VARIANTS}
    assert [name for name, state in states.items() if state == "loadable"] == ["lenet5"]
    assert set(states.values()) == {"loadable", "weights missing"}


def test_a_plain_name_is_the_papers_network_and_the_at_sign_chooses_another(tmp_path: Path) -> None:
    assert of_the_paper(CATALOGUE, "inception_v1").name == "googlenet@imagenet1k"
    assert of_the_paper(CATALOGUE, "googlenet@cifar10").name == "googlenet@cifar10"
    put(tmp_path, "nin", "cifar10")
    assert of_the_paper(Catalogue(tmp_path), "nin").name == "nin@cifar10"  # there is no other
    with pytest.raises(UnknownModelError):
        of_the_paper(CATALOGUE, "resnet50")


def test_the_largest_batch_is_told_for_a_limit() -> None:
    told = described("vgg16").to_json(batch=1, memory=3 * GIB)
    assert told["memory_limit"] == 3 * GIB
    assert list(told["memory"]["float32"]["training"]) == ["1"]
    needs = described("vgg16").needs
    assert told["largest_batch"]["float32"] == {
        "inference": needs["inference"].largest_batch(3 * GIB),
        "training": 12,
    }
    assert told["largest_batch"]["float16"]["training"] > 2 * 12
    assert described("vgg16").to_json(batch=1, memory=0)["largest_batch"]["float32"] == {"inference": 0, "training": 0}


def test_training_has_the_auxiliary_heads() -> None:
    needs = described("googlenet").needs
    assert (needs["inference"].params, needs["training"].params) == (6_998_552, 13_378_280)
    assert needs["training"].activations > needs["inference"].activations
    assert described("vgg16").needs["inference"] == described("vgg16").needs["training"]


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("googlenet", "pools round down"),
        ("alexnet", "pictures have 224 pixels"),
        ("inception_v2", "average pools leave the padding out of their count"),
    ],
)
def test_the_geometry_is_named_where_the_zoo_has_another(name: str, differs: str) -> None:
    original, graph = described(name), described(name, as_graph=True)
    assert (original.as_graph, graph.as_graph) == (False, True)
    assert original.geometry == f"the original; in the ONNX Model Zoo's graph {differs} (--as-graph)"
    assert graph.geometry == f"the ONNX Model Zoo's graph: {differs}"
    assert graph.to_json(batch=1, memory=None)["geometry"] == graph.geometry
    assert graph.analysis.params == original.analysis.params


def test_where_the_zoo_has_no_other_geometry_none_is_named() -> None:
    assert described("vgg16").geometry is None
    asked = described("vgg16", as_graph=True)
    assert (asked.as_graph, asked.geometry) == (False, None)
    assert asked.analysis == described("vgg16").analysis


def test_the_zoos_geometry_has_the_sizes_of_its_graphs() -> None:
    googlenet, alexnet = (outputs(described(name, as_graph=True)) for name in ("googlenet", "alexnet"))
    assert [googlenet[f"pool{i}"][1:] for i in range(1, 5)] == [(55, 55), (27, 27), (13, 13), (6, 6)]
    assert [alexnet[name][1:] for name in ("conv1", "pool1", "pool2", "pool5")] == [
        (54, 54),
        (26, 26),
        (12, 12),
        (6, 6),
    ]
    assert described("alexnet", as_graph=True).analysis.input_shape == (3, 224, 224)
    # The windows are the same; only the count of the padding differs.
    assert described("inception_v2", as_graph=True).analysis == described("inception_v2").analysis


def test_a_checkpoint_of_the_graph_is_described_in_its_geometry_without_being_asked(tmp_path: Path) -> None:
    told = described_card(tmp_path, "googlenet", network={"as_graph": True})
    assert told.as_graph
    assert outputs(told)["pool1"] == (64, 55, 55)
    assert told.geometry == "the ONNX Model Zoo's graph: pools round down"
    assert told.analysis == described("googlenet", as_graph=True).analysis


@pytest.mark.parametrize("crop", [224, 227])
def test_an_alexnet_of_the_graph_has_pictures_of_224_pixels(tmp_path: Path, crop: int) -> None:
    preprocess = replace(PRESETS["caffe-227"], crop=crop)
    lrn = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}
    told = described_card(tmp_path, "alexnet", preprocess=preprocess, network={"as_graph": True, "lrn": lrn})
    assert told.analysis == described("alexnet", as_graph=True).analysis
    assert told.to_json(batch=1, memory=None)["input"] == [3, 224, 224]


def test_what_a_card_says_of_the_network_is_described(tmp_path: Path) -> None:
    """CaffeNet pools before it normalises."""
    told = described_card(tmp_path, "alexnet", network={"pool_first": True})
    assert outputs(told)["norm1"] == (96, 27, 27)
    assert outputs(described("alexnet"))["norm1"] == (96, 55, 55)


@pytest.mark.parametrize("name", ["googlenet", "nin", "vgg16"])
def test_a_cifar10_checkpoint_has_ten_outputs(tmp_path: Path, name: str) -> None:
    told = described_card(tmp_path, name, "cifar10")
    assert told.checkpoint.name == f"{name}@cifar10"
    assert told.analysis.layers[-1].output[0] == told.rows[-1].output[0] == 10
    assert told.analysis.params < VARIANTS[name].params
    assert told.to_json(batch=1, memory=None)["state"] == "loadable"


def test_the_comparison_is_with_vgg16() -> None:
    assert REFERENCE == "vgg16"
    names = ["vgg16", "googlenet", "nin", "zfnet", "lenet5"]
    vgg16, googlenet, nin, zfnet, lenet5 = rows = compare(
        [of_the_paper(CATALOGUE, name) for name in names], of_the_paper(CATALOGUE, "vgg")
    )
    assert [row.name for row in rows] == names
    assert (vgg16.params_ratio, vgg16.multiply_adds_ratio, vgg16.analytic_ratio) == (1.0, 1.0, 1.0)
    assert (round(googlenet.params_ratio, 3), round(googlenet.multiply_adds_ratio, 2)) == (0.051, 0.10)
    assert (googlenet.depth, googlenet.params, googlenet.multiply_adds) == (22, 6_998_552, 1_582_671_872)
    assert googlenet.analytic_bytes == VARIANTS["googlenet"].costs.analytic_bytes
    assert (googlenet.top1, googlenet.top5) == (67.78, 88.34)
    assert (nin.top1, nin.top5, nin.accuracy_source) == (None, None, "")
    # No checkpoint of it is known, so it has the paper's figure.
    assert (zfnet.top1, zfnet.top5, zfnet.accuracy_source) == (
        *VARIANTS["zfnet"].published,
        VARIANTS["zfnet"].published_source,
    )
    # The checkpoint's own figure, not the paper's.
    assert (lenet5.top1, lenet5.labels) == (BOX_TOP1, "mnist")


def test_a_published_figure_does_not_stand_in_on_another_label_set(tmp_path: Path) -> None:
    put(tmp_path, "zfnet", "cifar10", top1=None)
    put(tmp_path, "zfnet", "imagenet1k", top1=None)
    catalogue = Catalogue(tmp_path)
    checkpoints = [catalogue.find("zfnet", labels) for labels in ("cifar10", "imagenet1k")]
    cifar10, imagenet = compare(checkpoints, of_the_paper(CATALOGUE, "alexnet_owt"))
    assert (cifar10.labels, cifar10.top1, cifar10.accuracy_source) == ("cifar10", None, "")
    assert (imagenet.labels, imagenet.top1) == ("imagenet1k", 61.6)
    assert cifar10.params < imagenet.params
