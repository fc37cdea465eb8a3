"""Content codings (RFC 9110, section 8.4.1) of a request's body: gzip and deflate, undone within bounds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from service.domain.errors import BadBodyError, BodyTooLargeError, UnsupportedEncodingError

#: What is taken, as the header ``Accept-Encoding`` of a refusal says it.
TAKEN = "gzip, deflate, identity"
#: Bytes that are undone at once. It takes less than a millisecond, after which other threads may run.
_WINDOW = 256 * 1024
_GZIP, _ZLIB, _RAW = 31, 15, -15
#: RFC 9110 wants x-gzip taken for gzip.
_NAMES = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


def coding_of(header: str) -> str | None:
    """The content coding that a Content-Encoding names: ``gzip``, ``deflate`` or None.

    Raises:
        UnsupportedEncodingError: it names another one, or several.
    """
    names = [name for part in header.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if not names:
        return None
    if len(names) > 1:
        raise UnsupportedEncodingError(f"the body is encoded {len(names)} times; encode it once: {TAKEN}")
    if names[0] not in _NAMES:
        raise UnsupportedEncodingError(f"the Content-Encoding {names[0][:40]!r} is not taken; take one of {TAKEN}")
    return _NAMES[names[0]]


def decoded(
    chunks: Iterable[bytes],
    coding: str,
    max_bytes: int,
    grown: Callable[[int], object] = lambda _size: None,
    pause: Callable[[], object] = lambda: None,
) -> bytes:
    """A body without its coding.

    Args:
        chunks: the body.
        coding: from ``coding_of``.
        max_bytes: of the result. No more is ever undone, whatever the body would give.
        grown: told how many bytes there are so far; it may raise.
        pause: called now and then, to let other threads run.

    Raises:
        BadBodyError: the body is not what its coding says, or is cut off.
        BodyTooLargeError: the result has more than ``max_bytes``.
    """
    undone, size, member = list[bytes](), 0, None
    for chunk in chunks:
        rest = chunk
        while rest:
            if member is None:
                member = zlib.decompressobj(_window_bits(coding, rest))
            elif member.eof:
                # Gzip files may follow each other, and zeros may follow the last.
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                if coding != "gzip":
                    raise BadBodyError(f"the body goes on behind the end of its {coding}")
                member = zlib.decompressobj(_GZIP)
            try:
                piece = member.decompress(rest, min(_WINDOW, max_bytes - size + 1))
            except zlib.error as error:
                raise BadBodyError(f"the body is not {coding}, which its Content-Encoding says") from error
            size += len(piece)
            if size > max_bytes:
                raise BodyTooLargeError(f"the body has more than {max_bytes / 1e6:g} MB without its {coding}")
            grown(size)
            undone.append(piece)
            rest = member.unused_data if member.eof else member.unconsumed_tail
            pause()
    if member is None or not member.eof:
        raise BadBodyError(f"the body ends before its {coding} does; was it cut off?")
    return b"".join(undone)


def _window_bits(coding: str, start: bytes) -> int:
    """What zlib wants to know of a coding. ``deflate`` has a header by RFC 9110, and none by some clients."""
    if coding == "gzip":
        return _GZIP
    # The header's first byte names the method, 8, and both together are a multiple of 31 (RFC 1950).
    header = start[0] & 0x0F == 8 and (len(start) < 2 or int.from_bytes(start[:2], "big") % 31 == 0)
    return _ZLIB if header else _RAW
