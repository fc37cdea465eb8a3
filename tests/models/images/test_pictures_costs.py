"""Small files that would take long to decode are refused first; metadata and later frames cost nothing."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.images.pictures import TooManyPartsError, TooManyPixelsError, UndecodableError, decode
from tests.picture_files import (
    SIGNATURE,
    a_frame,
    a_square,
    accepted,
    bmp,
    bmp_header,
    chunk,
    encode,
    exif,
    flat,
    many_scans,
    scan_by_scan,
    scans,
    segment,
    with_segments,
)

LIMIT = 80_000_000


def seconds(data: bytes, *, tries: int = 3) -> float:
    """The shortest time of decoding or refusing, on this thread."""
    taken = []
    for _ in range(tries):
        start = time.thread_time()
        with contextlib.suppress(TooManyPartsError, TooManyPixelsError, UndecodableError):
            decode(data, "RGB", max_pixels=LIMIT, at_least=64)
        taken.append(time.thread_time() - start)
    return min(taken)


def test_a_small_picture_may_have_a_hundred_scans() -> None:
    have = len(scans(encode(flat(64), "JPEG", progressive=True)))
    assert accepted(many_scans(flat(64), 100 - have))
    assert not accepted(many_scans(flat(64), 101 - have))


def test_scans_may_pass_over_sixteen_million_samples_however_often() -> None:
    """A hundred scans of 400 x 400 pixels do exactly that; with one row more they are too many."""
    have = len(scans(encode(flat(400), "JPEG", progressive=True)))
    assert accepted(many_scans(flat(400), 100 - have))
    assert not accepted(many_scans(Image.new("L", (400, 401), 100), 100 - have))


def test_a_large_picture_may_have_twelve_passes_over_it() -> None:
    """libjpeg's own progression makes 6 over a grey picture."""
    have = len(scans(encode(flat(2000), "JPEG", progressive=True)))
    assert accepted(many_scans(flat(2000), 12 - have))
    assert not accepted(many_scans(flat(2000), 13 - have))
    with pytest.raises(TooManyPartsError, match=r"13 scans pass over 52,000,000 samples, 13\.0 times"):
        decode(many_scans(flat(2000), 13 - have), "RGB", max_pixels=LIMIT)


def test_a_scan_of_one_component_counts_only_its_samples() -> None:
    """The last scan of a colour picture passes over its brightness alone."""
    have = encode(flat(2000, "RGB"), "JPEG", progressive=True, subsampling=0)
    assert len(scans(have)) == 10
    # 14 passes over a component, of 36 that three may have.
    assert accepted(many_scans(flat(2000, "RGB"), 22, subsampling=0))
    assert not accepted(many_scans(flat(2000, "RGB"), 23, subsampling=0))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"before_marker": b"\xff" * 7},
        {"before_marker": b"junk"},
        {"within": b"\xff\xd0\xff\xd1"},
        {"within": segment(0xFE, b"a comment")},
        {"within": segment(0xDC, b"\0\x10")},
        {"within": segment(0xE1, b"Exif\0\0" + exif(6))},
        {"within": b"\xff\1\xff\0\xff\xff"},
        {"within": b"\xff\2\xff\xff", "interval": 1},
        {"within": b"\xff\xbf\x40\0", "interval": 1},
        {"start_of_frame": 0xC9},
    ],
    ids=[
        "plain",
        "fill bytes",
        "junk",
        "restarts",
        "comments",
        "lines",
        "EXIF",
        "stuffing",
        "no segment",
        "no segment, restarts",
        "arithmetic",
    ],
)
def test_scans_are_counted_however_they_are_hidden(options: dict[str, Any]) -> None:
    if options.get("start_of_frame", 0xC1) == 0xC1:
        assert accepted(scan_by_scan(16, 90, **options))
    assert not accepted(scan_by_scan(16, 98, **options))
    assert not accepted(scan_by_scan(16, 98, **options)[:-2])


