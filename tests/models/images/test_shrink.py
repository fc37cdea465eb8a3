"""Large pictures become small ones: the same answer, a fraction of the memory."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.images import pictures
from models.images.pictures import decode
from models.images.preprocess import PRESETS, Preprocess, picture_to_crop, shrink_for
from models.images.shrink import WHOLE_PIXELS, Shrink, shrunk, strips_of
from tests.picture_files import encode, gif

sides = st.integers(1, 90)


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(size[0])
    bands = random.integers(0, 256, (size[1], size[0], len(mode)), np.uint8)
    return Image.fromarray(bands[..., 0] if mode == "L" else bands, mode)


@given(sides, sides, st.data())
def test_strips_make_the_same_picture_as_the_whole(width: int, height: int, data: st.DataObject) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = (left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    across, down = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    picture = noise((width, height))
    shrink = Shrink(box, across, down).in_strips(width)
    edges = shrink.edges(width, height)
    if data.draw(st.booleans()):
        # As short as they may be.
        edges = sorted({0, *range(shrink.box[1] % down, height, down), height})
    found = shrunk(strips_of(picture, edges), lambda strip: strip, shrink)
    assert np.array_equal(np.asarray(found), np.asarray(picture.crop(shrink.box).reduce((across, down))))
    assert found.size == shrink.size


@given(sides, sides, st.integers(1, 9), st.integers(1, 9))
def test_what_makes_no_whole_pixel_is_left_out_on_both_sides(width: int, height: int, across: int, down: int) -> None:
    left, top, right, bottom = Shrink((0, 0, width, height), across, down).in_strips(width).box
    assert (right - left, bottom - top) == (width // across * across or width, height // down * down or height)
    assert 0 <= (width - right) - left <= 1
    assert 0 <= (height - bottom) - top <= 1


@given(st.integers(1, 10**8), st.integers(1, 2000))
def test_strips_have_a_bounded_number_of_pixels(width: int, down: int) -> None:
    shrink = Shrink((0, 0, width, 10_000), down, down).in_strips(width)
    edges = shrink.edges(width, 10_000)
    assert (edges[0], edges[-1]) == (0, 10_000)
    rows = max(bottom - top for top, bottom in pairwise(edges))
    assert rows * width <= 1 << 20 or rows == 1


@pytest.mark.parametrize("name", PRESETS)
@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_picture_stays_three_times_as_large_as_it_is_scaled_to(name: str, width: int, height: int) -> None:
    preprocess = PRESETS[name]
    shrink = shrink_for((width, height), preprocess)
    assert shrink.across == shrink.down or preprocess.fit == "warp"
    left, top, right, bottom = shrink.box
    assert abs(left - (width - right)) <= 1
    assert abs(top - (height - bottom)) <= 1
    whole = {"warp": shrink.size, "contain": (max(shrink.size),), "short side": (min(shrink.size),)}[preprocess.fit]
    stored = {"warp": (width, height), "contain": (max(width, height),), "short side": (min(width, height),)}
    for small, large in zip(whole, stored[preprocess.fit], strict=True):
        assert small >= min(large, 3 * preprocess.resize)
        # And not much larger than that.
        assert small < 6 * preprocess.resize + 2 or small == large
    if preprocess.fit == "short side":
        assert max(right, bottom) - max(left, top) <= 3 * min(width, height) or max(width, height) < 4 * min(
            width, height
        )
    else:
        assert shrink.box == (0, 0, width, height)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture counts as large."""
    monkeypatch.setattr(pictures, "WHOLE_PIXELS", 0)


def photograph(size: tuple[int, int] = (700, 620)) -> Image.Image:
    """Smooth shapes, as a photograph has them."""
    cells = Image.fromarray(np.random.default_rng(5).integers(0, 256, (9, 11, 3), np.uint8))
    return cells.resize(size, Image.Resampling.BICUBIC)


def with_alphas(picture: Image.Image) -> Image.Image:
    made = picture.copy()
    made.putalpha(Image.linear_gradient("L").resize(picture.size))
    return made


