"""Base64 as clients write it: in RFC 4648's standard or URL-safe alphabet, padded or not, with or without line breaks.

Python's own decoders take one alphabet and one form of padding, and a whole text at once.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable

#: Characters decoded at once, a multiple of four. It takes less than a millisecond, after which other threads may run.
_SLICE = 256 * 1024
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
#: What base64 may have anywhere, and is not part of it.
SPACES = b" \t\r\n\v\f"


class Base64Error(ValueError):
    """A text is not base64. The message says why."""


def decode(text: memoryview | bytes, pause: Callable[[], object] = lambda: None) -> bytes:
    """The bytes that a base64 text stands for.

    Args:
        text: ASCII characters.
        pause: called between slices of a long text, to let other threads run.

    Raises:
        Base64Error: the text has other characters, or a length that no bytes encode to.
    """
    pieces: list[bytes] = []
    rest, plain = b"", True
    for start in range(0, len(text), _SLICE):
        if start:
            pause()
        end = start + _SLICE
        # Most texts are in the standard alphabet and have no line breaks: they are decoded where they lie.
        if plain and end < len(text):
            piece = _plain(text[start:end])
            if piece is not None:
                pieces.append(piece)
                continue
            plain = False
        rest += bytes(text[start:end]).translate(_TO_STANDARD, SPACES)
        # The last three characters may be padding, which only the end may have.
        whole = (len(rest) - 3) // 4 * 4
        if whole > 0:
            pieces.append(_decoded(rest[:whole], padded=False))
            rest = rest[whole:]
    pieces.append(_decoded(_padded(rest)))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _plain(text: memoryview | bytes) -> bytes | None:
    """What a slice of whole groups of four characters stands for; None if it has other characters, or padding."""
    try:
        piece = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None
    return piece if 4 * len(piece) == 3 * len(text) else None


def _padded(end: bytes) -> bytes:
    """The last characters of a text, with the padding that their number requires."""
    digits = end.rstrip(b"=")
    padding = len(end) - len(digits)
    missing = -len(digits) % 4
    if missing == 3:
        raise Base64Error("it ends with one character too many, or lacks some")
    if padding not in (0, missing):
        raise Base64Error("its padding (=) has the wrong length")
    return digits + missing * b"="


def _decoded(text: bytes, *, padded: bool = True) -> bytes:
    if b"=" in (text.rstrip(b"=") if padded else text):
        raise Base64Error("it has an = before its end")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise Base64Error("it has characters other than A-Z, a-z, 0-9, + and / (or - and _)") from error
