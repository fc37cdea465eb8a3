"""PNG files: every colour type, depth and kind of transparency, and what else the format allows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.picture_files import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB_ALPHA,
    chunk,
    exif,
    png,
)
from tests.shown.scene import (
    Case,
    Pixels,
    Samples,
    alphas,
    camera_exif,
    disc,
    grey_scene,
    indexed,
    over_white,
    scene,
    stored_scene,
    three_channels,
    turned,
)


def cases() -> Iterator[Case]:
    picture, grey, hole = scene(), grey_scene(), disc()
    white = np.where(hole[..., None], 255, picture).astype(np.uint8)
    for interlaced in (False, True):
        how = "interlaced" if interlaced else "in rows"
        for depth in (1, 2, 4, 8, 16):
            most = (1 << depth) - 1
            values = grey * most // 255
            shown = three_channels(values * 255 // most)
            yield Case(f"grey {depth} {how}", png(values[..., None], depth, GREY, interlaced=interlaced), shown)
            if depth > 1:
                # Another grey gives way, so that the key's grey is that of the disc alone.
                keyed = np.where(hole, 1, np.where(values == 1, 2, values))
                data = png(
                    keyed[..., None], depth, GREY, interlaced=interlaced, before=chunk(b"tRNS", struct.pack(">H", 1))
                )
                yield Case(f"grey {depth} keyed {how}", data, three_channels(np.where(hole, 255, keyed * 255 // most)))
            if depth <= 8:
                indices, palette = indexed(1 << depth)
                yield from _png_palettes(depth, indices, palette, interlaced, how)
        for depth in (8, 16):
            scale = 257 if depth == 16 else 1
            wide = picture.astype(np.int64) * scale
            yield Case(f"RGB {depth} {how}", png(wide, depth, interlaced=interlaced), picture)
            key = np.array([3, 1, 2]) * scale + scale // 3
            data = png(
                np.where(hole[..., None], key, wide),
                depth,
                interlaced=interlaced,
                before=chunk(b"tRNS", struct.pack(">3H", *key)),
            )
            yield Case(f"RGB {depth} keyed {how}", data, white)
            alpha = alphas()
            for name, colour, opaque in (
                ("grey and alpha", GREY_ALPHA, grey[..., None]),
                ("RGB and alpha", RGB_ALPHA, picture.astype(np.int64)),
            ):
                data = png(np.dstack([opaque, alpha]) * scale, depth, colour, interlaced=interlaced)
                flat = over_white(np.broadcast_to(opaque, picture.shape), alpha)
                yield Case(f"{name} {depth} {how}", data, flat)
    for name, orientation, data in turned():
        yield Case(name, png(stored_scene(orientation), before=chunk(b"eXIf", data)), picture)
    yield from _png_quirks()


def _png_palettes(depth: int, indices: Samples, palette: Pixels, interlaced: bool, how: str) -> Iterator[Case]:
    colours = chunk(b"PLTE", palette.tobytes())
    samples = indices[..., None]
    data = png(samples, depth, PALETTE, interlaced=interlaced, before=colours)
    yield Case(f"palette {depth} {how}", data, palette[indices])
    alphas = np.full(len(palette), 255)
    alphas[: len(palette) // 2 + 1] = np.linspace(0, 200, len(palette) // 2 + 1)
    given = bytes(alphas[: len(palette) // 2 + 1].tolist())
    data = png(samples, depth, PALETTE, interlaced=interlaced, before=colours + chunk(b"tRNS", given))
    yield Case(f"palette {depth} with alphas {how}", data, over_white(palette[indices], alphas[indices]))


def _png_quirks() -> Iterator[Case]:
    picture = scene()
    plain = png(picture)
    indices, palette = indexed(8)
    colours = chunk(b"PLTE", palette.tobytes())
    bomb = zlib.compress(bytes(20_000_000), 9)
    profile = b"a profile\0\0" + zlib.compress(bytes(range(256)) * 20)
    frame = struct.pack(">IIIIIHHBB", 0, 70, 45, 0, 0, 1, 10, 0, 0)
    for name, chunks in {
        "a gamma of 1": chunk(b"gAMA", struct.pack(">I", 100_000)),
        "chromaticities": chunk(b"cHRM", struct.pack(">8I", *range(1, 9))),
        "sRGB": chunk(b"sRGB", b"\0"),
        "a colour profile": chunk(b"iCCP", profile),
        "a damaged colour profile": chunk(b"iCCP", b"a profile\0\0" + bytes(range(100))),
        "a compressed text of 20 MB": chunk(b"zTXt", b"Comment\0\0" + bomb),
        "an international text of 20 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
        "a colour profile of 20 MB": chunk(b"iCCP", b"x\0\0" + bomb),
        "a text without its key's end": chunk(b"tEXt", b"no end of the key"),
        "times, sizes and backgrounds": chunk(b"tIME", b"\7\xe8\1\2\3\4\5")
        + chunk(b"pHYs", bytes(9))
        + chunk(b"bKGD", b"\0\1\0\2\0\3")
        + chunk(b"sBIT", b"\5\6\5")
        + chunk(b"hIST", b"\0\1"),
        "a wrong checksum of a text": chunk(b"tEXt", b"Comment\0hello", checksum=7),
        "a wrong checksum of a gamma": chunk(b"gAMA", struct.pack(">I", 45_455), checksum=7),
        "a wrong checksum of a transparent colour": chunk(b"tRNS", struct.pack(">3H", *picture[0, 0]), checksum=7),
        "HDR and other new chunks": chunk(b"cICP", b"\x09\x10\0\1")
        + chunk(b"mDCV", bytes(24))
        + chunk(b"caBX", b"jumb"),
        "private chunks": chunk(b"prVt", bytes(300)) + chunk(b"vpAg", bytes(9)),
        "animation control of no frames": chunk(b"acTL", struct.pack(">II", 0, 0)),
        "a suggested palette": chunk(b"PLTE", bytes(range(48))),
        "a suggested palette with a wrong checksum": chunk(b"PLTE", bytes(range(48)), checksum=7),
        "a suggested palette of a wrong length": chunk(b"PLTE", bytes(range(47))),
    }.items():
        yield Case(name, png(picture, before=chunks), picture)
        if b"PLTE" not in chunks:
            yield Case(f"{name}, between the pixels", png(picture, between=chunks), picture)
            yield Case(f"{name}, behind the pixels", png(picture, after=chunks), picture)
    yield Case(
        "grey with a palette", png(grey_scene()[..., None], 8, GREY, before=colours), three_channels(grey_scene())
    )
    yield Case("EXIF behind the pixels", png(stored_scene(6), after=chunk(b"eXIf", exif(6))), picture)
    yield Case("EXIF of a camera", png(stored_scene(8), before=chunk(b"eXIf", camera_exif(8))), picture)
    yield Case(
        "EXIF that begins with Exif", png(stored_scene(6), before=chunk(b"eXIf", b"Exif\0\0" + exif(6))), picture
    )
    # What Photoshop and ImageMagick write as text turns nothing in any browser.
    yield Case("an orientation as text", png(picture, before=chunk(b"tEXt", b"exif:Orientation\x006")), picture)
    control = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", frame)
    later = chunk(b"fcTL", struct.pack(">I", 1) + frame[4:]) + chunk(b"fdAT", struct.pack(">I", 2) + b"damaged")
    yield Case("an animation's first frame", png(picture, before=control, after=later), picture)
    hidden = chunk(b"acTL", struct.pack(">II", 1, 0))
    yield Case(
        "an animation's hidden picture", png(picture, before=hidden, after=chunk(b"fcTL", frame) + later), picture
    )
    head, rows = plain[:33], b"".join(b"\0" + row.tobytes() for row in picture)
    packed, end = zlib.compress(rows), chunk(b"IEND")
    for name, pixels in {
        "many chunks of pixels": b"".join(chunk(b"IDAT", packed[at : at + 7]) for at in range(0, len(packed), 7)),
        "empty chunks of pixels": chunk(b"IDAT") + chunk(b"IDAT", packed) + chunk(b"IDAT"),
        "pixels that are not compressed": chunk(b"IDAT", zlib.compress(rows, 0)),
        "a wrong checksum of a chunk of pixels": chunk(b"IDAT", packed, checksum=7),
        "a wrong checksum of the data": chunk(b"IDAT", packed[:-4] + b"\1\2\3\4"),
        "data without their checksum": chunk(b"IDAT", packed[:-4]),
        "more data than pixels": chunk(b"IDAT", zlib.compress(rows + bytes(500))),
        "bytes behind the data": chunk(b"IDAT", packed + b"more bytes"),
        "a small window": chunk(b"IDAT", _deflated(rows, 9)),
    }.items():
        yield Case(name, head + pixels + end, picture)
    yield Case("each filter of rows", head + chunk(b"IDAT", zlib.compress(_filtered(picture))) + end, picture)
    yield Case("no end", plain[:-12], picture)
    yield Case("bytes behind the end", plain + b"\r\n--boundary--" + bytes(300), picture)
    yield Case(
        "a palette of too few alphas",
        png(indices[..., None], 4, PALETTE, before=colours + chunk(b"tRNS", b"\xff")),
        palette[indices],
    )
    yield Case(
        "a palette of too many alphas",
        png(indices[..., None], 4, PALETTE, before=colours + chunk(b"tRNS", b"\xff" * 8 + bytes(20))),
        palette[indices],
    )
    alphas = chunk(b"tRNS", bytes(8))
    yield Case(
        "alphas before their palette", png(indices[..., None], 4, PALETTE, before=alphas + colours), palette[indices]
    )
    for side in (1, 2, 3, 5):
        part = picture[20 : 20 + side, 30:31]
        yield Case(f"interlaced, {side} x 1", png(part, interlaced=True), part)


def _deflated(data: bytes, window: int) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, window)
    return made.compress(data) + made.flush()


def _filtered(picture: Pixels) -> bytes:
    """The rows with filters 0 to 4 in turn."""
    values = picture.reshape(len(picture), -1).astype(int)
    out = b""
    for y, row in enumerate(values):
        up = values[y - 1] if y else np.zeros_like(row)
        left, corner = (np.concatenate(([0, 0, 0], line[:-3])) for line in (row, up))
        base = left + up - corner
        far = np.abs(np.stack([base - left, base - up, base - corner]))
        paeth = np.choose(far.argmin(0), [left, up, corner])
        predicted = (0, left, up, (left + up) // 2, paeth)[y % 5]
        out += bytes((y % 5,)) + ((row - predicted) % 256).astype(np.uint8).tobytes()
    return out
