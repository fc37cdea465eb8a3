"""The crops whose answers are averaged, compared pixel for pixel with torchvision's."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import CenterCrop, FiveCrop, Resize, TenCrop

from models.data.errors import DataError
from models.evaluation.crops import SCHEMES, Scheme, crops_in, decoded_as, take
from models.images.preprocess import PRESETS, Preprocess, crop, picture_to_crop
from tests.pictures import DIGIT

PHOTOGRAPH = PRESETS["torchvision-224"]
#: A network whose crops are small, for tests that only count them.
SMALL = replace(PHOTOGRAPH, resize=16, crop=14)


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    shape = (height, width, 3) if channels == 3 else (height, width)
    return Image.fromarray(np.random.default_rng(width * 9973 + height).integers(0, 256, shape, dtype=np.uint8))


def shares(picture: Image.Image, preprocess: Preprocess, scheme: Scheme) -> dict[bytes, float]:
    """The share of each crop in the mean; the shares of equal crops are added."""
    pixels, weights = take(picture, preprocess, scheme)
    found: Counter[bytes] = Counter()
    for each, weight in zip(pixels, weights, strict=True):
        found[each.tobytes()] += float(weight)  # type: ignore[assignment]
    return dict(found)


def even(pictures: list[Image.Image]) -> dict[bytes, float]:
    counts = Counter(np.asarray(each).tobytes() for each in pictures)
    return {content: count / len(pictures) for content, count in counts.items()}


@settings(max_examples=30)
@given(width=st.integers(1, 400), height=st.integers(1, 400), preset=st.sampled_from(sorted(PRESETS)))
def test_the_single_crop_is_the_one_that_is_served(width: int, height: int, preset: str) -> None:
    preprocess = PRESETS[preset]
    picture = noise(width, height, preprocess.channels)
    pixels, weights = take(picture, preprocess, "single")
    assert weights.tolist() == [1.0]
    assert np.array_equal(pixels[0], crop(picture, preprocess))


def test_a_photograph_is_decoded_for_the_single_crop_as_in_serving() -> None:
    assert decoded_as(PHOTOGRAPH, "single") == PHOTOGRAPH
    assert decoded_as(PHOTOGRAPH, "10").resize == 256
    assert decoded_as(PHOTOGRAPH, "144").resize == 352
    assert decoded_as(PRESETS["cifar10"], "144").resize == 50
    digit = DIGIT.read_bytes()
    served = picture_to_crop(digit, PRESETS["mnist"], max_pixels=10**6)
    assert np.array_equal(take(Image.open(DIGIT).convert("L"), PRESETS["mnist"], "single").pixels[0], served)


@pytest.mark.parametrize("size", [(300, 256), (400, 333), (256, 256), (257, 400)])
def test_ten_crops_are_torchvisions_of_the_middle_square(size: tuple[int, int]) -> None:
    picture = noise(*size)
    square = CenterCrop(256)(Resize(256)(picture))
    found, wanted = shares(picture, PHOTOGRAPH, "10"), even(list(TenCrop(224)(square)))
    assert found.keys() == wanted.keys()
    assert all(found[each] == pytest.approx(wanted[each]) for each in wanted)


# In the last size but one, two of three squares fall together; in the last one, all three.
@pytest.mark.parametrize("size", [(400, 300), (300, 500), (400, 398), (320, 320)])
def test_144_crops_are_those_of_the_paper(size: tuple[int, int]) -> None:
    picture, expected = noise(*size), []
    for scale in (256, 288, 320, 352):
        whole = Resize(scale)(picture)
        width, height = whole.size
        middle = CenterCrop(scale)(whole)
        ends = [whole.crop((0, 0, scale, scale)), whole.crop((width - scale, height - scale, width, height))]
        for square in (middle, *ends):
            expected += [*FiveCrop(224)(square), square.resize((224, 224), Image.Resampling.BILINEAR)]
    expected += [ImageOps.mirror(each) for each in expected]
    assert len(expected) == 144
    found, wanted = shares(picture, PHOTOGRAPH, "144"), even(expected)
    assert found.keys() == wanted.keys()
    assert all(found[each] == pytest.approx(wanted[each]) for each in wanted)


def test_squares_that_fall_together_are_cut_once() -> None:
    assert len(take(noise(50, 50), SMALL, "144").pixels) == 48
    assert len(take(noise(200, 50), SMALL, "144").pixels) == 144


def test_a_warped_picture_keeps_its_aspect_for_three_squares() -> None:
    warped = replace(SMALL, fit="warp")
    picture = noise(80, 50)
    assert shares(picture, warped, "144") == shares(picture, SMALL, "144")
    assert shares(picture, warped, "10") == shares(picture.resize((16, 16), Image.Resampling.BILINEAR), SMALL, "10")


def test_thumbnails_are_enlarged_so_that_they_have_corners() -> None:
    picture, cifar10 = noise(48, 32), PRESETS["cifar10"]
    square = picture.resize((37, 37), Image.Resampling.BILINEAR)
    five = [each.resize((64, 64), Image.Resampling.BILINEAR) for each in FiveCrop(32)(square)]
    expected = even([*five, *map(ImageOps.mirror, five)])
    assert len(expected) == 10
    assert shares(picture, cifar10, "10") == pytest.approx(expected)


def test_ink_is_made_light_and_is_not_mirrored() -> None:
    light, mnist = Image.open(DIGIT).convert("L"), PRESETS["mnist"]
    dark = ImageOps.invert(light)
    for scheme, count in (("single", 1), ("10", 5), ("144", 24)):
        found = shares(light, mnist, scheme)  # type: ignore[arg-type]
        assert found == shares(dark, mnist, scheme)  # type: ignore[arg-type]
        assert len(found) == count


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_crops_of_each_preset_have_its_shape_and_are_counted(preset: str, scheme: Scheme) -> None:
    preprocess = PRESETS[preset]
    pixels, weights = take(noise(90, 60, preprocess.channels), preprocess, scheme)
    assert pixels.shape == (len(weights), preprocess.side, preprocess.side, preprocess.channels)
    assert weights.dtype == np.float32
    assert weights.sum() == pytest.approx(1)
    times = weights * crops_in(preprocess, scheme)
    assert times == pytest.approx(times.round(), abs=1e-4)
    assert times.min() >= 0.99
    assert crops_in(preprocess, scheme) == {"single": 1, "10": 5, "144": 72}[scheme] * (
        1 if scheme == "single" or preset == "mnist" else 2
    )


@pytest.mark.parametrize("scheme", ["10", "144"])
def test_without_torchvision_the_answer_says_what_to_install(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    unseen = replace(SMALL, crop=13)
    assert len(take(noise(30, 20), unseen, "single").pixels) == 1
    with pytest.raises(DataError, match=r"cut with torchvision.*pip install -e '\.\[train\]'$"):
        take(noise(30, 20), unseen, scheme)
