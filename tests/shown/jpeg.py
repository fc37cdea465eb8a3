"""JPEG files: every sampling, colour space and orientation, and what cameras and programs write around them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests import jpeg_files
from tests.picture_files import (
    encode,
    exif,
    segment,
    with_segments,
)
from tests.shown.scene import (
    Case,
    camera_exif,
    grey_scene,
    scene,
    stored_scene,
    three_channels,
    turned,
)


def _ycc(picture: npt.NDArray[Any]) -> list[npt.NDArray[np.float64]]:
    """JFIF's conversion."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    made = picture.astype(float) @ matrix.T + (0, 128, 128)
    return [made[..., at] for at in range(3)]


def _adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
SAMPLINGS = {
    "4:4:4": [(1, 1)] * 3,
    "4:4:4 by 2 and 1": [(2, 1)] * 3,
    "4:4:4 by 1 and 2": [(1, 2)] * 3,
    "4:2:2": [(2, 1), (1, 1), (1, 1)],
    "4:2:0": [(2, 2), (1, 1), (1, 1)],
    "4:4:0": [(1, 2), (1, 1), (1, 1)],
    "4:1:1": [(4, 1), (1, 1), (1, 1)],
    "4:1:0": [(4, 2), (1, 1), (1, 1)],
    "2:1:1, 1 and 2 high": [(2, 2), (1, 2), (1, 2)],
    "3:1:1": [(3, 1), (1, 1), (1, 1)],
    "4:2:1": [(4, 1), (2, 1), (1, 1)],
}


def cases() -> Iterator[Case]:
    picture, grey = scene(), grey_scene()
    ycc, rgb = _ycc(picture), [picture[..., at].astype(float) for at in range(3)]
    make = jpeg_files.jpeg
    for name, samplings in SAMPLINGS.items():
        yield Case(name, make(ycc, samplings, head=JFIF), picture, True)
        yield Case(f"{name}, a scan a component", make(ycc, samplings, head=JFIF, interleaved=False), picture, True)
        yield Case(f"{name}, with restarts", make(ycc, samplings, head=JFIF, interval=2), picture, True)
    for across, down in ((1, 1), (2, 2), (2, 1), (4, 4)):
        data = make([grey.astype(float)], [(across, down)], head=JFIF)
        yield Case(f"grey, with factors {across} and {down}", data, three_channels(grey), True)
    for marker in (0xC0, 0xC1):
        yield Case(f"frame {marker:X}", make(ycc, head=JFIF, marker=marker), picture, True)
    yield from _jpeg_colours(ycc, rgb)
    yield from _jpeg_orientations(make(_ycc(picture), head=JFIF))
    yield from _jpeg_quirks(ycc)
    for options in ({}, {"progressive": True}, {"optimize": True}, {"quality": 100}, {"restart_marker_rows": 1}):
        for subsampling in range(3):
            options = {"quality": 95, **options, "subsampling": subsampling}
            yield Case(f"Pillow's, {options}", encode(Image.fromarray(picture), "JPEG", **options), picture, True)
        data = encode(Image.fromarray(grey.astype(np.uint8)), "JPEG", **{"quality": 95, **options, "subsampling": -1})
        yield Case(f"Pillow's grey, {options}", data, three_channels(grey), True)


