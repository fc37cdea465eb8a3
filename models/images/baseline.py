"""Which JPEG files a hardware decoder may have: whole baseline photographs, which it and Pillow read alike.

A hardware decoder checks less than Pillow does: of a file that was cut it makes a picture with a grey end, and it does
not know which colours an unusual file means. So it gets no file but the ordinary ones: the structure is read here, the
header by Pillow. Every other file is left to ``pictures.py``, which decodes it or says why not.
"""

from __future__ import annotations

import io
from typing import NamedTuple

from PIL.JpegImagePlugin import JpegImageFile

from models.images.errors import PictureError
from models.images.jpeg import Markers, read_markers, without_metadata

#: Ordinary files have some 10 segments.
_MOST_PARTS = 64
#: The names of Y, Cb and Cr in JFIF. Some files call their components R, G and B, and mean it.
_NAMES = (1, 2, 3)
#: Blocks across and down of the components: 4:4:4, 4:2:2, 4:4:0 and 4:2:0.
_SAMPLINGS = frozenset({(across << 4 | down, 0x11, 0x11) for across in (1, 2) for down in (1, 2)})
#: Adobe's segment, if there is one, says so of YCbCr.
_ADOBE_YCBCR = 1


class Baseline(NamedTuple):
    """A file for a hardware decoder."""

    data: bytes
    """Without metadata, the EXIF orientation too, and without what follows the picture."""
    size: tuple[int, int]
    """Width and height of what is stored, before it is turned upright."""
    orientation: int | None
    """EXIF's number of the side that is up, which the caller has to apply."""


def baseline(data: bytes, *, max_pixels: int) -> Baseline | None:
    """The file for a hardware decoder, or None if Pillow has to decode it.

    Args:
        data: any bytes.
        max_pixels: the limit of width times height.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        markers = read_markers(data, most_parts=_MOST_PARTS, most_scans=1, to_the_end=True)
        if not _is_ordinary(markers):
            return None
        whole = without_metadata(data[: markers.end] + b"\xff\xd9", markers)
        # Only its header: pixels are decoded by load().
        header = JpegImageFile(io.BytesIO(whole))
    except (PictureError, OSError, SyntaxError, ValueError, IndexError, KeyError):
        # Pillow raises one or another of them on a damaged header.
        return None
    width, height = header.size
    if header.mode != "RGB" or header.info.get("adobe_transform", _ADOBE_YCBCR) != _ADOBE_YCBCR:
        return None
    return Baseline(whole, (width, height), markers.orientation) if width * height <= max_pixels else None


def _is_ordinary(markers: Markers) -> bool:
    """Whether it is a baseline file of Y, Cb and Cr with one scan that has an end."""
    names, samplings = tuple(markers.frame[6::3]), tuple(markers.frame[7::3])
    return (
        markers.baseline
        and markers.ended
        and names == _NAMES
        and samplings in _SAMPLINGS
        and [scan.components for scan in markers.scans] == [_NAMES]
    )
