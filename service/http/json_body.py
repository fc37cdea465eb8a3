"""JSON bodies: ``{"image": TEXT}`` or ``{"images": [TEXT, ...]}``, where a text is base64 or a ``data:`` URL."""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Callable

import msgspec

from service.domain.errors import BadBodyError, Failure, NoPictureError, failure_of
from service.http import base64_text

#: Most commas in a body. 64 pictures as ``data:`` URLs have two each; thousands are junk, which would take many times
#: its size in memory once it is parsed.
_MAX_COMMAS = 1_000
#: Most characters of the body or of the parser's message that an error repeats.
_MAX_TEXT = 200
#: Bytes in which commas are counted at once.
_WINDOW = 1024 * 1024
#: Characters unescaped at once. It takes less than a millisecond, after which other threads may run.
_SLICE = 256 * 1024
#: Most characters of a ``data:`` URL before its base64.
_MAX_HEAD = 256
_DATA_URL = re.compile(rb"data:[^,]*?;base64,", re.IGNORECASE)


class _Pictures(msgspec.Struct, forbid_unknown_fields=True):
    """The members of a body. Their strings are not copied: ``Raw`` is a view of the body's bytes."""

    image: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    images: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Pictures)


def pictures(
    content: bytes, max_pictures: int, pause: Callable[[], object] = lambda: None
) -> tuple[list[bytes | Failure], bool]:
    """The pictures in a body, and whether they came as an array.

    Args:
        content: the body.
        max_pictures: more pictures than that are an error.
        pause: called now and then while a large body is read, to let other threads run.

    Returns:
        The pictures. In an array, one that cannot be read is a failure in its place.

    Raises:
        BadBodyError: the JSON is broken or has other members, or the base64 of ``image`` is broken.
        NoPictureError: ``image`` is empty.
    """
    body = _parsed(content, max_pictures, pause)
    image = None if body.image is msgspec.UNSET or bytes(body.image) == b"null" else body.image
    images = None if body.images is msgspec.UNSET else body.images
    if (image is None) == (images is None):
        raise BadBodyError('the JSON body needs either "image" or "images"')
    escaped = b"\\" in content
    if image is not None:
        return [_from_base64(_text(image, "image", escaped), pause)], False
    assert images is not None
    if not 1 <= len(images) <= max_pictures:
        raise BadBodyError(f'"images" has {len(images)} entries; 1 to {max_pictures} are allowed')
    texts = [_text(raw, f"images[{index}]", escaped) for index, raw in enumerate(images)]
    return [_entry(text, pause) for text in texts], True


def _parsed(content: bytes, max_pictures: int, pause: Callable[[], object]) -> _Pictures:
    """A body's members."""
    if b"\0" in content[:4]:
        raise BadBodyError("broken JSON body: it is in UTF-16 or UTF-32; send it in UTF-8")
    commas = 0
    for start in range(0, len(content), _WINDOW):
        commas += content.count(b",", start, start + _WINDOW)
        if commas > _MAX_COMMAS:
            raise BadBodyError(
                f'broken JSON body: more than {_MAX_COMMAS:,} members; it takes "image", a string, or "images", an '
                f"array of 1 to {max_pictures} strings"
            )
        pause()
    # RFC 8259 lets readers ignore the byte order mark that PowerShell and .NET write.
    text = memoryview(content)[3:] if content.startswith(codecs.BOM_UTF8) else content
    try:
        return _decoder.decode(text)
    except RecursionError as error:
        raise BadBodyError("broken JSON body: it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadBodyError(f"broken JSON body: {_shortened(str(error))}") from error


def _text(raw: msgspec.Raw, where: str, escaped: bool) -> bytes | memoryview:
    """A string's characters: a view of the body's bytes, unless they have to be unescaped.

    Args:
        raw: the JSON value.
        where: its place in the body, for errors.
        escaped: whether the body has escapes.
    """
    view = memoryview(raw)
    if view[0] != ord('"'):
        found = bytes(view[:_MAX_TEXT]).decode("utf-8", "replace")
        raise BadBodyError(f"broken JSON body: {where} must be a string, not {found}")
    if not escaped:
        return view[1:-1]
    try:
        return msgspec.json.decode(raw, type=str).encode()
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadBodyError(f"broken JSON body: {where}: {_shortened(str(error))}") from error


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."


def _entry(text: bytes | memoryview, pause: Callable[[], object]) -> bytes | Failure:
    """One picture of an array, or what is wrong with it: its neighbours are answered all the same."""
    try:
        return _from_base64(text, pause)
    except (BadBodyError, NoPictureError) as error:
        return failure_of(error)


#: Quoted-printable writes a byte as percent-encoding does, but with = for %. Python undoes that many times faster, so
#: the two characters change places; the % that are left then were a text's own =.
_QUOTED = bytes.maketrans(b"%=", b"=%")
_UNQUOTED = bytes.maketrans(b"%", b"=")


def _percent_decoded(text: bytes | memoryview, pause: Callable[[], object]) -> bytes | memoryview:
    """The base64 of a URL without its percent-encoding.

    Raises:
        BadBodyError: a percent sign stands before anything but two hexadecimal digits.
    """
    if not any(b"%" in bytes(text[start : start + _WINDOW]) for start in range(0, len(text), _WINDOW)):
        return text
    pieces, rest = list[bytes](), b""
    for start in range(0, len(text), _SLICE):
        # Line breaks mean nothing in base64, and behind an = something else in quoted-printable.
        piece = rest + bytes(text[start : start + _SLICE]).translate(_QUOTED, base64_text.SPACES)
        # No escape may be cut in two.
        cut = piece.rfind(b"=", -2) if start + _SLICE < len(text) else -1
        piece, rest = (piece, b"") if cut < 0 else (piece[:cut], piece[cut:])
        found = binascii.a2b_qp(piece)
        # Each escape is three characters for one. What is none is not as much shorter.
        if len(piece) - len(found) != 2 * piece.count(b"="):
            raise BadBodyError("bad base64: it has a % that is not followed by two hexadecimal digits")
        pieces.append(found.translate(_UNQUOTED) if b"%" in found else found)
        pause()
    return b"".join(pieces)


def _from_base64(text: bytes | memoryview, pause: Callable[[], object]) -> bytes:
    """The bytes that base64 or a ``data:`` URL stands for."""
    head = bytes(text[:_MAX_HEAD])
    if head[:5].lower() == b"data:":
        url = _DATA_URL.match(head)
        if url is None:
            raise BadBodyError("the data: URL is not in base64; write it as data:image/png;base64,...")
        text = _percent_decoded(text[url.end() :], pause)
    try:
        content = base64_text.decode(text, pause)
    except base64_text.Base64Error as error:
        raise BadBodyError(f"bad base64: {error}") from error
    if not content:
        raise NoPictureError("the picture is empty")
    return content
