"""What decoding a picture takes, by its outline: seconds and bytes of memory, before it is done.

The seconds are a sum of four products, whose rates are measured for each kind of work: for the file itself, for each of
its bytes (they are inflated, or taken apart bit by bit), for each unit that the decoder passes over, and for each pixel
that comes out. A JPEG comes out at a fraction of its size where that is enough. Cutting the crop has rates too.

``python -m models.images.rates`` measures the rates; the ones here are of the machine that the benchmarks ran
on, and limits are in seconds of that machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from models.images.errors import TooMuchWorkError
from models.images.outline import Outline
from models.images.preprocess import Preprocess, scaling, shrink_for
from models.images.shrink import WHOLE_PIXELS


class Rate(NamedTuple):
    """Microseconds for a file, and nanoseconds for each byte, unit and pixel of it."""

    file_us: float
    byte_ns: float
    unit_ns: float
    pixel_ns: float = 0.0


class Price(NamedTuple):
    """What decoding a picture takes."""

    seconds: float
    held: int
    """Bytes of memory at the peak, beside the file's."""


class Work(NamedTuple):
    """What is known of a picture before it is decoded."""

    price: Price
    dear: bool
    """Whether it takes more than an ordinary photograph, or may do so: its first bytes do not say."""


#: What an ordinary picture takes at most; a photograph of a phone takes half of it.
_ORDINARY = Price(0.1, 16_000_000)
#: More than any price.
UNBOUNDED = Price(float("inf"), 1 << 62)

#: By kind of work. "crop" has pixels of the decoded picture as units, and pixels of the scaled one; "large" is for
#: pictures that are made small in strips, with bytes that are held, and pixels.
RATES: Mapping[str, Rate] = {
    "jpeg": Rate(49, 7.3, 0.06, 1.1),
    "jpeg scans": Rate(83, 29, 0.4, 1.1),
    "png": Rate(24, 21, 2.3, 0.2),
    "png alpha": Rate(38, 20, 6, 0),
    "png interlaced": Rate(37, 4.3, 4.5, 0),
    "webp": Rate(13, 108, 0.6, 0),
    "webp lossless": Rate(15, 20, 1, 0),
    "gif": Rate(28, 7.9, 2.1, 0),
    "bmp": Rate(17, 0, 0.7, 0),
    "bmp fields": Rate(26, 0, 3.6, 0),
    "bmp runs": Rate(52, 330, 0, 0),
    "crop": Rate(7, 0, 2.9, 3.8),
    "large": Rate(0, 0.5, 2.5, 0),
}

#: Bytes a pixel of a picture that is made plain as a whole: with transparency it is there five times for a moment.
_PLAIN, _PLAIN_ALPHA = 8.0, 20.0
_OPAQUE = frozenset({"jpeg", "jpeg scans", "png", "bmp runs"})
#: Copies of a row of a PNG, and bytes in strips, while a large picture becomes small.
_ROWS, _STRIPS = 12, 4_000_000


def work_of(outline: Outline | None, preprocess: Preprocess) -> Work:
    """The work of a picture whose outline is known, or None."""
    if outline is None:
        return Work(_ORDINARY, dear=True)
    found = price(outline, preprocess)
    return Work(found, found.seconds > _ORDINARY.seconds or found.held > _ORDINARY.held)


def check(outline: Outline, *, preprocess: Preprocess, most: Price) -> None:
    """Checks what a picture takes before any pixel is decoded.

    Raises:
        TooMuchWorkError: it is more than ``most``.
    """
    seconds, held = price(outline, preprocess)
    if seconds > most.seconds:
        raise TooMuchWorkError(
            f"decoding this {_named(outline)} takes about {1000 * seconds:,.0f} ms; the limit is "
            f"{1000 * most.seconds:,.0f} ms"
        )
    if held > most.held:
        raise TooMuchWorkError(
            f"decoding this {_named(outline)} takes about {held / 1e6:,.0f} MB of memory; the limit is "
            f"{most.held / 1e6:,.0f} MB"
        )


def _named(outline: Outline) -> str:
    format, _, how = outline.kind.partition(" ")
    name = {"webp": "WebP"}.get(format, format.upper())
    which = {"scans": "progressive ", "interlaced": "interlaced ", "lossless": "lossless "}.get(how, "")
    return f"{which}{name} of {outline.width:,} x {outline.height:,} pixels"


def loaded_size(outline: Outline, preprocess: Preprocess) -> tuple[int, int]:
    """The size that a picture is decoded at: a JPEG may be at an eighth, a quarter or half of its own."""
    width, height = outline.width, outline.height
    if not outline.kind.startswith("jpeg"):
        return width, height
    # As in Pillow's draft().
    times = min(width, height) // (2 * preprocess.resize)
    by = 8 if times >= 8 else 4 if times >= 4 else 2 if times >= 2 else 1
    return -(-width // by), -(-height // by)


def price(outline: Outline, preprocess: Preprocess, rates: Mapping[str, Rate] = RATES) -> Price:
    """What a picture takes from its bytes to the crop.

    Args:
        outline: the picture's.
        preprocess: what it is decoded for.
        rates: the machine's.
    """
    kind, _, _, size, units, held, extra = outline
    file_us, byte_ns, unit_ns, pixel_ns = rates[kind]
    width, height = loaded_size(outline, preprocess)
    pixels = width * height
    ns = size * byte_ns + units * unit_ns + pixels * pixel_ns
    bytes_held = outline.width * outline.height * extra
    if pixels <= WHOLE_PIXELS:
        bytes_held += pixels * (held + (_PLAIN if kind in _OPAQUE else _PLAIN_ALPHA))
    else:
        small = shrink_for((width, height), preprocess).in_strips(width).size
        # The decoder's own rows are large only where a row is.
        bytes_held += _STRIPS + _ROWS * 4 * width
        if kind not in ("png", "png alpha"):
            bytes_held += pixels * held
        _, held_ns, strip_ns, _ = rates["large"]
        ns += bytes_held * held_ns + pixels * strip_ns
        width, height = small
        pixels = width * height
        bytes_held += 8 * pixels
    scaled = _scaled(width, height, preprocess)
    crop_us, _, in_ns, out_ns = rates["crop"]
    if preprocess.colour == "grey":
        in_ns, out_ns = in_ns / 3, out_ns / 3
    ns += pixels * in_ns + scaled * out_ns
    return Price((file_us + crop_us) / 1e6 + ns / 1e9, int(bytes_held + 8 * scaled))


def _scaled(width: int, height: int, preprocess: Preprocess) -> int:
    """How many pixels the scaled picture has."""
    target = preprocess.resize
    if preprocess.fit != "short side":
        return target * target
    if not width or not height:
        return 0
    _, (across, down) = scaling((width, height), preprocess)
    return across * down