SMALL = Preprocess("short side", 64, 56)
FILES: dict[str, bytes] = {
    "PNG": encode(photograph()),
    "PNG, grey": encode(photograph().convert("L")),
    "PNG, alphas": encode(with_alphas(photograph())),
    "PNG, palette": encode(photograph().quantize(64), transparency=bytes(range(0, 256, 4))),
    "PNG, 16 bits": encode(Image.fromarray(np.asarray(photograph().convert("L")).astype(np.uint16) << 8)),
    "WEBP": encode(photograph(), "WEBP", quality=90),
    "WEBP, alphas": encode(with_alphas(photograph()), "WEBP", lossless=True),
    "GIF": encode(photograph().quantize(64), "GIF"),
    "BMP": encode(photograph(), "BMP"),
    "JPEG": encode(photograph(), "JPEG", quality=95),
    "JPEG, CMYK": encode(photograph().convert("CMYK"), "JPEG", quality=95),
}


@pytest.mark.parametrize("fit", ["short side", "warp", "contain"])
@pytest.mark.parametrize("name", FILES)
def test_a_large_picture_gives_nearly_the_crop_of_the_whole(
    name: str, fit: Literal["short side", "warp", "contain"], monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess = Preprocess(fit, 64, 56)
    expected = picture_to_crop(FILES[name], preprocess, max_pixels=10**6).astype(int)
    monkeypatch.setattr(pictures, "WHOLE_PIXELS", 0)
    found = picture_to_crop(FILES[name], preprocess, max_pixels=10**6).astype(int)
    assert np.abs(found - expected).max() <= 12
    assert np.abs(found - expected).mean() < 1


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_picture_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # A long picture, whose middle is cut out, and whose sides differ.
    picture = photograph((1200, 250))
    found = picture_to_crop(encode(picture, exif=exif), SMALL, max_pixels=10**6).astype(int)
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation]
    expected = picture_to_crop(encode(picture), SMALL, max_pixels=10**6)
    assert np.abs(found - upright(expected).astype(int)).mean() < 2
    assert found.std() > 20


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", ["PNG, 16 bits", "PNG, palette", "PNG, alphas", "BMP", "GIF", "WEBP, alphas"])
def test_without_scaling_every_pixel_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = decode(FILES[name], "RGB", max_pixels=10**6)
    monkeypatch.setattr(pictures, "WHOLE_PIXELS", 10**9)
    assert np.array_equal(np.asarray(found), np.asarray(decode(FILES[name], "RGB", max_pixels=10**6)))


@pytest.mark.usefixtures("always")
def test_a_large_gif_is_white_outside_its_first_frame() -> None:
    pixels = np.zeros((200, 300), np.uint8)
    data = gif((600, 400), pixels, (150, 100), np.zeros((128, 3), np.uint8))
    found = picture_to_crop(data, Preprocess("warp", 60, 60), max_pixels=10**6)
    expected = np.full((60, 60, 3), 255)
    expected[15:45, 15:45] = 0
    assert np.abs(found.astype(int) - expected).mean() < 8
    assert found[30, 30].max() == 0
    assert found[2, 2].min() == 255


def test_a_picture_of_ordinary_size_is_not_touched() -> None:
    """Full HD, as screens are, and a megapixel more would be shrunk."""
    assert 1920 * 1080 < WHOLE_PIXELS < 4_000_000


def test_the_memory_of_a_large_picture_is_not_that_of_its_pixels() -> None:
    """Of 49 million RGBA pixels Pillow would hold 196 MB, and composite them in three times that."""
    import tracemalloc

    data = encode(Image.new("RGBA", (7000, 7000)))
    seen: list[Any] = []
    real = Image.core.new

    def noting(mode: str, size: tuple[int, int]) -> Any:
        seen.append(size[0] * size[1])
        return real(mode, size)

    tracemalloc.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.core, "new", noting)
        picture_to_crop(data, PRESETS["half-224"], max_pixels=80_000_000)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert seen
    assert max(seen) < 4_000_000
