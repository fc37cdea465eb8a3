"""The markers of a JPEG file: what its scans cost to decode, which segments affect pixels, and whether it has an end.

A file is a sequence of segments, each a marker, a length and a body; entropy-coded data follow each start of scan. No
pixel is decoded here. Markers are read as libjpeg reads them (jdmarker.c), so that both see the same scans: bodies of
segments are skipped, even if they hold a thumbnail with scans of its own, and the first end of image ends the file.

Some cameras, panorama programs and interrupted downloads leave files without the last two bytes, the end of image.
Every viewer shows them. But a decoder that is told to go on at the end of a file fills missing pixels with grey, and
does not say so. ``with_two_ends`` therefore completes the file in two ways, with zero bits and with ones: if both
decode to the same pixels, none were missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from models.images.errors import TooManyPartsError
from models.images.exif import orientation

#: How many scans a file may have. libjpeg writes 10 for a colour picture, mozjpeg some more. Skia, the decoder of
#: Android and Chrome, gives up at 100: "much larger than the number of scans we might expect in a normal image".
MOST_SCANS = 100
#: How often the scans may pass over each component, on average; in libjpeg's files they do so 4 to 6 times.
_MOST_PASSES = 12
#: How many samples the scans may pass over in any case, so that a small picture may have any scans.
_FREE_SAMPLES = 16_000_000

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
#: The start of another image ends the first one as well.
_ENDS = frozenset({_START_OF_IMAGE, _END_OF_IMAGE})
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_METADATA = frozenset({*range(_APP0, _APP15 + 1), _COMMENT})
#: Starts of frame. C4 and CC are tables; C8 is reserved.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset({0xC4, 0xDB, 0xDD})
_COMMON = frozenset({*_FRAMES, *_TABLES, *_METADATA, _START_OF_SCAN})
_BASELINE, _LAST_HUFFMAN = 0xC0, 0xC7
#: How many segments ``read_start`` reads; ordinary files have some 10 before their pixels.
_FEW_SEGMENTS = 256
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
#: Markers that begin a segment or end the image. Entropy-coded data also hold stuffed bytes, fill bytes and restarts,
#: and in damaged files codes below C0. libjpeg skips only the two bytes of such a code, so it must not be taken for the
#: start of a segment, which would hide the scans behind it.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")

#: As many zero bytes as this at the end of a file are padding.
PADDING = bytes(16)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Scan:
    """The header of a scan."""

    components: tuple[int, ...]
    first: int
    last: int
    """The first and the last of the 64 coefficients that the scan holds."""
    bit: int
    """The lowest bit of the coefficients that is known after the scan (successive approximation)."""
    data_at: int
    """Where its entropy-coded data begin."""


@dataclass(slots=True)
class Markers:
    """The markers of one file, as far as they matter here."""

    frame: bytes = b""
    """The body of the start of frame: bits a sample, height, width, number of components, three bytes a component."""
    progressive: bool = False
    baseline: bool = False
    """Whether the start of frame is that of baseline JPEG, which every decoder reads."""
    arithmetic: bool = False
    """Whether the data are coded arithmetically: such a decoder does not report that data are missing."""
    scans: list[Scan] = field(default_factory=list)
    """Empty if the first scan holds everything, so that no other can follow."""
    orientation: int | None = None
    metadata: list[tuple[int, int]] = field(default_factory=list)
    """Start and end of each segment before the first scan that does not affect pixels."""
    end: int | None = None
    """Where the end of image or the start of another image is; None if neither was met."""
    ended: bool = False
    """Whether the end of image was met."""

    @property
    def passed(self) -> int:
        """How many samples the scans pass over, each as often as there are scans of it."""
        by_component = self.samples
        return sum(by_component.get(component, 0) for scan in self.scans for component in scan.components)

    @property
    def samples(self) -> dict[int, int]:
        """The number of samples of each component."""
        height, width = int.from_bytes(self.frame[1:3], "big"), int.from_bytes(self.frame[3:5], "big")
        components = [self.frame[at : at + 3] for at in range(6, len(self.frame) - 2, 3)]
        across = {component[0]: component[1] >> 4 or 1 for component in components}
        down = {component[0]: component[1] & 15 or 1 for component in components}
        widest, tallest = max(across.values(), default=1), max(down.values(), default=1)
        return {name: -(-width * across[name] // widest) * -(-height * down[name] // tallest) for name in across}


def read_markers(data: bytes, *, most_parts: int, most_scans: int = MOST_SCANS, to_the_end: bool = False) -> Markers:
    """Reads the markers of a JPEG file as far as the decoder will read: up to the first scan if that holds everything,
    else up to the end of image.

    Args:
        data: the file.
        most_parts: how many segments the file may have.
        most_scans: how many scans the file may have.
        to_the_end: whether to read up to the end of image in any case.

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
            found.baseline, found.arithmetic = code == _BASELINE, code > _LAST_HUFFMAN
        elif code in _ENDS:
            found.end, found.ended = start, code == _END_OF_IMAGE
        elif code in _METADATA and not found.scans and not _affects_pixels(code, data, start, end):
            found.metadata.append((start, end))
            if code == _APP1 and found.orientation is None and data.startswith(b"Exif\0\0", start + 4):
                found.orientation = orientation(data[start + 4 : end])
    return found


