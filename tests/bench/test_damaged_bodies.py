"""Bodies around a picture: some are right, and some are not."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable

import pytest
from damaged_bodies import as_json, encoded, multipart
from damaged_pictures import corpus

PICTURE = corpus()[0]


def bodies(make: Callable[[random.Random, bytes], tuple[bytes, bytes, str]]) -> list[bytes]:
    return [make(random.Random(number), PICTURE)[1] for number in range(300)]


def is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def is_compressed(body: bytes) -> bool:
    for undo in (gzip.decompress, zlib.decompress):
        try:
            undo(body)
        except (OSError, zlib.error):
            continue
        return True
    return False


@pytest.mark.parametrize(
    ("make", "is_right"),
    [(multipart, lambda body: PICTURE in body), (as_json, is_object), (encoded, is_compressed)],
    ids=["multipart", "JSON", "encoded"],
)
def test_some_bodies_are_right_and_some_are_not(
    make: Callable[[random.Random, bytes], tuple[bytes, bytes, str]], is_right: Callable[[bytes], bool]
) -> None:
    made = bodies(make)
    assert len(set(made)) >= 4
    assert 0.1 < sum(map(is_right, made)) / len(made) < 0.98
    assert made == bodies(make)
