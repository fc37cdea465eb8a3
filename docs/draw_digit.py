"""Draws the digit of the examples, ``docs/images/digit.png``: a 3 in ink on paper.

Run it from the repository's root.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIDE = 280
PAPER, INK = 244, 28


def draw() -> Image.Image:
    """A grey picture, 280 x 280."""
    picture = Image.new("L", (SIDE, SIDE), PAPER)
    pen = ImageDraw.Draw(picture)
    # Two bows, the upper one a little smaller, as a hand writes them.
    for box, start, end in (((88, 46, 188, 140), 200, 450), ((80, 128, 200, 238), 270, 520)):
        pen.arc(box, start, end, fill=INK, width=24)
    return picture.filter(ImageFilter.GaussianBlur(1.5))


if __name__ == "__main__":
    draw().save(Path("docs/images/digit.png"), optimize=True)