def read_start(data: bytes) -> Markers | None:
    """Reads the start of frame and, if others may follow, the first scan's header; None if they do not follow a few
    sound segments. Takes microseconds, whatever the file."""
    found, at = Markers(), 2
    for _ in range(_FEW_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF:
            return None
        code = data[at + 1]
        end = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if code == _START_OF_SCAN:
            if len(found.frame) < 6:
                return None
            if not found.progressive and data[at + 4 : at + 5] < found.frame[5:6]:
                # A scan for each component, most likely.
                found.scans = [Scan(tuple(found.samples), 0, 63, 0, end)]
            return found
        if code in _FRAMES:
            found.frame, found.progressive = data[at + 4 : end], code in _PROGRESSIVE
        elif code not in _COMMON:
            return None
        at = end
    return None


def check_scans(found: Markers) -> None:
    """Checks what the scans cost to decode: the samples that each passes over, whatever its length. A scan that changes
    nothing takes 31 bytes, and still passes over the whole picture.

    Raises:
        TooManyPartsError: the scans pass over more samples than those of real files.
    """
    if not found.scans:
        return
    passed, samples = found.passed, sum(found.samples.values())
    if passed > max(_MOST_PASSES * samples, _FREE_SAMPLES):
        raise TooManyPartsError(
            f"the JPEG file's {len(found.scans)} scans pass over {passed:,} samples, {passed / samples:.1f} times over"
            f" each; the limit for a picture of its size is {_MOST_PASSES} times. Save it as a baseline JPEG, which has"
            " one scan"
        )


def without_metadata(data: bytes, found: Markers) -> bytes:
    """Removes the segments that do not affect pixels. Pillow would refuse the file for damage in them, and take a
    millisecond to read 4 KB of them."""
    if not found.metadata:
        return data
    view = memoryview(data)
    kept, kept_from = [], 0
    for start, end in found.metadata:
        kept.append(view[kept_from:start])
        kept_from = end
    return b"".join((*kept, view[kept_from:]))


def _segments(data: bytes, most: int) -> Iterator[tuple[int, int, int]]:
    """Yields marker code, start and end of each segment up to the end of image, except tables.

    Raises:
        TooManyPartsError: there are more than ``most`` segments, tables included.
    """
    at, size = 2, len(data)
    for _ in range(most):
        start = at
        # Most segments follow each other directly, which is found faster than by searching.
        if at + 4 > size or data[at] != 0xFF or (code := data[at + 1]) not in _COMMON:
            found = _MARKER.search(data, at)
            if found is None:
                return
            start = found.start()
            code = data[start + 1]
            if code in _ENDS:
                yield code, start, start + 2
                return
        # The length includes its own two bytes; a smaller one counts as two, as in libjpeg.
        at = start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4], "big"))
        if code not in _TABLES:
            yield code, start, at
    raise TooManyPartsError(f"the JPEG file has more than {most:,} segments; save it anew")


def _scan(data: bytes, start: int, end: int) -> Scan:
    """Reads the header of a scan. If it is damaged, reads the part that is there, since the decoder will refuse it."""
    body = data[start + 4 : end]
    pairs = 2 * body[0] if body else 0
    first, last, bits = (*body[1 + pairs : 4 + pairs], 0, 0, 0)[:3]
    return Scan(tuple(body[1 : 1 + pairs : 2]), first, last, bits & 15, end)


def _affects_pixels(code: int, data: bytes, start: int, end: int) -> bool:
    """Whether it is JFIF's or Adobe's segment, which name the colour space. libjpeg ignores shorter ones."""
    if code == _APP0:
        return data.startswith(b"JFIF\0", start + 4) and end - start >= 4 + 14
    return code == _APP14 and data.startswith(b"Adobe", start + 4) and end - start >= 4 + 12


def with_two_ends(data: bytes, *, most_parts: int) -> tuple[bytes, bytes] | None:
    """Completes a file in two different ways, to be decoded and compared; None if it has an end, or if scans are
    missing."""
    found = read_markers(data, most_parts=most_parts, to_the_end=True)
    if found.ended or found.arithmetic or not found.scans or not _has_all_scans(found):
        return None
    last = found.scans[-1]
    body = data[: found.end].rstrip(b"\xff")
    whole = body.rstrip(b"\0\xff")
    # One or two zero bytes may belong to the data. More are padding, which would be decoded as pixels.
    if len(body) - len(whole) <= 2:
        whole = body
    # A decoder that waits for the next restart marker would skip the bits of both ends, so the second one has it.
    restart = bytes((0xFF, 0xD0 + len(_RESTART.findall(whole, last.data_at)) % 8))
    return whole + bytes(64) + _END, whole + b"\xfe" * 64 + restart + b"\xfe" * 64 + _END


def _has_all_scans(found: Markers) -> bool:
    """Whether the scans hold all components and, in a progressive file, every coefficient down to its lowest bit."""
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