def test_scans_that_the_decoder_skips_are_not_counted() -> None:
    plain = encode(flat(64, "RGB"), "JPEG")
    many = many_scans(flat(64, "RGB"), 300)
    for data in (
        # A thumbnail in the EXIF data, a second picture, junk.
        with_segments(plain, segment(0xE1, b"Exif\0\0" + exif(1) + many)),
        plain + many,
        plain + b"\xff\xda" * 5000,
        encode(flat(64, "RGB"), "JPEG", progressive=True) + many,
        encode(flat(64), "MPO", save_all=True, append_images=[flat(64)] * 120),
    ):
        assert accepted(data)


def animation(format: str, frames: int, **options: Any) -> bytes:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)) for _ in range(frames)]
    return encode(pictures[0], format, save_all=True, append_images=pictures[1:], **options)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_frames_behind_the_first_may_be_cut_off(format: str) -> None:
    whole = animation(format, 10)
    first = decode(whole, "RGB", max_pixels=LIMIT).tobytes()
    assert decode(whole[: len(whole) * 6 // 10], "RGB", max_pixels=LIMIT).tobytes() == first
    with pytest.raises(UndecodableError):
        decode(whole[: len(whole) // 20], "RGB", max_pixels=LIMIT)


#: A file that a naive decoder takes long for, and a plain one of the same format and pixels.
SLOW: dict[str, tuple[bytes, bytes]] = {
    "PNG, compressed text": (
        a_square(before=b"".join(chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(10**6), 9)) for i in range(3))),
        a_square(),
    ),
    "PNG, a compressed profile": (
        a_square(before=chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(10**6), 9))),
        a_square(),
    ),
    "PNG, compressed international text behind": (
        a_square(after=chunk(b"iTXt", b"t\0\1\0\0\0" + zlib.compress(bytes(10**6), 9))),
        a_square(),
    ),
    "PNG, pixels without end": (
        SIGNATURE
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(4 * 10**6), 9)),
        a_square(),
    ),
    "JPEG, EXIF of many entries": (
        with_segments(
            encode(flat(40, "RGB"), "JPEG"),
            segment(
                0xE1,
                b"Exif\0\0II*\0"
                + struct.pack("<IH", 8, 300)
                + b"".join(struct.pack("<HHII", 0x8000 + i, 1, 3000, 8) for i in range(300)),
            ),
        ),
        encode(flat(40, "RGB"), "JPEG"),
    ),
    "BMP, 65,536 colours": (
        bmp(bmp_header(8, 8, 8, colours=65536), bytes(64), bytes(1024)),
        bmp(bmp_header(8, 8, 8), bytes(64), bytes(1024)),
    ),
    "GIF, room for a large frame": (
        a_frame(disposal=2, claims=(12_000, 12_000)),
        a_frame(),
    ),
    "WebP, a large canvas": (
        encode(Image.new("RGBA", (8, 8)), "WEBP").replace(b"\x07\0\0\x07\0\0", b"\xff\x2e\0\xff\x2e\0"),
        encode(Image.new("RGBA", (8, 8)), "WEBP"),
    ),
}


def parts(format: str, count: int) -> bytes:
    """A picture with ``count`` segments, chunks or blocks more than a plain one."""
    return {
        "JPEG": with_segments(encode(flat(8), "JPEG"), segment(0xFE) * count),
        "PNG": a_square(before=chunk(b"teXt") * count),
        "GIF": a_frame(before=b"\x21\xfe" + b"\1x" * (count - 1) + b"\0"),
        "GIF, empty blocks": a_frame(before=b"\x21\xfe\0" * count),
        "WEBP": encode(Image.new("RGBA", (8, 8)), "WEBP", lossless=True, exif=b"Exif\0\0" + exif(1))
        + b"ABCD\0\0\0\0" * count,
    }[format]


