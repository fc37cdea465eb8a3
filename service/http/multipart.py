"""``multipart/form-data`` (RFC 7578, in the form of RFC 2046): the files in a body that is in memory.

Libraries for this parse a stream, for which they step through it in Python, keep every field as text and spool every
file. Here the whole body is in memory: boundaries are searched for, and nothing but files is copied. What common
clients make of the two documents is read: lines that end with LF alone, text before the first boundary and after the
last, parts without a type, names in any encoding, base64 as a transfer encoding.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from service.domain.errors import BadBodyError
from service.http import base64_text

#: RFC 2046 allows 70 characters; some clients take more.
_LONGEST_BOUNDARY = 250
#: Limits on a part's headers, and on the parts that are no files: their number, and the bytes of one.
_MAX_HEADERS = 8 * 1024
MAX_FIELDS = 1_000
MAX_FIELD_BYTES = 1_000_000
#: Bytes that are searched at once: below a millisecond in the worst case, after which other threads may run.
_WINDOW = 64 * 1024
#: Spaces that may follow a boundary on its line, and lines that begin with the boundary and are none.
_PADDING = 100
_MAX_FALSE = 1_000
_LINE_ENDS = (b"\r\n", b"\n")

_PARAMETER = re.compile(r';\s*([^=;"\s]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^;]*))', re.DOTALL)


class _Delimiter(NamedTuple):
    """A boundary on a line of its own."""

    start: int
    """Where the line break before it begins, which belongs to it."""
    end: int
    last: bool


def boundary_of(content_type: str) -> bytes:
    """The boundary in a Content-Type. Every other parameter is ignored, ``charset`` above all.

    Raises:
        BadBodyError: there is none, or it cannot be one.
    """
    boundary = _parameters(content_type).get("boundary", "").rstrip().encode("latin-1", "replace")
    if not boundary:
        raise BadBodyError("broken multipart body: its Content-Type has no boundary")
    if len(boundary) > _LONGEST_BOUNDARY or b"\r" in boundary or b"\n" in boundary:
        raise BadBodyError(f"broken multipart body: a boundary is one line of {_LONGEST_BOUNDARY} characters at most")
    return boundary


def files(content: bytes, boundary: bytes, max_files: int, pause: Callable[[], object] = lambda: None) -> list[bytes]:
    """The contents of all parts with a file name, in order.

    Args:
        content: the body.
        boundary: as ``boundary_of`` has it.
        max_files: more are an error.
        pause: called now and then, so that a large body need not keep other threads from running.

    Raises:
        BadBodyError: the body is broken, or has more or larger parts than it may.
    """
    found: list[bytes] = []
    fields = 0
    for part, headers in _parts(content, boundary, pause):
        if not _file_name(headers):
            fields += 1
            if fields > MAX_FIELDS:
                raise BadBodyError(f"the multipart body has more than {MAX_FIELDS:,} parts without a file name")
            if len(part) > MAX_FIELD_BYTES:
                raise BadBodyError(
                    f"a part without a file name has {len(part):,} bytes, and may have {MAX_FIELD_BYTES:,}; a picture "
                    "needs a file name: curl sends one for -F image=@FILE"
                )
            continue
        if len(found) == max_files:
            raise BadBodyError(f"the multipart body has more than {max_files} files")
        found.append(_decoded(part, headers.get("content-transfer-encoding", ""), pause))
    return found


class _Lines:
    """The boundaries of one body."""

    def __init__(self, content: bytes, boundary: bytes, pause: Callable[[], object]) -> None:
        self._content = content
        self._text = b"--" + boundary
        self._pause = pause
        self._false = 0

    def first(self) -> tuple[_Delimiter, bytes]:
        """The first boundary, and how lines end in this body."""
        first: tuple[_Delimiter, bytes] | None = None
        for line_end in _LINE_ENDS:
            found = self._at(0, 0, line_end) if self._content.startswith(self._text) else None
            if found is not None:
                return found, line_end
        stop = len(self._content)
        for line_end in _LINE_ENDS:
            found = self.next(0, line_end, stop)
            if found is not None:
                first, stop = (found, line_end), found.start
        if first is None:
            raise BadBodyError("broken multipart body: the boundary of its Content-Type does not occur in it")
        return first

    def next(self, start: int, line_end: bytes, stop: int | None = None) -> _Delimiter | None:
        """The first boundary that begins at ``start`` or later, and before ``stop``."""
        text = line_end + self._text
        stop = len(self._content) if stop is None else stop
        while start < stop:
            found = self._content.find(text, start, min(start + _WINDOW, stop) + len(text) - 1)
            if found < 0:
                start += _WINDOW
                self._pause()
                continue
            delimiter = self._at(found, len(line_end), line_end)
            if delimiter is not None:
                return delimiter
            start = found + len(text)
            self._false += 1
            if self._false > _MAX_FALSE:
                raise BadBodyError("broken multipart body: its boundary occurs again and again in its parts")
        return None

    def _at(self, start: int, line_break: int, line_end: bytes) -> _Delimiter | None:
        """The delimiter that begins there, unless other text follows the boundary on its line."""
        end = start + line_break + len(self._text)
        if self._content.startswith(b"--", end):
            return _Delimiter(start, end, last=True)
        line = self._content[end : end + _PADDING]
        end += len(line) - len(line.lstrip(b" \t"))
        return _Delimiter(start, end, last=False) if self._content.startswith(line_end, end) else None


def _parts(content: bytes, boundary: bytes, pause: Callable[[], object]) -> Iterator[tuple[memoryview, dict[str, str]]]:
    """Each part: its content and its headers."""
    view, lines = memoryview(content), _Lines(content, boundary, pause)
    before, line_end = lines.first()
    while not before.last:
        after = lines.next(before.end, line_end)
        if after is None:
            raise BadBodyError("broken multipart body: it ends without its last boundary; was it cut off?")
        # Of an empty part, the line break that ends its headers may be the one that begins the next boundary.
        blank = content.find(2 * line_end, before.end, min(after.start + len(line_end), before.end + _MAX_HEADERS))
        if blank < 0:
            why = "are too long" if after.start - before.end > _MAX_HEADERS else "do not end with an empty line"
            raise BadBodyError(f"broken multipart body: the headers of a part {why}")
        yield view[blank + 2 * len(line_end) : after.start], _headers(content[before.end : blank])
        before = after


def _headers(block: bytes) -> dict[str, str]:
    """A part's headers, by their names in lower case; a line that begins with a space goes on with the one before."""
    text = re.sub(r"\r?\n[ \t]+", " ", block.decode("latin-1"))
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _file_name(headers: dict[str, str]) -> str:
    """The part's file name; empty if it has none, as where no file was chosen in a form."""
    parameters = _parameters(headers.get("content-disposition", ""))
    # RFC 5987's form, and RFC 2231's of a name in pieces.
    names = (parameters.get(key, "") for key in ("filename", "filename*", "filename*0", "filename*0*"))
    return next((name for name in names if name), "")


def _parameters(header: str) -> dict[str, str]:
    """What follows a header's value, as in ``form-data; name="a"``, by names in lower case."""
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(header):
        found.setdefault(name.lower(), quoted or plain.strip())
    return found


def _decoded(part: memoryview, encoding: str, pause: Callable[[], object]) -> bytes:
    match encoding.lower():
        case "" | "binary" | "8bit" | "7bit":
            return bytes(part)
        case "base64":
            try:
                return base64_text.decode(part, pause)
            except base64_text.Base64Error as error:
                raise BadBodyError(f"a part's Content-Transfer-Encoding is base64, and it is not: {error}") from error
        case "quoted-printable":
            return binascii.a2b_qp(bytes(part))
    raise BadBodyError(f"a part's Content-Transfer-Encoding is {encoding[:40]!r}; send pictures as they are")
