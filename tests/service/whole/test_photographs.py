"""Photographs of ImageNet classes, classified over HTTP with the imported weights of BVLC's GoogLeNet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.checkpoints.catalogue import Checkpoint
from models.checkpoints.labels import labels
from tests.running import uvicorn_service

WORDNET_IDS = {label.wordnet_id: index for index, label in enumerate(labels("imagenet1k"))}


@pytest.fixture(scope="module")
def url(bvlc: tuple[Checkpoint, Path]) -> Iterator[str]:
    _, cache = bvlc
    with uvicorn_service(cache) as address:
        yield address


def test_the_true_label_is_among_the_five(url: str, test_data: Path) -> None:
    files = sorted((test_data / "photos").glob("*.jpg"))
    assert len(files) == 48
    first = among = 0
    with httpx.Client(base_url=url, timeout=60) as client:
        for file in files:
            true = WORDNET_IDS[file.name.split("_")[0]]
            # No model is named: the router must choose the one that knows ImageNet's classes.
            answer = client.post("/classify", content=file.read_bytes()).json()
            assert answer["model"] == "googlenet"
            indices = [label["index"] for label in answer["top5"]]
            first += indices[0] == true
            among += true in indices
    assert among >= 44
    assert first >= 36