def _jpeg_colours(ycc: list[Any], rgb: list[Any]) -> Iterator[Case]:
    """The ways in which a file says its colour space, as libjpeg's comments have them (jdapimin.c)."""
    picture, make = scene(), jpeg_files.jpeg
    for name, planes, options in (
        ("no marker, names 1 2 3", ycc, {}),
        ("no marker, names 0 1 2", ycc, {"names": b"\0\1\2"}),
        ("no marker, other names", ycc, {"names": b"\x23\x42\x77"}),
        ("no marker, names RGB", rgb, {"names": b"RGB"}),
        ("JFIF, names RGB", ycc, {"names": b"RGB", "head": JFIF}),
        ("JFIF, names 0 1 2", ycc, {"names": b"\0\1\2", "head": JFIF}),
        ("Adobe's 0: RGB", rgb, {"head": _adobe(0)}),
        ("Adobe's 1: YCbCr", ycc, {"head": _adobe(1)}),
        ("Adobe's 1, names RGB", ycc, {"head": _adobe(1), "names": b"RGB"}),
        ("Adobe's unknown transform", ycc, {"head": _adobe(9)}),
        ("JFIF and Adobe's 0", ycc, {"head": JFIF + _adobe(0)}),
        ("Adobe's 0, then JFIF", ycc, {"head": _adobe(0) + JFIF}),
        ("an Adobe segment that is too short", ycc, {"head": segment(0xEE, b"Adobe\0\x64\0")}),
    ):
        yield Case(name, make(planes, **options), picture, True)
    # The inks of a printer, of which black is what all colours share.
    paper = picture.max(2).astype(float)
    inks = [255 - 255 * plane / np.maximum(paper, 1) for plane in rgb]
    # Photoshop and all others who write Adobe's segment store the light that an ink leaves.
    left = [255 - ink for ink in inks]
    yield Case("CMYK by Adobe", make([*left, paper], head=_adobe(0)), picture, True)
    # Chrome's and Pillow's way; libjpeg writes no such file.
    yield Case("CMYK without a marker", make([*left, paper]), picture, True)
    yield Case("YCCK by Adobe", make([*_ycck(inks), paper], head=_adobe(2)), picture, True)
    sampled = [(2, 2), (1, 1), (1, 1), (2, 2)]
    yield Case("YCCK by Adobe, 4:2:0", make([*_ycck(inks), paper], sampled, head=_adobe(2)), picture, True)
    yield Case("YCCK and JFIF", make([*_ycck(inks), paper], head=JFIF + _adobe(2)), picture, True)


def _ycck(inks: list[Any]) -> list[npt.NDArray[np.float64]]:
    """libjpeg: Y, Cb and Cr of 255 minus what is to be stored as C, M and Y, which is 255 minus the ink."""
    return _ycc(np.dstack(inks))


def _jpeg_orientations(upright: bytes) -> Iterator[Case]:
    picture = scene()
    for name, orientation, data in turned():
        stored = jpeg_files.jpeg(_ycc(stored_scene(orientation)))
        yield Case(name, with_segments(stored, segment(0xE1, b"Exif\0\0" + data)), picture, True)
    stored = jpeg_files.jpeg(_ycc(stored_scene(6)))
    six, xmp = b"Exif\0\0" + exif(6), b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation='3'/>"
    for name, segments in {
        "EXIF behind JFIF": JFIF + segment(0xE1, six),
        "EXIF before JFIF": segment(0xE1, six) + JFIF,
        "EXIF behind XMP": segment(0xE1, xmp) + segment(0xE1, six),
        "EXIF before XMP": segment(0xE1, six) + segment(0xE1, xmp),
        "EXIF of a camera": segment(0xE1, b"Exif\0\0" + camera_exif(6)),
        "EXIF as a LONG": segment(0xE1, b"Exif\0\0" + exif(6, kind=4)),
        "EXIF twice": segment(0xE1, six) + segment(0xE1, b"Exif\0\0" + exif(3)),
        "EXIF behind a comment": segment(0xFE, b"a comment") + segment(0xE1, six),
        "EXIF with a thumbnail": segment(0xE1, six + encode(Image.new("RGB", (8, 8)), "JPEG")),
    }.items():
        yield Case(name, with_segments(stored, segments), picture, True)
    parts = jpeg_files.jpeg_parts(_ycc(stored_scene(6)))
    late = segment(0xE1, six)
    data = jpeg_files.START + parts.quantisation + parts.frame + late + jpeg_files.TABLES + parts.scans[0] + b"\xff\xd9"
    yield Case("EXIF behind the frame", data, picture, True)
    for name, data in {
        "an orientation of 0": exif(0),
        "an orientation of 9": exif(9),
        "an orientation of two values": exif(6).replace(b"\0\0\0\1\0\6", b"\0\0\0\2\0\6"),
        "EXIF that is cut": exif(6)[:12],
        "EXIF of a loop": b"MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8),
        "no EXIF but noise": bytes(range(200)),
    }.items():
        yield Case(name, with_segments(upright, segment(0xE1, b"Exif\0\0" + data)), picture, True)
    yield Case("an orientation in XMP alone", with_segments(upright, segment(0xE1, xmp)), picture, True)


