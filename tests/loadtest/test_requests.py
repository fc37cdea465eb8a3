"""The requests of each kind are what the service accepts, and junk is what it must refuse."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections import Counter
from email import message_from_bytes
from itertools import islice

import pytest
from PIL import Image

from loadtest._pictures import pictures
from loadtest._requests import BUDGETS, BULK, Kind, Request, requests_of

IMAGES = [bytes([n]) * (50 + n) for n in range(16)]


def some(kind: Kind, count: int, *, labels: str | None = None, seed: int = 8) -> list[Request]:
    return list(islice(requests_of(kind, IMAGES, "vgg16@cifar10", labels, seed), count))


def test_a_classify_user_sends_each_picture_as_it_is() -> None:
    found = some("classify", 32)
    assert [request.body for request in found] == IMAGES * 2
    assert {request.path for request in found} == {"/classify?model=vgg16%40cifar10"}


def test_budgets_are_mixed_evenly_by_their_seed() -> None:
    found = some("budget", 60)
    assert Counter(request.budget for request in found) == dict.fromkeys(BUDGETS, 10)
    assert found == some("budget", 60)
    assert [request.budget for request in found] != [request.budget for request in some("budget", 60, seed=9)]
    for request in found:
        assert request.budget is not None
        assert request.path == f"/classify?{request.budget.query}"
        assert f"latency_ms={request.budget.latency_ms:g}" in request.budget.query.split("&")
    assert all(request.path.endswith("&labels=mnist") for request in some("budget", 6, labels="mnist"))


def test_a_bulk_user_sends_eight_file_parts() -> None:
    bodies = []
    for request in some("bulk", 2):
        head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + request.body).get_payload()
        assert isinstance(parts, list)
        assert len(parts) == BULK
        assert all(part.get_filename() for part in parts)
        bodies += [part.get_payload(decode=True) for part in parts]
    assert bodies == IMAGES


def test_junk_is_junk() -> None:
    photograph = pictures("photographs", 8)[0]
    found = {r.name.split()[1]: r for r in islice(requests_of("junk", [photograph], "googlenet", None, 8), 5)}
    assert found.keys() == {"text", "truncated", "pdf", "empty", "base64"}
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(found["text"].body))
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(found["truncated"].body)).load()
    assert found["pdf"].body.startswith(b"%PDF-")
    assert found["empty"].body == b""
    with pytest.raises(binascii.Error):
        base64.b64decode(json.loads(found["base64"].body)["image"], validate=True)
    assert all(request.problem is not None for request in found.values())
