"""Small pictures, drawn in memory."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

DIGIT = Path(__file__).parents[1] / "docs" / "images" / "digit.png"


def picture(value: int = 7, *, side: int = 28, format: str = "PNG") -> bytes:
    """A grey picture of one brightness. A fake engine answers with class ``value`` modulo the number of classes.

    By default it is dark: LeNet takes a bright border for paper, and inverts the picture.
    """
    out = io.BytesIO()
    Image.new("L", (side, side), value).save(out, format)
    return out.getvalue()


def photo(side: int = 300, format: str = "JPEG") -> bytes:
    """A colour picture of two gradients, so that no encoder makes it tiny."""
    red = Image.linear_gradient("L").resize((side, side))
    picture = Image.merge("RGB", (red, red.rotate(90), Image.new("L", (side, side), 90)))
    out = io.BytesIO()
    picture.save(out, format)
    return out.getvalue()
