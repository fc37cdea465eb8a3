"""JPEG decoders side by side: ``python bench/peers/decoders.py``. Needs ``simplejpeg`` (see requirements.txt).

From the bytes of a file to the 224 pixel crop, in one thread; shares of Pillow's full decode, of the fastest of
interleaved runs. A 12 megapixel photograph, baseline and progressive, and one of 500x375.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from models.images.preprocess import PRESETS, crop, picture_to_crop

PRESET = PRESETS["torchvision-224"]
Crop = npt.NDArray[np.uint8]


def photograph(width: int, height: int, *, progressive: bool = False) -> bytes:
    """Smooth colours and the noise of a sensor."""
    y, x = np.mgrid[:height, :width]
    colours = np.stack([127 + 80 * np.sin(x / 97 + i) * np.cos(y / 61 + i) for i in range(3)], -1)
    noisy = colours + np.random.default_rng(0).normal(0, 12, colours.shape)
    out = io.BytesIO()
    picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    picture.save(out, "JPEG", quality=90, progressive=progressive)
    return out.getvalue()


def pillow(data: bytes) -> Crop:
    return crop(Image.open(io.BytesIO(data)).convert("RGB"), PRESET)


def topfive(data: bytes) -> Crop:
    return picture_to_crop(data, PRESET, max_pixels=80_000_000)


def simple(data: bytes) -> Crop:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    least = 2 * PRESET.resize if min(height, width) > 2 * PRESET.resize else 0
    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least, min_factor=1)
    return crop(Image.fromarray(pixels), PRESET)


def torchvisions(data: bytes) -> Crop:
    pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return crop(Image.fromarray(pixels.permute(1, 2, 0).numpy()), PRESET)


DECODERS: dict[str, Callable[[bytes], Crop]] = {
    "Pillow, full": pillow,
    "TopFive (Pillow, draft)": topfive,
    "simplejpeg, scaled": simple,
    "torchvision.io, full": torchvisions,
}


def main() -> None:
    torch.set_num_threads(1)
    files = {
        "12 MP baseline": (photograph(4000, 3000), 11),
        "12 MP progressive": (photograph(4000, 3000, progressive=True), 7),
        "500x375": (photograph(500, 375), 80),
    }
    for name, (data, rounds) in files.items():
        fastest = dict.fromkeys(DECODERS, float("inf"))
        for _ in range(rounds):
            for decoder, decode in DECODERS.items():
                started = time.perf_counter()
                decode(data)
                fastest[decoder] = min(fastest[decoder], time.perf_counter() - started)
        full = fastest["Pillow, full"]
        print(f"{name} ({len(data) / 1e6:.2f} MB)")
        for decoder, seconds in fastest.items():
            print(f"  {decoder:26} {seconds * 1e3:7.1f} ms  {seconds / full:.2f}")


if __name__ == "__main__":
    main()
