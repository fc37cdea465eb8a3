"""Base64 as clients write it: RFC 4648's alphabet or the one for URLs, with padding or without, with line breaks."""

from __future__ import annotations

import binascii
from collections.abc import Callable

#: Characters that are decoded at once: below a millisecond, after which other threads may run.
_SLICE = 256 * 1024
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_SPACES = b" \t\r\n\v\f"


class Base64Error(ValueError):
    """The text is no base64; says why."""


def decode(text: memoryview | bytes, pause: Callable[[], object] = lambda: None) -> bytes:
    """The bytes that a base64 text stands for.

    Args:
        text: ASCII.
        pause: called now and then, so that a long text need not keep other threads from running.

    Raises:
        Base64Error: it has other characters, or an impossible length.
    """
    pieces: list[bytes] = []
    rest = b""
    for start in range(0, len(text), _SLICE):
        if start:
            pause()
        rest += bytes(text[start : start + _SLICE]).translate(_TO_STANDARD, _SPACES)
        # Padding, of two characters at most, stays for the end.
        whole = (len(rest) - 3) // 4 * 4
        if whole > 0:
            pieces.append(_decoded(rest[:whole], padded=False))
            rest = rest[whole:]
    pieces.append(_decoded(_padded(rest)))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _padded(end: bytes) -> bytes:
    """The last few characters with the padding that belongs to them."""
    digits = end.rstrip(b"=")
    padding = len(end) - len(digits)
    missing = -len(digits) % 4
    if missing == 3:
        raise Base64Error("a character is missing or too many at its end")
    if padding not in (0, missing):
        raise Base64Error("its padding with = is wrong")
    return digits + missing * b"="


def _decoded(text: bytes, *, padded: bool = True) -> bytes:
    if b"=" in (text.rstrip(b"=") if padded else text):
        raise Base64Error("there is an = before its end")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise Base64Error("it has other characters than A-Z, a-z, 0-9, + and / (or - and _)") from error
