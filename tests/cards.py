"""Checkpoints that are little more than their card, for a catalogue that reads no tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models.checkpoints.catalogue import Catalogue, Checkpoint, card
from models.images.preprocess import PRESETS
from models.networks.variants import VARIANTS

#: The LeNet-5 in the box.
BOX = Path(__file__).parents[1] / "weights" / "lenet5-mnist.safetensors"


def box_top1() -> float:
    """The accuracy of the LeNet-5 in the box, read from its header by safetensors itself."""
    with safe_open(BOX, "pt") as file:
        return float(json.loads(file.metadata()["topfive"])["top1"])


def checkpoint(variant: str, labels: str, **fields: Any) -> Checkpoint:
    """A description, with plausible values where none are given."""
    values: dict[str, Any] = {
        "origin": "a test",
        "preprocess": PRESETS[VARIANTS[variant].preprocess],
        "top1": 61.5,
        "top5": None,
    }
    return Checkpoint(variant=VARIANTS[variant], labels=labels, **(values | fields))


def put(cache: Path, variant: str, labels: str, **fields: Any) -> Path:
    """Puts a card with one small tensor behind it into the cache, by rename as an import does."""
    described = checkpoint(variant, labels, **fields)
    target = Catalogue(cache).path_for(described.variant, labels)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = cache / "part"
    save_file({"weight": torch.zeros(3)}, part, metadata=card(described))
    return part.replace(target)
