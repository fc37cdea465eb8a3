"""The card in a weight file's header: written, read back, and ignored when it or its file is damaged."""

from __future__ import annotations

import importlib
import inspect
import json
import struct
from pathlib import Path

import pytest

from models.checkpoints.cards import OPTIONS, parse_card
from models.checkpoints.catalogue import Catalogue, card, read_card
from models.images.preprocess import PRESETS
from models.networks.variants import VARIANTS
from tests.cards import box_top1, checkpoint, put

BOX_TOP1 = box_top1()


def test_a_card_comes_back_whole(tmp_path: Path) -> None:
    lrn = {"lrn": {"size": 5, "alpha": 2e-4, "beta": 0.5, "k": 2.0}}
    written = checkpoint("alexnet", "cifar10", network=lrn, accuracy_source="here", preprocess=PRESETS["half-299"])
    target = put(tmp_path, "alexnet", "cifar10", network=lrn, accuracy_source="here", preprocess=PRESETS["half-299"])
    found = read_card(target)
    assert found is not None
    assert found.path == target
    assert card(found) == card(written)


def header(document: object) -> bytes:
    text = json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text


CARD = card(checkpoint("lenet5", "mnist"))["topfive"]
DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "noise": bytes(range(256)),
    "text": b"this is no weight file, whatever its name says",
    "a length beyond the format's limit": struct.pack("<Q", 2**60) + b"{}",
    "nesting without end": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "no object": header([1, 2]),
    "no card": header({}),
    "somebody else's card": header({"__metadata__": {"format": "pt"}}),
    "a card that is no object": header({"__metadata__": {"topfive": "[]"}}),
    "an unknown variant": header({"__metadata__": {"topfive": CARD.replace("lenet5", "lenet6")}}),
    "an unknown label set": header({"__metadata__": {"topfive": CARD.replace('"mnist"', '"emnist"')}}),
    "an unknown field": header({"__metadata__": {"topfive": CARD.replace('"top1"', '"top2"')}}),
    "preprocessing that is none": header({"__metadata__": {"topfive": CARD.replace('"pad"', '"pat"')}}),
    "a tensor without a place": header({"__metadata__": {"topfive": CARD}, "weight": 1}),
    "tensors that are not there": header({"__metadata__": {"topfive": CARD}, "weight": {"data_offsets": [0, 12]}}),
}


def changed(**fields: object) -> str:
    """The card of LeNet-5 with these fields changed, or removed if the value is ``...``; ``a__b`` is field b of a."""
    document = json.loads(CARD)
    for name, value in fields.items():
        inner = document
        *folders, last = name.split("__")
        for folder in folders:
            inner = inner[folder]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    return json.dumps(document)