#: Parts of a plain file up to its pixels: of a JPEG APP0, DQT, SOF, two DHT and SOS; of a PNG IHDR, two IDAT and IEND;
#: of a GIF the graphic control with its one block; of a WebP VP8X, VP8L and EXIF.
PLAIN = {"JPEG": 6, "PNG": 4, "GIF": 2, "WEBP": 3}


@pytest.mark.parametrize("format", PLAIN)
def test_a_quick_decode_takes_sixty_four_parts_and_no_more(format: str) -> None:
    most = 64 - PLAIN[format]
    decode(parts(format, most), "RGB", max_pixels=LIMIT, quick=True)
    with pytest.raises(TooManyPartsError, match="more than 64"):
        decode(parts(format, most + 1), "RGB", max_pixels=LIMIT, quick=True)


def test_a_quick_decode_takes_twelve_scans_and_no_more() -> None:
    have = len(scans(encode(flat(64), "JPEG", progressive=True)))
    decode(many_scans(flat(64), 12 - have), "RGB", max_pixels=LIMIT, quick=True)
    with pytest.raises(TooManyPartsError, match="more than 12 scans"):
        decode(many_scans(flat(64), 13 - have), "RGB", max_pixels=LIMIT, quick=True)


@pytest.mark.parametrize("name", ["a JPEG without an end", "runs of a BMP"])
def test_a_quick_decode_refuses_what_takes_longer_for_its_size(name: str) -> None:
    data = {
        "a JPEG without an end": encode(flat(28, "RGB"), "JPEG")[:-2],
        "runs of a BMP": bmp(bmp_header(8, 8, 8, 1), b"\1\1\0\0" * 8 + b"\0\1", bytes(1024)),
    }[name]
    decode(data, "RGB", max_pixels=LIMIT)
    with pytest.raises(TooManyPartsError):
        decode(data, "RGB", max_pixels=LIMIT, quick=True)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_real_progressive_files_pass_at_any_size(mode: str, subsampling: int) -> None:
    for side in (8, 300, 2000):
        options: dict[str, Any] = {} if mode == "L" else {"subsampling": subsampling}
        assert accepted(encode(flat(side, mode), "JPEG", progressive=True, **options))


@pytest.mark.slow
def test_a_real_progressive_file_of_80_megapixels_passes() -> None:
    assert accepted(encode(flat(8944, "RGB"), "JPEG", progressive=True))


def test_many_scans_cost_no_more_than_few() -> None:
    few, many = many_scans(flat(3000), 0), many_scans(flat(3000), 1500)
    assert len(many) < 200_000
    assert seconds(many) < 2 * seconds(few)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_frames_behind_the_first_cost_nothing(format: str) -> None:
    few, many = animation(format, 2), animation(format, 60)
    with Image.open(io.BytesIO(many)) as picture:
        assert picture.n_frames == 60  # type: ignore[attr-defined]
    expected = decode(few, "RGB", max_pixels=LIMIT).tobytes()
    assert decode(many, "RGB", max_pixels=LIMIT).tobytes() == expected
    assert seconds(many, tries=20) < 3 * seconds(few, tries=20)


@pytest.mark.parametrize("name", SLOW)
def test_a_small_file_takes_no_longer_than_a_plain_one_like_it(name: str) -> None:
    slow, plain = SLOW[name]
    assert len(slow) < 5000
    assert seconds(slow, tries=20) < 4 * seconds(plain, tries=20)


def test_lines_of_runs_cost_what_a_plain_bmp_does() -> None:
    """Pillow fills the rest of a line pixel by pixel in Python."""
    side = 2000
    runs = bmp(bmp_header(side, side, 8, 1), b"\1\1\0\0" * side + b"\0\1", bytes(1024))
    plain = bmp(bmp_header(side, side, 24), bytes(3 * side * side))
    assert len(runs) < 10_000
    assert seconds(runs) < 40 * seconds(plain)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "GIF, empty blocks", "WEBP"])
def test_files_of_very_many_parts_are_refused(name: str) -> None:
    assert accepted(parts(name, 60_000))
    assert not accepted(parts(name, 66_000))
