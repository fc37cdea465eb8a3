"""Decoding: which pictures are small enough for the event loop, which are on their way, and what the shrinking JPEG
decoder costs in accuracy."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from service.runtime.decoding import Arriving, decode, decode_small

from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.images.pictures import TooManyPixelsError, UndecodableError
from models.images.preprocess import crop, picture_to_crop
from service.engines.onnx_cpu import OnnxCpu
from tests.pictures import picture

LENET = Catalogue().find("lenet5@mnist").preprocess
LIMIT = 80_000_000


def padded(size: int) -> bytes:
    """A PNG file of that many bytes, with text in it that no decoder reads."""
    plain = picture()
    head, rest = plain[:33], plain[33:]
    text = b"Comment\0" + b"x" * (size - len(plain) - 12 - 8)
    return head + len(text).to_bytes(4, "big") + b"tEXt" + text + zlib.crc32(b"tEXt" + text).to_bytes(4, "big") + rest


@pytest.mark.parametrize(("size", "small"), [(4_095, True), (4_096, True), (4_097, False)])
def test_a_file_of_up_to_four_kibibytes_is_small(size: int, small: bool) -> None:
    file = padded(size)
    assert len(file) == size
    assert (decode_small(file, LENET, LIMIT) is not None) is small
    assert decode(file, LENET, LIMIT).shape == (32, 32, 1)


@pytest.mark.parametrize(("side", "small"), [(128, True), (129, False)])
def test_a_picture_of_up_to_128_by_128_pixels_is_small(side: int, small: bool) -> None:
    file = picture(side=side)
    found = decode_small(file, LENET, LIMIT)
    assert (found is not None) is small
    if found is not None:
        assert (found == decode(file, LENET, LIMIT)).all()


def test_a_small_picture_over_a_lower_limit_is_left_to_the_thread_which_refuses_it() -> None:
    assert decode_small(picture(), LENET, 28 * 28) is not None
    assert decode_small(picture(), LENET, 28 * 28 - 1) is None
    with pytest.raises(TooManyPixelsError):
        decode(picture(), LENET, 28 * 28 - 1)


def test_a_small_broken_file_is_refused_at_once() -> None:
    with pytest.raises(UndecodableError):
        decode_small(b"text", LENET, LIMIT)


def test_arriving_pictures_are_counted_until_they_end() -> None:
    arriving = Arriving()
    assert (len(arriving), arriving.size, arriving.oldest_s(50.0)) == (0, 0, 0.0)
    first, second, third = (
        arriving.begin(deadline, since, size)
        for deadline, since, size in ((30.0, 10.0, 100), (10.0, 12.0, 20), (20.0, 11.0, 3))
    )
    assert (len(arriving), arriving.size, arriving.oldest_s(50.0)) == (3, 123, 40.0)
    assert [arriving.ahead_of(deadline) for deadline in (9.9, 10.0, 20.0, 99.0)] == [0, 1, 2, 3]
    arriving.end(first)
    assert (len(arriving), arriving.size, arriving.oldest_s(50.0)) == (2, 23, 39.0)
    assert arriving.ahead_of(99.0) == 2
    arriving.end(third)
    arriving.end(second)
    assert (len(arriving), arriving.size) == (0, 0)


def test_arriving_pictures_that_are_equal_end_one_by_one() -> None:
    arriving = Arriving()
    arrivals = [arriving.begin(1.0, 0.0, 10) for _ in range(2)]
    arriving.end(arrivals[0])
    assert (len(arriving), arriving.size) == (1, 10)


@pytest.fixture(scope="module")
def googlenet(bvlc: tuple[Checkpoint, Path]) -> tuple[Checkpoint, OnnxCpu]:
    checkpoint, cache = bvlc
    return checkpoint, OnnxCpu(checkpoint, threads=2, cache_dir=cache)


def enlarged(data: bytes, times: int) -> bytes:
    """A photograph as large as a camera takes it. The ones at hand are so small that the decoder cannot shrink them."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    out = io.BytesIO()
    picture.resize((picture.width * times, picture.height * times), Image.Resampling.BICUBIC).save(
        out, "JPEG", quality=90
    )
    return out.getvalue()


@pytest.mark.parametrize(
    ("photographs", "agree"), [(8, 8), pytest.param(48, 47, marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_answers_are_those_of_a_full_decode(
    googlenet: tuple[Checkpoint, OnnxCpu], test_data: Path, photographs: int, agree: int
) -> None:
    checkpoint, engine = googlenet
    short, whole = [], []
    for file in sorted((test_data / "photos").glob("*.jpg"))[:photographs]:
        data = enlarged(file.read_bytes(), 4)
        short.append(picture_to_crop(data, checkpoint.preprocess, max_pixels=80_000_000))
        whole.append(crop(Image.open(io.BytesIO(data)).convert("RGB"), checkpoint.preprocess))
    assert len(short) == photographs
    differing = sum((a != b).any() for a, b in zip(short, whole, strict=True))
    assert differing > photographs / 2, "hardly any photograph was decoded smaller"
    found, expected = engine.run(np.stack(short)), engine.run(np.stack(whole))
    assert (found.indices[:, 0] == expected.indices[:, 0]).sum() >= agree
    assert np.abs(found.probabilities[:, 0] - expected.probabilities[:, 0]).mean() <= 0.01
