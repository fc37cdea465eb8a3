"""Prices: what decoding takes, by the outline alone."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.images.cost import RATES, UNBOUNDED, Price, Rate, check, loaded_size, price, work_of
from models.images.errors import TooMuchWorkError
from models.images.outline import Outline, glance
from models.images.preprocess import PRESETS, Preprocess, picture_to_crop
from tests.picture_files import encode

LARGE, LENET = PRESETS["half-224"], PRESETS["mnist"]
NOTHING = Rate(0, 0, 0, 0)
ONLY = dict.fromkeys(RATES, NOTHING)


def outline(kind: Any = "png", width: int = 100, height: int = 50, **fields: Any) -> Outline:
    return Outline(kind, width, height, **{"size": 1000, "units": 7000.0, **fields})


def test_a_price_is_the_sum_of_file_bytes_units_and_pixels() -> None:
    rates = {**ONLY, "png": Rate(5, 2, 3, 0.5)}
    assert price(outline(), LARGE, rates).seconds == pytest.approx(5e-6 + (2000 + 21_000 + 2500) * 1e-9)


def test_cutting_the_crop_has_its_price_and_less_in_grey() -> None:
    rates = {**ONLY, "crop": Rate(4, 0, 2, 10)}
    # 100 x 50 pixels become 512 x 256.
    assert price(outline(), LARGE, rates).seconds == pytest.approx(4e-6 + (5000 * 2 + 512 * 256 * 10) * 1e-9)
    assert price(outline(), LENET, rates).seconds == pytest.approx(4e-6 + (5000 * 2 + 28 * 28 * 10) / 3 * 1e-9)
    # Of a long picture, only the middle is scaled: to 16 times its short side.
    assert price(outline(width=10_000, height=1), LARGE, rates).seconds == pytest.approx(
        4e-6 + (10_000 * 2 + 256 * 16 * 256 * 10) * 1e-9
    )


@pytest.mark.parametrize(("side", "by"), [(1000, 1), (1024, 2), (2047, 2), (2048, 4), (4096, 8), (20_000, 8)])
def test_a_jpeg_is_decoded_at_the_size_that_pillow_takes(side: int, by: int) -> None:
    assert loaded_size(outline("jpeg", side, side + 100), LARGE) == (-(-side // by), -(-(side + 100) // by))
    assert loaded_size(outline("png", side, side), LARGE) == (side, side)
    from PIL.JpegImagePlugin import JpegImageFile

    if side < 5000:
        import io

        picture = JpegImageFile(io.BytesIO(encode(Image.new("L", (side, side + 100)), "JPEG")))
        picture.draft(None, (2 * LARGE.resize, 2 * LARGE.resize))
        assert picture.size == loaded_size(outline("jpeg", side, side + 100), LARGE)


def test_memory_is_that_of_the_decoded_picture_and_what_the_decoder_has_beside_it() -> None:
    side = 5000
    interlaced = price(outline("png interlaced", side, side), LARGE).held
    assert 4 * side**2 < interlaced < 4 * side**2 + 30_000_000
    assert price(outline("png alpha", side, side), LARGE).held < 30_000_000
    canvases = price(outline("webp", side, side, extra=8.0), LARGE).held
    assert 12 * side**2 < canvases < 12 * side**2 + 30_000_000
    # At an eighth of its size, and all coefficients.
    scans = price(outline("jpeg scans", side, side, extra=6.0), LARGE).held
    assert 6 * side**2 < scans < 6 * side**2 + 20_000_000
    # A row that is as long as a picture is held several times.
    assert price(outline("png", 80_000_000, 1), LARGE).held > 10**9
    assert price(outline("png alpha", 1000, 1000), LARGE).held > price(outline("png", 1000, 1000), LARGE).held


def test_what_is_above_a_limit_is_refused_with_both_numbers() -> None:
    large = outline("webp lossless", 5000, 4000, units=2e7, extra=8.0)
    check(large, preprocess=LARGE, most=UNBOUNDED)
    found = price(large, LARGE)
    check(large, preprocess=LARGE, most=found)
    with pytest.raises(
        TooMuchWorkError, match=r"lossless WebP of 5,000 x 4,000 pixels takes about \d+ ms; the limit is 50 ms"
    ):
        check(large, preprocess=LARGE, most=Price(0.05, found.held))
    with pytest.raises(TooMuchWorkError, match=r"takes about 2\d\d MB of memory; the limit is 100 MB"):
        check(large, preprocess=LARGE, most=Price(found.seconds, 100_000_000))


def test_a_photograph_of_a_phone_is_not_dear_and_the_pictures_of_the_findings_are() -> None:
    phone = Outline("jpeg", 4032, 3024, 4_000_000, 4032 * 3024 * 1.5)
    assert not work_of(phone, LARGE).dear
    assert not work_of(outline(), LARGE).dear
    for kind, units in (("png alpha", 4.0), ("png", 3.0), ("webp", 1.0), ("png interlaced", 4.0)):
        assert work_of(outline(kind, 8900, 8900, units=units * 8900**2), LARGE).dear
    assert work_of(None, LARGE).dear


def noise(side: int, mode: str) -> Image.Image:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def seconds(data: bytes, preprocess: Preprocess) -> float:
    times = []
    for _ in range(7):
        started = time.thread_time()
        picture_to_crop(data, preprocess, max_pixels=10**8)
        times.append(time.thread_time() - started)
    return min(times)


@pytest.mark.parametrize("preset", ["mnist", "half-224"])
def test_prices_of_pictures_have_the_order_of_their_times(preset: str) -> None:
    """Not the times themselves, which are another machine's: no picture takes ten times as long for its price as
    another does."""
    files = {}
    for format, options, mode in (
        ("JPEG", {}, "RGB"), ("JPEG", {"progressive": True}, "RGB"), ("PNG", {}, "RGB"), ("PNG", {}, "RGBA"),
        ("PNG", {}, "L"), ("WEBP", {}, "RGB"), ("WEBP", {"lossless": True}, "RGB"), ("GIF", {}, "P"),
        ("BMP", {}, "RGB"),
    ):  # fmt: skip
        for side in (28, 300, 900):
            files[format, str(options), mode, side] = encode(noise(side, mode), format, **options)
    ratios = {}
    for name, data in files.items():
        found = glance(data)
        assert found is not None
        ratios[name] = seconds(data, PRESETS[preset]) / price(found, PRESETS[preset]).seconds
    assert max(ratios.values()) < 10 * min(ratios.values()), ratios


@given(
    st.sampled_from(sorted(set(RATES) - {"crop", "large"})),
    st.integers(0, 10**5),
    st.integers(0, 10**5),
    st.sampled_from(sorted(PRESETS)),
)
def test_every_outline_has_a_price(kind: Any, width: int, height: int, preset: str) -> None:
    found = price(outline(kind, width, height, units=float(width * height)), PRESETS[preset])
    assert found.seconds > 0
    assert found.held >= 0
    more = price(outline(kind, width, height, units=float(width * height), size=10**6), PRESETS[preset])
    assert more.seconds >= found.seconds
