"""The files on which decoders are compared: the same everywhere, ordinary, and of the kinds that matter."""

from __future__ import annotations

import io
from collections import Counter

from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from models.images.baseline import baseline
from service.runtime.decode_gate_pictures import COUNT, files


def test_a_gpu_would_get_every_one_of_them() -> None:
    found = [baseline(file, max_pixels=1 << 24) for file in files()]
    assert len(found) == COUNT == 64
    assert all(file is not None for file in found)


def test_they_have_all_orientations_and_samplings_of_colour() -> None:
    pictures = [Image.open(io.BytesIO(file)) for file in files()]
    assert {picture.getexif().get(274) for picture in pictures} == {None, *range(1, 9)}
    samplings = Counter(get_sampling(picture) for picture in pictures)
    # 4:2:0, which cameras write and in which decoders differ, is the most frequent.
    assert set(samplings) == {0, 1, 2}
    assert samplings[2] > COUNT / 2
    assert {picture.size for picture in pictures} >= {(500, 375), (375, 500)}


def test_no_two_are_alike() -> None:
    assert len(set(files())) == COUNT