def _jpeg_quirks(ycc: list[Any]) -> Iterator[Case]:
    picture, make = scene(), jpeg_files.jpeg
    plain = make(ycc, head=JFIF)
    other = encode(Image.new("RGB", (90, 60), "lime"), "JPEG")
    parts = jpeg_files.jpeg_parts(ycc)
    tables, start, end = jpeg_files.TABLES, jpeg_files.START, jpeg_files.END
    progressive = encode(Image.fromarray(picture), "JPEG", quality=95, progressive=True)
    for name, data in {
        "no end": plain[:-2],
        "half an end": plain[:-1],
        "no end, progressive": progressive[:-2],
        "bytes behind the end": plain + b"\r\n--boundary--",
        "zeros behind the end": plain + bytes(5000),
        "a second picture": plain + other,
        "a second picture without an end between": plain[:-2] + other,
        "two ends": plain + end,
        "a density of 0": plain.replace(b"JFIF\0\1\1\0\0\1\0\1", b"JFIF\0\1\1\1\0\0\0\0"),
        "a density by the aspect": plain.replace(b"JFIF\0\1\1\0\0\1\0\1", b"JFIF\0\1\1\0\0\2\0\1"),
        "JFIF of a far version": plain.replace(b"JFIF\0\1\1", b"JFIF\0\7\7"),
        "a JFIF thumbnail": make(ycc, head=segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\2\2" + bytes(12))),
        "a JFXX thumbnail": make(ycc, head=JFIF + segment(0xE0, b"JFXX\0\x10" + other)),
        "a JFIF segment that is too short": make(ycc, head=segment(0xE0, b"JFIF\0\1\1")),
        "fill bytes before segments": plain.replace(b"\xff\xdb", b"\xff\xff\xff\xff\xdb", 1).replace(
            b"\xff\xda", b"\xff\xff\xda", 1
        ),
        "a fill byte before the end": plain[:-2] + b"\xff" + end,
        "fill bytes before restarts": make(ycc, head=JFIF, interval=3, fill=b"\xff\xff"),
        "noise between segments": plain.replace(b"\xff\xdb", b"\x11\x22\x33\xff\xdb", 1),
        "a colour profile": with_segments(plain, segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(500))),
        "a colour profile in wrong parts": with_segments(plain, segment(0xE2, b"ICC_PROFILE\0\7\3" + bytes(5))),
        "MPF and a second picture": with_segments(plain, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")) + other,
        "damaged MPF": with_segments(plain, segment(0xE2, b"MPF\0MM\0*" + b"\xff" * 30)),
        "Photoshop's resources": with_segments(plain, segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\xff\xff")),
        "segments of every application": with_segments(
            plain, b"".join(segment(0xE0 + at, b"anything\0" + bytes(at)) for at in range(16))
        ),
        "an empty comment": with_segments(plain, segment(0xFE)),
        "a comment of 65,533 bytes": with_segments(plain, segment(0xFE, b"\xff\xd9" * 32_766)),
        "two thousand comments": with_segments(plain, segment(0xFE, b"text") * 2000),
        "tables for each component": start
        + b"".join(segment(0xDB, bytes((at,)) + bytes([2] * 64)) for at in range(4))
        + parts.quantisation
        + parts.frame
        + tables
        + parts.scans[0]
        + end,
        "steps of 16 bits": start
        + segment(0xDB, b"\x10" + struct.pack(">64H", *[2] * 64))
        + _extended(parts.frame)
        + tables
        + parts.scans[0]
        + end,
        "tables behind the frame": start + JFIF + parts.frame + parts.quantisation + tables + parts.scans[0] + end,
        "all Huffman codes in one segment": start
        + JFIF
        + parts.quantisation
        + parts.frame
        + segment(0xC4, tables[4:33] + tables[37:])
        + parts.scans[0]
        + end,
        "MJPEG without Huffman codes": start
        + segment(0xE0, b"AVI1\0" + bytes(9))
        + parts.quantisation
        + parts.frame
        + parts.scans[0]
        + end,
        "a restart interval of 0": start
        + JFIF
        + segment(0xDD, b"\0\0")
        + parts.quantisation
        + parts.frame
        + tables
        + parts.scans[0]
        + end,
        "an interval longer than the picture": start
        + JFIF
        + segment(0xDD, b"\xff\xff")
        + parts.quantisation
        + parts.frame
        + tables
        + parts.scans[0]
        + end,
    }.items():
        yield Case(name, data, picture, True)
    small = [plane[:3, :5] for plane in ycc]
    yield Case("5 x 3 pixels", make(small, SAMPLINGS["4:2:0"], head=JFIF), picture[:3, :5], True)


def _extended(frame: bytes) -> bytes:
    """The frame as an extended one, which alone may have steps of 16 bits."""
    return frame.replace(b"\xff\xc0", b"\xff\xc1", 1)
