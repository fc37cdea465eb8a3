"""A JPEG encoder of a screen: sampling factors, colour spaces and structures that no encoder at hand writes.

Written after ITU-T T.81: the transform of annex A.3.3, Huffman codes of annex F.1.2 with the tables of annex K.3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tests.picture_files import segment

Plane = npt.NDArray[np.floating[Any]]
Sampling = tuple[int, int]
START, END = b"\xff\xd8", b"\xff\xd9"

_ZIGZAG = sorted(range(64), key=lambda at: (at // 8 + at % 8, (at // 8, at % 8)[(at // 8 + at % 8 + 1) % 2]))
_COSINES = np.array(
    [[np.cos((2 * x + 1) * u * np.pi / 16) * (np.sqrt(0.5) if u == 0 else 1) / 2 for x in range(8)] for u in range(8)]
)
#: Lengths and values of the tables of annex K.3: luminance alone, which serve for all components.
DC_LENGTHS, DC_VALUES = bytes((0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)), bytes(range(12))
AC_LENGTHS = bytes((0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125))
AC_VALUES = bytes.fromhex(
    "0102030004110512213141061351610722711432"
    "8191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a434445464748494a535455565758595a"
    "636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3"
    "c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
)
#: Both tables, as the file has them.
TABLES = segment(0xC4, b"\0" + DC_LENGTHS + DC_VALUES) + segment(0xC4, b"\x10" + AC_LENGTHS + AC_VALUES)


def _codes(lengths: bytes, values: bytes) -> dict[int, str]:
    """The code of each value, as a text of bits."""
    code, at, found = 0, 0, {}
    for length, count in enumerate(lengths, 1):
        for value in values[at : at + count]:
            found[value] = format(code, f"0{length}b")
            code += 1
        at, code = at + count, code << 1
    return found


_DC, _AC = _codes(DC_LENGTHS, DC_VALUES), _codes(AC_LENGTHS, AC_VALUES)


class Parts(NamedTuple):
    """The parts of a file, to be joined in any way."""

    quantisation: bytes
    frame: bytes
    scans: list[bytes]
    """Each with its header."""


def jpeg(planes: Sequence[Plane], samplings: Sequence[Sampling] = (), *, head: bytes = b"", **options: Any) -> bytes:
    """A whole sequential file; the options are those of ``jpeg_parts``."""
    made = jpeg_parts(planes, samplings, **options)
    return START + head + made.quantisation + made.frame + TABLES + b"".join(made.scans) + END


def jpeg_parts(
    planes: Sequence[Plane],
    samplings: Sequence[Sampling] = (),
    *,
    names: bytes = b"\1\2\3\4",
    step: int = 2,
    marker: int = 0xC0,
    interval: int = 0,
    fill: bytes = b"",
    interleaved: bool = True,
) -> Parts:
    """Encodes planes of 0 to 255, each (height, width) of the whole picture, which its sampling factors reduce.

    Args:
        planes: the components, in the file's own colour space.
        samplings: factors across and down of each component; 1 and 1 by default.
        names: the components' identifiers.
        step: the one step of quantisation.
        marker: the start of frame.
        interval: MCUs between two restart markers; 0: none.
        fill: more bytes before each restart marker.
        interleaved: whether one scan holds all components.
    """
    samplings = samplings or [(1, 1)] * len(planes)
    height, width = planes[0].shape
    most = max(across for across, _ in samplings), max(down for _, down in samplings)
    mcus = -(-width // (8 * most[0])), -(-height // (8 * most[1]))
    blocks = [_blocks(plane, sampling, most, mcus, step) for plane, sampling in zip(planes, samplings, strict=True)]
    frame = struct.pack(">BHHB", 8, height, width, len(planes))
    frame += b"".join(bytes((name, a << 4 | d, 0)) for name, (a, d) in zip(names, samplings, strict=False))
    restarts = segment(0xDD, struct.pack(">H", interval)) if interval else b""
    together = [list(range(len(planes)))] if interleaved else [[at] for at in range(len(planes))]
    scans = []
    for components in together:
        header = bytes((len(components),)) + b"".join(bytes((names[at], 0)) for at in components) + b"\0\x3f\0"
        if len(components) > 1:
            across, down = mcus
            units = [
                [
                    (at, blocks[at][y * samplings[at][1] + v, x * samplings[at][0] + h])
                    for at in components
                    for v in range(samplings[at][1])
                    for h in range(samplings[at][0])
                ]
                for y in range(down)
                for x in range(across)
            ]
        else:
            # A scan of one component holds its own blocks alone, without those that fill up an MCU.
            (at,) = components
            across = ceil(ceil(width * samplings[at][0] / most[0]) / 8)
            down = ceil(ceil(height * samplings[at][1] / most[1]) / 8)
            units = [[(at, blocks[at][y, x])] for y in range(down) for x in range(across)]
        scans.append(segment(0xDA, header) + _entropy_coded(units, interval, fill))
    return Parts(segment(0xDB, bytes((0,)) + bytes([step] * 64)), segment(marker, frame) + restarts, scans)


def _blocks(
    plane: Plane, sampling: Sampling, most: Sampling, mcus: tuple[int, int], step: int
) -> npt.NDArray[np.int64]:
    """The coefficients of a component, (blocks down, blocks across, 64) in zigzag order."""
    across, down = most[0] / sampling[0], most[1] / sampling[1]
    height, width = mcus[1] * sampling[1] * 8, mcus[0] * sampling[0] * 8
    # Each sample is the mean of the pixels that it covers; the picture's last row and column go on beyond it.
    y = np.minimum((np.arange(height)[:, None] * down + np.arange(int(down))).astype(int), plane.shape[0] - 1)
    x = np.minimum((np.arange(width)[:, None] * across + np.arange(int(across))).astype(int), plane.shape[1] - 1)
    samples = plane[y][:, :, x].mean(axis=(1, 3)) - 128
    tiles = samples.reshape(height // 8, 8, width // 8, 8).transpose(0, 2, 1, 3)
    transformed = np.rint(_COSINES @ tiles @ _COSINES.T / step).astype(np.int64)
    return transformed.reshape(height // 8, width // 8, 64)[..., _ZIGZAG]


def _entropy_coded(units: Sequence[Sequence[tuple[int, npt.NDArray[np.int64]]]], interval: int, fill: bytes) -> bytes:
    out, bits = b"", ""
    before: dict[int, int] = {}
    for count, unit in enumerate(units):
        if interval and count and count % interval == 0:
            out += _stuffed(bits) + fill + bytes((0xFF, 0xD0 + (count // interval - 1) % 8))
            bits, before = "", {}
        for component, block in unit:
            bits += _block(block.tolist(), before.get(component, 0))
            before[component] = int(block[0])
    return out + _stuffed(bits)


def _stuffed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")


def _block(values: list[int], before: int) -> str:
    size, more = _magnitude(values[0] - before)
    bits, zeros = _DC[size] + more, 0
    for value in values[1:]:
        if value == 0:
            zeros += 1
            continue
        bits += _AC[0xF0] * (zeros // 16)
        size, more = _magnitude(value)
        bits += _AC[zeros % 16 << 4 | size] + more
        zeros = 0
    return bits + (_AC[0] if zeros else "")


def _magnitude(value: int) -> tuple[int, str]:
    """The category of a number, and the bits behind its code."""
    size = abs(value).bit_length()
    return size, format(value if value > 0 else value + (1 << size) - 1, f"0{size}b") if size else ""
