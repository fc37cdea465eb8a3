"""The pictures that are sent: photographs and digits drawn from a seed, or the files of a folder."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

#: The number of different pictures that are drawn and sent in turn.
COUNT = 16
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
_PHOTOGRAPH = (500, 375)
_DIGIT = 28


def pictures(kind: str, seed: int) -> list[bytes]:
    """The pictures of a run.

    Args:
        kind: ``photographs`` (JPEGs of 500x375), ``digits`` (PNGs of 28x28), or a folder of picture files.

    Raises:
        ValueError: the folder has no pictures or cannot be read, or Pillow is not installed to draw them.
    """
    if kind not in ("photographs", "digits"):
        return _from_folder(Path(kind))
    source = random.Random(seed)  # noqa: S311 - not for secrets
    draw = photograph if kind == "photographs" else digit
    try:
        return [draw(source) for _ in range(COUNT)]
    except ImportError:
        raise ValueError(f"--pictures {kind} needs Pillow to draw them: pip install pillow, or name a folder") from None


def photograph(source: random.Random) -> bytes:
    """A JPEG as large as a photograph's file: soft shapes with grain, since grain makes JPEG files large."""
    from PIL import Image, ImageDraw, ImageFilter

    width, height = _PHOTOGRAPH
    picture = Image.new("RGB", _PHOTOGRAPH, (120, 150, 190))
    draw = ImageDraw.Draw(picture)
    for _ in range(60):
        x, y = source.randrange(-60, width), source.randrange(-60, height)
        box = (x, y, x + source.randrange(20, 200), y + source.randrange(20, 200))
        (draw.ellipse if source.random() < 0.6 else draw.rectangle)(box, tuple(source.randbytes(3)))
    grain = Image.frombytes("RGB", _PHOTOGRAPH, source.randbytes(3 * width * height))
    return _file(Image.blend(picture.filter(ImageFilter.GaussianBlur(3)), grain, 0.12), "JPEG", quality=85)


def digit(source: random.Random) -> bytes:
    """A grey PNG of MNIST's size with light strokes on black."""
    from PIL import Image, ImageDraw

    side = 4 * _DIGIT
    picture = Image.new("L", (side, side))
    points = [(source.randrange(20, side - 20), source.randrange(20, side - 20)) for _ in range(4)]
    ImageDraw.Draw(picture).line(points, fill=255, width=12, joint="curve")
    return _file(picture.resize((_DIGIT, _DIGIT), Image.Resampling.BILINEAR), "PNG")


def _file(picture: Image.Image, format: str, **options: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def _from_folder(folder: Path) -> list[bytes]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        found = [path.read_bytes() for path in files]
    except OSError as error:
        raise ValueError(f"--pictures {folder}: {error.strerror}; give photographs, digits or a folder") from None
    if not found:
        raise ValueError(f"--pictures {folder}: there are no picture files in it ({', '.join(sorted(_SUFFIXES))})")
    return found
