"""What the shrinking JPEG decoder costs in accuracy: answers of BVLC GoogLeNet's real weights, with it and without."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.checkpoints.catalogue import Checkpoint
from models.images.preprocess import crop, picture_to_crop
from service.engines.onnx_cpu import OnnxCpu


@pytest.fixture(scope="module")
def googlenet(bvlc: tuple[Checkpoint, Path]) -> tuple[Checkpoint, OnnxCpu]:
    checkpoint, cache = bvlc
    return checkpoint, OnnxCpu(checkpoint, threads=2, cache_dir=cache)


def enlarged(data: bytes, times: int) -> bytes:
    """As a camera would have taken it: the photographs at hand are so small that nothing is left to save."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    out = io.BytesIO()
    picture.resize((picture.width * times, picture.height * times), Image.Resampling.BICUBIC).save(
        out, "JPEG", quality=90
    )
    return out.getvalue()


@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_answers_are_those_of_a_full_decode(googlenet: tuple[Checkpoint, OnnxCpu], test_data: Path, times: int) -> None:
    checkpoint, engine = googlenet
    short, whole = [], []
    for file in sorted((test_data / "photos").glob("*.jpg")):
        data = enlarged(file.read_bytes(), times) if times > 1 else file.read_bytes()
        short.append(picture_to_crop(data, checkpoint.preprocess, max_pixels=80_000_000))
        whole.append(crop(Image.open(io.BytesIO(data)).convert("RGB"), checkpoint.preprocess))
    assert len(short) == 48
    if times > 1:
        assert any((a != b).any() for a, b in zip(short, whole, strict=True)), "nothing was decoded smaller"
    found, expected = engine.run(np.stack(short)), engine.run(np.stack(whole))
    assert (found.indices[:, 0] == expected.indices[:, 0]).sum() >= 47
    assert np.abs(found.probabilities[:, 0] - expected.probabilities[:, 0]).mean() <= 0.01
