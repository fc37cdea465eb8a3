"""The photograph that is decoded and posted: 500x375, a file of 45 kB."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_SEED = 5


@functools.cache
def photograph() -> bytes:
    """A JPEG of soft shapes, and of the grain that fills a JPEG: 4:2:0, as ``bench/load.py`` draws it."""
    random = np.random.default_rng(_SEED)
    picture = Image.new("RGB", (500, 375), (120, 150, 190))
    draw = ImageDraw.Draw(picture)
    for _ in range(60):
        x, y, w, h = random.integers(-60, 500), random.integers(-60, 375), *random.integers(20, 200, 2)
        red, green, blue = random.integers(0, 256, 3).tolist()
        shape = draw.ellipse if random.random() < 0.6 else draw.rectangle
        shape((int(x), int(y), int(x + w), int(y + h)), (red, green, blue))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(3)), np.float32)
    pixels = blurred + random.normal(0, 9, blurred.shape)
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()