#: The damage -> the card, and a part of the error.
BAD: dict[str, tuple[str, str]] = {
    "an accuracy in words": (changed(top1="99"), "top1"),
    "no number": (changed(top1=float("nan")), "top1"),
    "no end": (changed(top5=float("inf")), "top5"),
    "more than all": (changed(top1=100.1), "top1"),
    "a billion": (changed(top1=1e9), "top1"),
    "a number without end": (changed(top1=10**400), "top1"),
    "less than nothing": (changed(top1=-0.1), "top1"),
    "a truth": (changed(top1=True), "top1"),
    "a list": (changed(top1=[99.0]), "top1"),
    "lists in lists": (changed(origin=[[[[["a"]]]]]), "origin"),
    "no accuracy, not even none": (changed(top1=...), "top1: field required"),
    "no top-5 accuracy, not even none": (changed(top5=...), "top5: field required"),
    "no origin": (changed(origin=...), "origin: field required"),
    "no preprocessing": (changed(preprocess=None), "preprocess"),
    "an unknown field": (changed(more=1), "more"),
    "a label set that is a list": (changed(labels=["mnist"]), "labels"),
    "a variant that is a number": (changed(variant=5), "variant"),
    "an endless text": (changed(recipe="a" * 2001), "recipe"),
    "a text with an escape": (changed(origin="\x1b[31mred"), "origin"),
    "half a character": (changed(origin="\ud800"), "origin"),
    "a crop of nothing": (changed(preprocess__crop=0), "crop"),
    "a crop of less": (changed(preprocess__crop=-28), "crop"),
    "a crop beyond the picture": (changed(preprocess__crop=29), "crop 29 is larger than resize 28"),
    "a crop in words": (changed(preprocess__crop="28"), "crop"),
    "half a pixel": (changed(preprocess__crop=27.5), "crop"),
    "a huge picture": (changed(preprocess__resize=1_000_000), "resize"),
    "a picture one too large": (changed(preprocess__resize=2049), "resize"),
    "a huge border": (changed(preprocess__pad=10**12), "pad"),
    "a border of less": (changed(preprocess__pad=-1), "pad"),
    "enlarged and padded too far": (changed(preprocess__enlarge=616, preprocess__pad=13), "more than 640"),
    "a crop that is too large": (
        changed(preprocess__resize=2000, preprocess__crop=641, preprocess__pad=0),
        "more than 640",
    ),
    "enlarged to no multiple": (changed(preprocess__enlarge=29), "not a multiple"),
    "four means": (changed(preprocess__mean=[0.1] * 4), "mean"),
    "three means for grey": (changed(preprocess__mean=[0.1] * 3), "mean has 3 numbers for 1 channels"),
    "two means for colour": (
        changed(preprocess__colour="rgb", preprocess__mean=[0.1] * 2),
        "mean has 2 numbers for 3 channels",
    ),
    "no means": (changed(preprocess__mean=[]), "mean"),
    "a mean in words": (changed(preprocess__mean=["0.1"]), "mean"),
    "a deviation of nothing": (changed(preprocess__std=[0.0]), "std"),
    "a deviation of less": (changed(preprocess__std=[-1.0]), "std"),
    "no deviation": (changed(preprocess__std=[float("nan")]), "std"),
    "no scale": (changed(preprocess__scale=0), "scale"),
    "an endless scale": (changed(preprocess__scale=float("inf")), "scale"),
    "a colour that is none": (changed(preprocess__colour="cmyk"), "colour"),
    "a fit that is none": (changed(preprocess__fit="cover"), "fit"),
    "ink that is a number": (changed(preprocess__ink_on_light=1), "ink_on_light"),
    "fewer right in five than in one": (changed(top1=70.0, top5=69.9), "top1 70 is above top5 69.9"),
    "an option of another network": (changed(network={"pool_first": True}), "lenet5 takes no pool_first"),
    "an option of none": (changed(network={"layers": 5}), "layers"),
    "options that are a list": (changed(network=[]), "network"),
    "constants that are no constants": (changed(variant="alexnet", network={"lrn": {"size": 0}}), "size"),
    "a constant that divides by nothing": (changed(variant="alexnet", network={"lrn": {"k": 0.0}}), "k"),
    "costs of less": (changed(costs={"params": -1, "activations": 1, "multiply_adds": 1}), "params"),
    "costs of nothing": (changed(costs={"params": 0, "activations": 1, "multiply_adds": 1}), "params"),
    "costs in part": (changed(costs={"params": 5}), "activations"),
    "costs in words": (changed(costs="many"), "costs"),
    "no object": ("[]", "its card"),
    "no JSON": ("{", "not a JSON object"),
    "nesting without end": ("[" * 100_000, "not a JSON object"),
}
GOOD: dict[str, str] = {
    "as it is": CARD,
    "accuracies at the bounds": changed(top1=0, top5=100),
    "unknown accuracies": changed(top1=None, top5=None),
    "one unknown accuracy": changed(top1=99.0, top5=None),
    "equal accuracies": changed(top1=99.0, top5=99.0),
    "an alias": changed(variant="vgg"),
    "the largest picture": changed(preprocess__resize=2048, preprocess__crop=640, preprocess__pad=0),
    "the largest input": changed(preprocess__enlarge=616, preprocess__pad=12),
    "a crop as large as the picture": changed(preprocess__crop=28),
    "one mean for three channels": changed(preprocess__colour="rgb"),
    "no costs": changed(costs=None),
    "without what may be left out": changed(network=..., costs=..., recipe=..., accuracy_source=...),
    "constants": changed(variant="alexnet", network={"lrn": {"size": 5}, "pool_first": False, "as_graph": True}),
    "an accent": changed(origin="entraîné à Genève"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_card_is_left_out_with_one_line_that_says_why(tmp_path: Path, name: str) -> None:
    text, says = BAD[name]
    target = put(tmp_path, "lenet5", "mnist")
    target.write_bytes(header({"__metadata__": {"topfive": text}}))
    assert read_card(target) is None
    told: list[str] = []
    catalogue = Catalogue(tmp_path, left_out=lambda path, why: told.append(f"{path}: {why}"))
    for _ in range(3):
        assert catalogue.find("lenet5").top1 == BOX_TOP1
    (line,) = told
    assert says in line
    assert line.isprintable()
    assert len(line) < 300 + len(str(target))


@pytest.mark.parametrize("name", GOOD)
def test_a_valid_card_is_accepted(tmp_path: Path, name: str) -> None:
    target = put(tmp_path, "lenet5", "mnist")
    target.write_bytes(header({"__metadata__": {"topfive": GOOD[name]}}))
    assert read_card(target) is not None


def test_a_card_that_does_not_match_the_file_name_is_left_out(tmp_path: Path) -> None:
    target = put(tmp_path, "lenet5", "mnist")
    target.write_bytes(put(tmp_path, "googlenet", "cifar10", top1=99.9).read_bytes())
    told: list[str] = []
    rows = Catalogue(tmp_path, left_out=lambda _path, why: told.append(why)).checkpoints()
    assert told == ["its card is that of googlenet@cifar10"]
    assert target not in [row.path for row in rows]
    assert [row.top1 for row in rows if row.name == "googlenet@cifar10"] == [99.9]


def test_every_option_of_every_network_is_known_and_no_other() -> None:
    """The arguments of its constructor are the options of a network."""
    passed_by_us = {"num_classes", "aux_heads"}
    for variant in VARIANTS.values():
        module, function = variant.builder.split(":")
        build = getattr(importlib.import_module(f"models.networks.{module}"), function)
        options = set(inspect.signature(build).parameters) - passed_by_us - set(variant.arguments)
        assert options == OPTIONS.get(variant.name, frozenset()), variant.name


def test_the_cards_of_the_manifest_and_of_every_preset_are_good(tmp_path: Path) -> None:
    for row in Catalogue(tmp_path).checkpoints():
        parse_card(card(row)["topfive"])
    for preset in PRESETS.values():
        assert parse_card(card(checkpoint("vgg16", "imagenet1k", preprocess=preset))["topfive"]).preprocess == preset


def test_a_long_header_is_read_up_to_the_limit(tmp_path: Path) -> None:
    target = put(tmp_path, "lenet5", "mnist")
    text = json.dumps({"__metadata__": {"topfive": CARD}}).encode()
    for length in (9_999_999, 10_000_000):
        target.write_bytes(struct.pack("<Q", length) + text.ljust(length))
        assert read_card(target) is not None
    target.write_bytes(struct.pack("<Q", 10_000_001) + text.ljust(10_000_001))
    assert read_card(target) is None


def test_an_undamaged_card_is_accepted(tmp_path: Path) -> None:
    """So the cards below are refused for their damage alone."""
    target = put(tmp_path, "lenet5", "mnist")
    target.write_bytes(header({"__metadata__": {"topfive": CARD}}))
    assert read_card(target) is not None


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_in_the_cache_is_ignored(tmp_path: Path, name: str) -> None:
    target = put(tmp_path, "lenet5", "mnist")
    target.write_bytes(DAMAGED[name])
    assert read_card(target) is None
    found = Catalogue(tmp_path).find("lenet5")
    assert found.top1 == BOX_TOP1
    assert found.path not in (None, target)


@pytest.mark.parametrize("bytes_lost", [1, 12, 200])
def test_a_truncated_file_in_the_cache_is_ignored(tmp_path: Path, bytes_lost: int) -> None:
    target = put(tmp_path, "lenet5", "mnist")
    assert read_card(target) is not None
    target.write_bytes(target.read_bytes()[:-bytes_lost])
    assert read_card(target) is None
    assert Catalogue(tmp_path).find("lenet5").path != target
