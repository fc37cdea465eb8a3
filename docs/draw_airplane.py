"""Draws the photograph of the examples, ``docs/images/airplane.png``: an airliner.

Run it from the repository's root.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 640, 480
Colour = tuple[int, int, int]
FAR, NEAR, LIGHT, SHADE, DARK, BLUE = (
    (150, 156, 166),
    (170, 176, 186),
    (214, 218, 224),
    (186, 191, 199),
    (70, 80, 96),
    (60, 90, 150),
)
#: Fuselage: left, top, right, bottom.
HULL = (95, 188, 585, 262)
#: Centre and width of puffs of cloud.
PUFFS = ((90, 380, 60), (150, 400, 70), (230, 410, 50), (520, 90, 40), (570, 100, 55))


def draw() -> Image.Image:
    """A colour picture, 640 x 480."""
    # Twice the size, then scaled down: Pillow draws hard edges.
    picture = _sky().resize((2 * WIDTH, 2 * HEIGHT))
    pen = ImageDraw.Draw(picture)

    def polygon(colour: Colour, *corners: tuple[int, int]) -> None:
        pen.polygon([(2 * x, 2 * y) for x, y in corners], fill=colour)

    def ellipse(colour: Colour, box: tuple[int, int, int, int]) -> None:
        pen.ellipse([2 * edge for edge in box], fill=colour)

    polygon(FAR, (330, 215), (455, 120), (485, 120), (410, 225))
    polygon(BLUE, (110, 205), (75, 120), (112, 120), (165, 200))
    ellipse(LIGHT, HULL)
    polygon(LIGHT, (95, 205), (200, 192), (200, 245))
    pen.chord([2 * edge for edge in HULL], 8, 172, fill=SHADE)
    polygon(FAR, (120, 222), (70, 250), (105, 252), (180, 232))
    polygon(NEAR, (300, 232), (215, 345), (258, 345), (420, 240))
    ellipse(DARK, (318, 262, 378, 290))
    for x in range(210, 520, 18):
        ellipse(DARK, (x, 212, x + 7, 220))
    polygon(DARK, (545, 207), (572, 214), (562, 222), (540, 218))
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _sky() -> Image.Image:
    sky, clouds = Image.new("RGB", (WIDTH, HEIGHT)), Image.new("L", (WIDTH, HEIGHT), 0)
    pen = ImageDraw.Draw(sky)
    for y in range(HEIGHT):
        down = y / HEIGHT
        pen.line([(0, y), (WIDTH, y)], fill=(int(95 + 95 * down), int(150 + 65 * down), int(215 + 25 * down)))
    pen = ImageDraw.Draw(clouds)
    for x, y, half in PUFFS:
        pen.ellipse([x - half, y - half / 2, x + half, y + half / 2], fill=150)
    sky.paste((245, 247, 250), mask=clouds.filter(ImageFilter.GaussianBlur(22)))
    return sky


if __name__ == "__main__":
    draw().save(Path("docs/images/airplane.png"), optimize=True)
