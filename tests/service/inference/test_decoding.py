"""Decoding: which pictures are small enough for the event loop; what the shrinking JPEG decoder costs in accuracy."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.images.pictures import TooManyPixelsError, UndecodableError
from models.images.preprocess import crop, picture_to_crop
from service.engines.onnx_cpu import OnnxCpu
from service.inference.decoding import decode, decode_small
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


@pytest.mark.parametrize(("side", "small"), [(28, True), (128, True), (500, False), (1200, False)])
def test_a_picture_that_takes_a_third_of_a_millisecond_is_not_small(side: int, small: bool) -> None:
    file = picture(side=side)
    assert len(file) <= 4096
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
