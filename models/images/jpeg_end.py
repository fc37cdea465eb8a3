"""JPEG files without an end: those that lack nothing but the marker, and those that are cut in their pixels.

Cameras, panoramas and interrupted downloads leave files whose last two bytes are missing, and every viewer shows them.
A decoder told "the file ends here" fills what is missing with grey, and does not say so. So the file is given two
ends, one of zero bits and one of ones: if both give the same pixels, the file had all of them.
"""

from __future__ import annotations

import re

from models.images.jpeg import Markers, read_markers

#: So many zeros at the end of a file are padding.
PADDING = bytes(16)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_END_OF_IMAGE = b"\xff\xd9"


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
    return whole + bytes(64) + _END_OF_IMAGE, whole + b"\xfe" * 64 + restart + b"\xfe" * 64 + _END_OF_IMAGE


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
