"""PNG files: chunks that do not affect pixels may be damaged or huge; EXIF data turn the picture."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.images import pictures
from models.images.pictures import FORMATS, PictureError, TooManyPartsError, UndecodableError, decode
from models.images.png import with_right_checksum
from tests.picture_files import PALETTE, SCENE, chunk, exif, png


def pixels(data: bytes, mode: Literal["RGB", "L"] = "RGB") -> npt.NDArray[np.int64]:
    return np.asarray(decode(data, mode, max_pixels=10**6)).astype(np.int64)


TEXT = zlib.compress(b"node " * 600_000, 9)
CHUNKS = {
    "3 MB of compressed text": chunk(b"zTXt", b"workflow\0\0" + TEXT),
    "3 MB of compressed international text": chunk(b"iTXt", b"workflow\0\1\0\0\0" + TEXT),
    "3 MB of international text": chunk(b"iTXt", b"workflow\0\0\0\0\0" + b"node " * 600_000),
    "90 MB of text in 90 chunks": b"".join(
        chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(10**6), 9)) for i in range(90)
    ),
    "a profile of 3 MB": chunk(b"iCCP", b"profile\0\0" + TEXT),
    "a profile of unknown compression": chunk(b"iCCP", b"profile\0\7" + TEXT),
    "text of unknown compression": chunk(b"zTXt", b"workflow\0\7" + TEXT),
    "an empty profile": chunk(b"iCCP"),
    "a wrong checksum in text": chunk(b"tEXt", b"Comment\0x", checksum=1),
    "a wrong checksum in gamma": chunk(b"gAMA", b"\0\0\1\0", checksum=1),
    "gamma cut short": chunk(b"gAMA", b"\0"),
    "size in metres cut short": chunk(b"pHYs", b"\0"),
    "colours of white cut short": chunk(b"cHRM", b"\0" * 8),
    "an empty intent": chunk(b"sRGB"),
    "an animation cut short": chunk(b"acTL", b"\0"),
    "an animation of no frames": chunk(b"acTL", bytes(8)),
    "a frame out of turn": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", struct.pack(">I", 7) + bytes(22)),
    "private chunks": chunk(b"prVt", bytes(1000)) + chunk(b"abCd", checksum=0),
    "a palette of no use": chunk(b"PLTE", bytes(range(30))),
    "damaged EXIF data": chunk(b"eXIf", b"MM\0*" + b"\xff" * 20),
    "EXIF data in text, which browsers leave alone": chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n      26\n" + exif(6).hex().encode() + b"\n")
    ),
    "an orientation in XMP, which browsers leave alone": chunk(
        b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    ),
    "EXIF data of a wrong checksum": chunk(b"eXIf", exif(6), checksum=1),
}


@pytest.mark.parametrize("place", ["before", "between", "after"])
@pytest.mark.parametrize("name", CHUNKS)
def test_metadata_chunks_of_a_png_do_not_affect_pixels(name: str, place: str) -> None:
    assert np.array_equal(pixels(png(SCENE, **{place: CHUNKS[name]})), SCENE)
    indices = np.arange(40 * 56).reshape(40, 56, 1) % 200
    palette = np.random.default_rng(1).integers(0, 256, (200, 3))
    options: dict[str, Any] = {"before": chunk(b"PLTE", palette.astype(np.uint8).tobytes())}
    options[place] = options.get(place, b"") + CHUNKS[name]
    assert np.array_equal(pixels(png(indices, 8, PALETTE, **options)), palette[indices[..., 0]])


@pytest.mark.parametrize("lost", [4, 11, 12, 13, 16, 500])
def test_a_png_that_is_cut_behind_its_pixels(lost: int) -> None:
    data = png(SCENE, after=chunk(b"tEXt", b"Comment\0" + bytes(1000)))
    assert np.array_equal(pixels(data[:-lost]), SCENE)


def test_a_png_that_is_cut_in_its_pixels_is_refused() -> None:
    with pytest.raises(UndecodableError, match="truncated"):
        pixels(png(SCENE)[:-200])


def test_a_second_header_of_a_png_is_ignored() -> None:
    other = chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))
    assert np.array_equal(pixels(png(SCENE, before=other)), SCENE)


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_exif_data_anywhere_turn_a_png(place: str) -> None:
    found = pixels(png(SCENE, **{place: chunk(b"eXIf", exif(6))}))
    assert np.array_equal(found, np.rot90(SCENE, -1))
    # Of two the first counts.
    found = pixels(png(SCENE, **{place: chunk(b"eXIf", exif(8)) + chunk(b"eXIf", exif(6))}))
    assert np.array_equal(found, np.rot90(SCENE, 1))


def outcome(data: bytes, mode: Literal["RGB", "L"], max_pixels: int) -> tuple[object, ...]:
    """The pixels of a file, or why it is refused."""
    try:
        picture = decode(data, mode, max_pixels=max_pixels)
    except PictureError as error:
        return type(error), str(error)
    return picture.mode, picture.size, picture.tobytes()


@settings(deadline=None)
@given(
    colour=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    header=st.sampled_from([None, None, (20_000, 9_000), (60_000, 60_000), (0, 5), (3, 4)]),
    damage=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=2),
    length=st.one_of(st.none(), st.integers(0, 120)),
    mode=st.sampled_from(["RGB", "L"]),
    limits=st.sampled_from([(4, 89_478_485), (10**6, 89_478_485), (10**6, None)]),
)
def test_a_png_is_accepted_or_refused_as_by_image_open(
    colour: str,
    size: tuple[int, int],
    header: tuple[int, int] | None,
    damage: list[tuple[int, int]],
    length: int | None,
    mode: Literal["RGB", "L"],
    limits: tuple[int, int | None],
) -> None:
    """Pixels, refusals and their words, whole and damaged, at our limit."""
    out = io.BytesIO()
    Image.new(colour, size).save(out, "PNG")
    data = bytearray(out.getvalue())
    if header is not None:
        body = b"IHDR" + struct.pack(">II", *header) + data[24:29]
        data[12:33] = body + struct.pack(">I", zlib.crc32(body))
    for at, value in damage:
        data[at % len(data)] = value
    file, (max_pixels, pillows) = bytes(data[:length]), limits
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        found = outcome(file, mode, max_pixels)
        patched.setattr(Image, "MAX_IMAGE_PIXELS", None)
        patched.setattr(pictures, "PngImageFile", lambda stream: Image.open(stream, formats=FORMATS))
        assert outcome(file, mode, max_pixels) == found


def with_data(data: bytes, *, checksum: int | None = None) -> bytes:
    """A PNG of the scene with other compressed data."""
    return png(SCENE)[:33] + chunk(b"IDAT", data, checksum=checksum) + chunk(b"IEND")


ROWS = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in SCENE)
PACKED = zlib.compress(ROWS)


def test_a_wrong_checksum_of_the_data_alone_is_repaired() -> None:
    wrong = PACKED[:-4] + bytes(4)
    assert np.array_equal(pixels(with_data(wrong)), SCENE)
    mended = with_right_checksum(with_data(wrong), most_bytes=len(ROWS))
    assert mended == with_data(PACKED)
    # In several chunks, and without its last bytes.
    for end in range(1, 5):
        parts = PACKED[:100], PACKED[100:-end]
        whole = png(SCENE)[:33] + b"".join(chunk(b"IDAT", part) for part in parts) + chunk(b"IEND")
        assert with_right_checksum(whole, most_bytes=len(ROWS)) == with_data(PACKED)
    with pytest.raises(TooManyPartsError, match="twice as long"):
        decode(with_data(wrong), "RGB", max_pixels=10**6, quick=True)


@pytest.mark.parametrize(
    "file",
    [
        with_data(PACKED[:-4] + bytes(4), checksum=7),
        with_data(PACKED[:-100]),
        with_data(PACKED[:-60] + bytes(4)),
        with_data(b""),
        with_data(b"\x78"),
        png(SCENE)[:-40],
        png(SCENE)[:33],
    ],
    ids=["the chunk's checksum too", "cut", "cut by sixty", "empty", "one byte", "a chunk is cut", "no data"],
)
def test_damaged_data_are_not_repaired(file: bytes) -> None:
    assert with_right_checksum(file, most_bytes=len(ROWS)) is None
    with pytest.raises(UndecodableError):
        pixels(file)


def test_repairing_does_not_go_on_beyond_the_pixels() -> None:
    bomb = with_data(zlib.compress(bytes(30_000_000))[:-4] + b"\1\2\3\4")
    assert with_right_checksum(bomb, most_bytes=10_000_000) is None
    assert with_right_checksum(bomb, most_bytes=30_000_000) is not None
