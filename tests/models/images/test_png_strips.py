"""A PNG decoded in strips has the pixels that Pillow decodes as a whole."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.images import pictures
from models.images.pictures import UndecodableError, decode
from models.images.png import Png, read_chunks
from models.images.png_strips import in_strips, strips
from models.images.shrink import Shrink
from tests.picture_files import SIGNATURE, chunk, packed, png

#: Colour type and samples a pixel.
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [(depth, 0) for depth in (1, 2, 4, 8, 16)] + [(depth, 3) for depth in (1, 2, 4, 8)]
KINDS += [(depth, colour) for colour in (2, 4, 6) for depth in (8, 16)]


def paeth(left: int, above: int, corner: int) -> int:
    """The predictor of the PNG specification, section 9.4."""
    estimate = left + above - corner
    return min((left, above, corner), key=lambda value: abs(estimate - value))


def filtered(rows: list[bytes], distance: int, kinds: list[int]) -> bytes:
    """Rows with a filter each, by the definitions of the specification, section 9.2."""
    out, before = bytearray(), bytes(len(rows[0]))
    for row, kind in zip(rows, kinds, strict=True):
        out.append(kind)
        for at, value in enumerate(row):
            left, corner = (row[at - distance], before[at - distance]) if at >= distance else (0, 0)
            above = before[at]
            predicted = (0, left, above, (left + above) // 2, paeth(left, above, corner))[kind]
            out.append((value - predicted) & 255)
        before = row
    return bytes(out)


def made(
    random: np.random.Generator, depth: int, colour: int, size: tuple[int, int], *, key: bool = False, split: int = 1
) -> bytes:
    """A PNG of random pixels and filters, its data in ``split`` chunks; with a transparent colour or alphas."""
    width, height = size
    samples = random.integers(0, 1 << depth, (height, width, SAMPLES[colour]))
    rows = [packed(row, depth) for row in samples]
    distance = max(1, depth * SAMPLES[colour] // 8)
    data = zlib.compress(filtered(rows, distance, random.integers(0, 5, height).tolist()))
    extra = b""
    if colour == 3:
        extra = chunk(b"PLTE", random.bytes(3 << depth))
        extra += chunk(b"tRNS", random.bytes(1 << depth)) if key else b""
    elif key:
        extra = chunk(b"tRNS", np.asarray(samples[height // 2, width // 2], ">u2").tobytes())
    ends = [len(data) * part // split for part in range(split + 1)]
    pixels = b"".join(chunk(b"IDAT", data[a:b]) for a, b in itertools.pairwise(ends))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", head) + extra + pixels + chunk(b"IEND")


def read(data: bytes) -> Png:
    return read_chunks(data, most_parts=1000)


def edges(height: int, rows: int) -> list[int]:
    return sorted({*range(0, height, rows), height})


def whole(data: bytes, mode: pictures.Mode = "RGB") -> npt.NDArray[np.uint8]:
    return np.asarray(decode(data, mode, max_pixels=10**7))


@pytest.mark.parametrize("key", [False, True], ids=["opaque", "key"])
@pytest.mark.parametrize(("depth", "colour"), KINDS)
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_every_kind_and_filter(monkeypatch: pytest.MonkeyPatch, depth: int, colour: int, rows: int, key: bool) -> None:
    if key and colour in (4, 6):
        pytest.skip("it has alphas already")
    data = made(np.random.default_rng(depth * 8 + colour), depth, colour, (13, 17), key=key, split=3)
    expected = whole(data), whole(data, "L")
    monkeypatch.setattr(pictures, "WHOLE_PIXELS", 0)
    monkeypatch.setattr(Shrink, "edges", lambda _self, _width, height: edges(height, rows))
    assert in_strips(read(data))
    assert np.array_equal(whole(data), expected[0])
    assert np.array_equal(whole(data, "L"), expected[1])


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 20), st.integers(1, 9),
    st.integers(1, 12),
)  # fmt: skip
def test_pixels_of_any_picture(
    seed: int, kind: tuple[int, int], width: int, height: int, rows: int, split: int
) -> None:
    data = made(np.random.default_rng(seed), *kind, (width, height), split=split)
    found = [np.asarray(strip.convert("RGBA")) for strip in strips(read(data), edges(height, rows))]
    assert [len(strip) for strip in found[:-1]] == [rows] * (len(found) - 1)
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode.startswith("I"):
            values = np.asarray(picture).astype(int) >> 8
            expected = np.asarray(Image.fromarray(values.astype(np.uint8)).convert("RGBA"))
        else:
            expected = np.asarray(picture.convert("RGBA"))
    assert np.array_equal(np.concatenate(found), expected)


def test_an_interlaced_file_is_not_read_in_strips() -> None:
    assert not in_strips(read(png(np.zeros((9, 9, 3), np.uint8), interlaced=True)))
    assert in_strips(read(png(np.zeros((9, 9, 3), np.uint8))))


@pytest.mark.parametrize(("depth", "colour"), [(3, 2), (16, 3), (4, 6), (8, 5), (0, 0)])
def test_kinds_that_do_not_exist_are_left_to_pillow(depth: int, colour: int) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, depth, colour, 0, 0, 0))
    assert not in_strips(Png(SIGNATURE + header, None, depth, colour, None))
    assert not in_strips(Png(SIGNATURE, None, depth, colour, None))


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_damage_is_told(rows: int) -> None:
    data = made(np.random.default_rng(1), 8, 2, (40, 30))
    broken = bytearray(data)
    broken[600:690] = bytes(90)
    no_palette = made(np.random.default_rng(1), 8, 3, (40, 30)).replace(b"PLTE", b"PLTX")
    header = data.replace(b"IDAT\x78\x9c", b"IDAT\x79\x9c")
    assert header != data
    for file in (cut(data, 0.5), cut(data, 0.95), bytes(broken), no_palette, header, cut(data, 0.02)):
        with pytest.raises((UndecodableError, OSError)):
            for _ in strips(read(file), edges(30, rows)):
                pass


def test_bytes_behind_the_pixels_do_not_matter() -> None:
    data = made(np.random.default_rng(1), 8, 2, (40, 30))
    more = made(np.random.default_rng(1), 8, 2, (40, 60))
    # The header of the one, the data of the other: 30 rows more than the picture has.
    file = data[:33] + more[33:]
    expected = np.asarray(Image.open(io.BytesIO(more)))[:30]
    assert np.array_equal(np.concatenate([np.asarray(s) for s in strips(read(file), edges(30, 7))]), expected)
    assert np.array_equal(whole(file), expected)


def test_a_wrong_checksum_is_told_as_pillow_tells_it() -> None:
    data = made(np.random.default_rng(1), 8, 2, (40, 30))
    at = data.index(b"IEND") - 8
    wrong = data[: at - 4] + b"\1\2\3\4" + data[at:]
    for decoding in (lambda: whole(wrong), lambda: list(strips(read(wrong), edges(30, 7)))):
        with pytest.raises(UndecodableError):
            decoding()
