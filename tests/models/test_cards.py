"""The card in a weight file's header: written, read back, and ignored when it or its file is damaged."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from models.checkpoints import Catalogue, card, read_card
from models.manifest import manifest
from models.preprocess import PRESETS
from tests.cards import checkpoint, put

#: Of LeNet-5, by the manifest.
BOX_TOP1 = next(row.top1 for row in manifest() if row.variant == "lenet5")


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


def test_a_card_without_damage_is_taken(tmp_path: Path) -> None:
    """So what is refused below is refused for its damage."""
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
