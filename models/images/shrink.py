"""Large pictures, made small strip by strip.

A network sees some 256 x 256 pixels. To convert and composite all pixels of a large picture first would take several
times its memory, and seconds in which no other thread runs: Pillow holds the interpreter's lock in most operations. So
the picture is taken in strips. Each is made a plain 8-bit strip and averaged to a fraction of its size, and only the
fractions are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from PIL import Image

#: Left, top, right and bottom, in pixels.
Box: TypeAlias = tuple[int, int, int, int]
#: A picture of more pixels is taken in strips; up to here its answers are as they were before there were strips.
WHOLE_PIXELS = 1 << 21
#: About how many pixels a strip has: few enough for other threads, enough for the time of making it.
_STRIP_PIXELS = 1 << 17
#: The most pixels of a strip, unless a single row has more.
_LARGEST_STRIP = 1 << 20


class Shrink(NamedTuple):
    """How small a picture may be made, in the order of its stored rows and columns."""

    box: Box
    """The part that is needed."""
    across: int = 1
    down: int = 1
    """How many columns and rows become one."""

    def in_strips(self, width: int) -> Shrink:
        """The same, or not quite as small, for a picture of that width: a strip must not become too large. Of the box
        it leaves out columns and rows that would make less than one, on both sides alike."""
        most = max(1, _LARGEST_STRIP // width)
        across, down = min(self.across, most), min(self.down, most)
        left, top, right, bottom = self.box
        columns, rows = (right - left) // across or 1, (bottom - top) // down or 1
        left += max(0, right - left - columns * across) // 2
        top += max(0, bottom - top - rows * down) // 2
        return Shrink((left, top, min(right, left + columns * across), min(bottom, top + rows * down)), across, down)

    def edges(self, width: int, height: int) -> list[int]:
        """Where the strips of a picture of that size begin, and its height: the rows that become one are in one strip,
        and those before the box may be a strip by themselves."""
        rows = max(1, _STRIP_PIXELS // (width * self.down)) * self.down
        first = self.box[1] % self.down
        return sorted({0, *range(first, height, rows), height})

    @property
    def size(self) -> tuple[int, int]:
        """The size of the small picture."""
        left, top, right, bottom = self.box
        return -(-(right - left) // self.across), -(-(bottom - top) // self.down)


def strips_of(picture: Image.Image, edges: Sequence[int]) -> Iterator[Image.Image]:
    """The strips of a decoded picture, from top to bottom."""
    for top, bottom in pairwise(edges):
        yield picture.crop((0, top, picture.width, bottom))


def shrunk(strips: Iterable[Image.Image], plain: Callable[[Image.Image], Image.Image], shrink: Shrink) -> Image.Image:
    """Makes a small picture of strips.

    Args:
        strips: the whole picture, cut at ``shrink.edges``. All are read, so that the damage in any is told.
        plain: makes a strip RGB or grey, without transparency.
        shrink: how small.
    """
    left, top, right, bottom = shrink.box
    small: Image.Image | None = None
    at = 0
    for strip in strips:
        height = strip.height
        first, last = max(top - at, 0), min(bottom - at, height)
        at += height
        if first >= last:
            continue
        part = plain(strip.crop((left, first, right, last)))
        if small is None:
            small = Image.new(part.mode, shrink.size)
        if (shrink.across, shrink.down) != (1, 1):
            part = part.reduce((shrink.across, shrink.down))
        small.paste(part, (0, (at - height + first - top) // shrink.down))
    assert small is not None
    return small
