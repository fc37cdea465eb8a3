"""Every kind of picture file that viewers show: mode, depth, transparency, orientation and quirks of the container.

Each case has the pixels that a viewer shows. They come from what the file was made of, by numpy alone: no decoder has a
part in them. Where a format loses something, the pixels are those before the loss.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.shown import bmp, gif, jpeg, png, webp
from tests.shown.scene import Case


def cases() -> Iterator[Case]:
    """All of them."""
    for kind, made in (("PNG", png), ("JPEG", jpeg), ("GIF", gif), ("WebP", webp), ("BMP", bmp)):
        for case in made.cases():
            yield case._replace(name=f"{kind}, {case.name}")
