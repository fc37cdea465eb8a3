"""The markers of a JPEG file: what its scans cost, which segments decide about pixels, whether its end is there.

A file is a row of segments, each a marker and a length, with entropy-coded data behind each start of a scan. Nothing is
decoded here. The walk takes the same markers as libjpeg does (jdmarker.c), so that both see the same scans: what lies
inside a segment is skipped, a thumbnail in the EXIF data with its own scans among it, and the first end of image is the
end, whatever follows it.

Cameras, panoramas and interrupted downloads leave files whose last two bytes are missing, and every viewer shows them.
A decoder told "the file ends here" fills what is missing with grey, and does not say so. So the file is given two
ends, one of zero bits and one of ones: if both give the same pixels, the file had all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from models.images.errors import TooManyPartsError
from models.images.exif import orientation

#: Scans of one file. libjpeg's own progression has 10 for colour, mozjpeg's some more. Skia, which decodes for Android
#: and Chrome, gives up at 100: "much larger than the number of scans we might expect in a normal image".
MOST_SCANS = 100
#: How often the scans may pass over each component, on average: libjpeg's own progression does so 4 to 6 times.
_MOST_PASSES = 12
#: Samples that the scans may pass over however often they do so: a small picture may have any scans.
_FREE_SAMPLES = 16_000_000

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
#: Another start of image ends the first one as well.
_ENDS = frozenset({_START_OF_IMAGE, _END_OF_IMAGE})
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_METADATA = frozenset({*range(_APP0, _APP15 + 1), _COMMENT})
#: Starts of frames; C4, C8 and CC are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset({0xC4, 0xDB, 0xDD})
_COMMON = frozenset({*_FRAMES, *_TABLES, *_METADATA, _START_OF_SCAN})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
#: Markers that begin a segment or end the image. Entropy-coded data also hold stuffed bytes, fill bytes, restarts, and
#: in damaged files codes below C0: libjpeg skips those two bytes alone when it looks for a restart, so that they must
#: not be taken for a segment that hides what follows.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")

#: So many zeros at the end of a file are padding.
PADDING = bytes(16)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Scan:
    """The header of a scan."""

    components: tuple[int, ...]
    first: int
    last: int
    """First and last of the 64 coefficients that it has."""
    bit: int
    """The lowest bit of them that is known after it (successive approximation)."""
    data_at: int


@dataclass(slots=True)
class Markers:
    """What the markers of one file say."""

    frame: bytes = b""
    """The body of the start of frame: bits a sample, height, width, and three bytes a component."""
    progressive: bool = False
    scans: list[Scan] = field(default_factory=list)
    """Empty if the first one has all components, and no other can follow it."""
    orientation: int | None = None
    metadata: list[tuple[int, int]] = field(default_factory=list)
    """Starts and ends of the segments before the first scan that decide nothing about pixels."""
    end: int | None = None
    """Where the end of image is, or the start of another image; None if the walk met neither."""
    ended: bool = False
    """The walk met the end of image."""

    @property
    def samples(self) -> dict[int, int]:
        """Component -> its number of samples."""
        height, width = int.from_bytes(self.frame[1:3], "big"), int.from_bytes(self.frame[3:5], "big")
        components = [self.frame[at : at + 3] for at in range(6, len(self.frame) - 2, 3)]
        across = {component[0]: component[1] >> 4 or 1 for component in components}
        down = {component[0]: component[1] & 15 or 1 for component in components}
        widest, tallest = max(across.values(), default=1), max(down.values(), default=1)
        return {name: -(-width * across[name] // widest) * -(-height * down[name] // tallest) for name in across}


def read_markers(data: bytes, *, most_parts: int, most_scans: int = MOST_SCANS, to_the_end: bool = False) -> Markers:
    """Reads the markers of a JPEG file as far as its decoder will: up to the first scan if that has all components,
    else up to the end of image.

    Args:
        to_the_end: read up to the end of image in any case.

    Raises:
        TooManyPartsError: more than ``most_parts`` segments or ``most_scans`` scans.
    """
    found = Markers()
    for code, start, end in _segments(data, most_parts):
        if code == _START_OF_SCAN:
            if not found.progressive and not to_the_end and data[start + 4] >= found.frame[5]:
                break
            found.scans.append(_scan(data, start, end))
            if len(found.scans) > most_scans:
                raise TooManyPartsError(
                    f"the JPEG file has more than {most_scans} scans; save it as a baseline JPEG, which has one"
                )
        elif code in _FRAMES:
            found.frame, found.progressive = data[start + 4 : end], code in _PROGRESSIVE
        elif code in _ENDS:
            found.end, found.ended = start, code == _END_OF_IMAGE
        elif code in _METADATA and not found.scans and not _decides_about_pixels(code, data, start, end):
            found.metadata.append((start, end))
            if code == _APP1 and found.orientation is None and data.startswith(b"Exif\0\0", start + 4):
                found.orientation = orientation(data[start + 4 : end])
    return found


def check_scans(found: Markers) -> None:
    """Checks what the scans cost, which is samples times scans and has nothing to do with their bytes: one that says
    "nothing new" takes 31 bytes and passes over the whole picture.

    Raises:
        TooManyPartsError: more than real files have.
    """
    if not found.scans:
        return
    by_component = found.samples
    passed = sum(by_component.get(component, 0) for scan in found.scans for component in scan.components)
    samples = sum(by_component.values())
    if passed > max(_MOST_PASSES * samples, _FREE_SAMPLES):
        raise TooManyPartsError(
            f"the JPEG file's {len(found.scans)} scans pass over {passed:,} samples, {passed / samples:.1f} times over"
            f" each; the limit for a picture of its size is {_MOST_PASSES} times. Save it as a baseline JPEG, which has"
            " one scan"
        )


def without_metadata(data: bytes, found: Markers) -> bytes:
    """The file without what decides nothing about its pixels: Pillow refuses files for damage there, and takes a
    millisecond for what fits into 4 KB of it."""
    if not found.metadata:
        return data
    view = memoryview(data)
    kept, kept_from = [], 0
    for start, end in found.metadata:
        kept.append(view[kept_from:start])
        kept_from = end
    return b"".join((*kept, view[kept_from:]))


def _segments(data: bytes, most: int) -> Iterator[tuple[int, int, int]]:
    """Yields marker code, start and end of the segments up to the end of image, without tables.

    Raises:
        TooManyPartsError: there are more than ``most``.
    """
    at, size = 2, len(data)
    for _ in range(most):
        start = at
        # Most segments follow each other directly; the search takes longer.
        if at + 4 > size or data[at] != 0xFF or (code := data[at + 1]) not in _COMMON:
            found = _MARKER.search(data, at)
            if found is None:
                return
            start = found.start()
            code = data[start + 1]
            if code in _ENDS:
                yield code, start, start + 2
                return
        # A length below its own two bytes counts as those, as in libjpeg.
        at = start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4], "big"))
        if code not in _TABLES:
            yield code, start, at
    raise TooManyPartsError(f"the JPEG file has more than {most:,} segments; save it anew")


def _scan(data: bytes, start: int, end: int) -> Scan:
    """The header of a scan; of a damaged one whatever is there, since its decoder will refuse it."""
    body = data[start + 4 : end]
    pairs = 2 * body[0] if body else 0
    first, last, bits = (*body[1 + pairs : 4 + pairs], 0, 0, 0)[:3]
    return Scan(tuple(body[1 : 1 + pairs : 2]), first, last, bits & 15, end)


def _decides_about_pixels(code: int, data: bytes, start: int, end: int) -> bool:
    """JFIF's and Adobe's segments tell the colour space; libjpeg takes no notice of shorter ones."""
    if code == _APP0:
        return data.startswith(b"JFIF\0", start + 4) and end - start >= 4 + 14
    return code == _APP14 and data.startswith(b"Adobe", start + 4) and end - start >= 4 + 12


def with_two_ends(data: bytes, *, most_parts: int) -> tuple[bytes, bytes] | None:
    """The file with two different ends, to be decoded and compared; None if it has an end, or lacks scans."""
    found = read_markers(data, most_parts=most_parts, to_the_end=True)
    if found.ended or not found.scans or not _every_scan_began(found):
        return None
    last = found.scans[-1]
    body = data[: found.end].rstrip(b"\xff")
    whole = body.rstrip(b"\0\xff")
    # A zero or two can be the last of the data. More are padding, which in a file that was cut would stand for pixels.
    if len(body) - len(whole) <= 2:
        whole = body
    # Between restart markers decoders start anew, and without the next one they would read neither end.
    restart = bytes((0xFF, 0xD0 + len(_RESTART.findall(whole, last.data_at)) % 8))
    return whole + bytes(64) + _END, whole + b"\xfe" * 64 + restart + b"\xfe" * 64 + _END


def _every_scan_began(found: Markers) -> bool:
    """Whether the scans there have all components, and if progressive every coefficient of them to its lowest bit."""
    components = set(found.samples)
    if not found.progressive:
        return components <= {component for scan in found.scans for component in scan.components}
    known = {
        (component, coefficient)
        for scan in found.scans
        if scan.bit == 0
        for component in scan.components
        for coefficient in range(scan.first, scan.last + 1)
    }
    return len(known) >= 64 * len(components)
