"""A canvas of pixels. Coordinates begin in the upper left corner, as in browsers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle

from docs.render.theme import BACKGROUND, TEXT

_DPI: Final = 100
#: Points in a pixel: matplotlib measures fonts in points.
_POINTS: Final = 72 / _DPI


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels; ``x`` and ``y`` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    def without(self, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Box:
        """The rectangle without margins of these widths."""
        return Box(self.x + left, self.y + top, self.width - left - right, self.height - top - bottom)

    def rows(self, count: int, height: float) -> Iterator[Box]:
        """This many rectangles of a height, one below the other."""
        return (Box(self.x, self.y + n * height, self.width, height) for n in range(count))

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


class Canvas:
    """The picture that panels draw on."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=BACKGROUND)
        self._renderer = FigureCanvasAgg(self.figure).get_renderer()

    def axes(self, box: Box) -> Any:
        """Matplotlib's axes that fill ``box``."""
        return self.figure.add_axes(
            (
                box.x / self._width,
                1 - box.bottom / self._height,
                box.width / self._width,
                box.height / self._height,
            )
        )

    def bare(self, box: Box) -> Any:
        """Axes without frame or ticks, whose coordinates are pixels from the upper left corner of ``box``."""
        axes = self.axes(box)
        axes.set_axis_off()
        axes.set_xlim(0, box.width)
        axes.set_ylim(box.height, 0)
        return axes

    def write(
        self, x: float, y: float, text: str, size: float = 12, colour: str = TEXT, at: str = "left", bold: bool = False
    ) -> None:
        """Writes text that is vertically centred at ``y`` and has its left end, centre or right end (``at``) at
        ``x``."""
        self.figure.text(
            x / self._width,
            1 - y / self._height,
            text,
            color=colour,
            ha=at,
            va="center_baseline",
            fontproperties=_font(size, bold),
            parse_math=False,
        )

    def width_of(self, text: str, size: float = 12, bold: bool = False) -> float:
        """The width of a text in pixels."""
        return float(self._renderer.get_text_width_height_descent(text, _font(size, bold), False)[0])

    def shortened(self, text: str, width: float, size: float = 12) -> str:
        """The text, cut and with an ellipsis if it is wider than ``width``."""
        if self.width_of(text, size) <= width:
            return text
        while text and self.width_of(text + "…", size) > width:
            text = text[:-1]
        return text.rstrip() + "…"

    def fill(self, box: Box, colour: str, edge: str = "none", radius: float = 0) -> None:
        """Draws a filled rectangle below all data."""
        place = (box.x / self._width, 1 - box.bottom / self._height)
        size = (box.width / self._width, box.height / self._height)
        if radius:
            shape: Any = FancyBboxPatch(
                (box.x, self._height - box.bottom),
                box.width,
                box.height,
                boxstyle=f"round,pad=0,rounding_size={radius}",
                transform=None,
            )
        else:
            shape = Rectangle(place, *size, transform=self.figure.transFigure)
        shape.set(facecolor=colour, edgecolor=edge, linewidth=1 if edge != "none" else 0, zorder=-1)
        self.figure.add_artist(shape)


def _font(size: float, bold: bool) -> FontProperties:
    return FontProperties(family="DejaVu Sans", size=size * _POINTS, weight="bold" if bold else "normal")
