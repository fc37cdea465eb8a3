"""``multipart/form-data`` (RFC 7578, in the syntax of RFC 2046), and its relatives: the files in a body in memory.

A part is a file if it has a file name. Clients that leave it out are understood where they mean a picture: a part whose
Content-Type says so, or whose bytes begin as a picture's do.

The parser reads what clients send beyond the letter of the two documents: lines that end with LF alone, spaces after a
boundary, text before the first boundary and after the last, parts without a Content-Disposition or Content-Type, file
names in any encoding, and base64 or quoted-printable as transfer encodings.

No library reads all of that: ``multipart`` 2.0 and ``python-multipart`` 0.0.34, which Starlette uses, refuse LF alone,
spaces after the first boundary and parts without a Content-Disposition; Werkzeug 3.1 refuses the last too, and names
that are not UTF-8. All three parse a stream, so they copy a file at least twice, where this parser searches the body in
place and copies each file once; and two megabytes of near-boundaries keep ``python-multipart`` busy for a second.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from service.domain.errors import BadBodyError
from service.http import base64_text

#: RFC 2046 allows 70 characters; some clients use more.
_LONGEST_BOUNDARY = 250
#: Limits: bytes of a part's headers, parts without a file name, and bytes of one of these.
_MAX_HEADERS = 8 * 1024
MAX_FIELDS = 1_000
MAX_FIELD_BYTES = 1_000_000
#: Bytes searched at once. It takes less than a millisecond in the worst case, after which other threads may run.
_WINDOW = 64 * 1024
#: Spaces and tabs that may follow a boundary on its line.
_PADDING = 100
#: Lines in the parts that may begin with the boundary and go on with other text.
_MAX_FALSE = 1_000
_LINE_ENDS = (b"\r\n", b"\n")

_PARAMETER = re.compile(r';\s*([^=;"\s]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^;]*))', re.DOTALL)


class _Delimiter(NamedTuple):
    """A boundary on a line of its own."""

    start: int
    """Where it begins, with the line break before it, which belongs to it."""
    end: int
    """Where its line ends, before the line break."""
    last: bool
    """Whether it ends the body: it is followed by ``--``."""


def boundary_of(content_type: str) -> bytes:
    """The boundary in a Content-Type. Other parameters are ignored, ``charset`` too.

    Raises:
        BadBodyError: there is no boundary, or it is longer than a boundary may be.
    """
    boundary = _parameters(content_type).get("boundary", "").rstrip().encode("latin-1", "replace")
    if not boundary:
        raise BadBodyError("broken multipart body: its Content-Type names no boundary")
    if len(boundary) > _LONGEST_BOUNDARY or b"\r" in boundary or b"\n" in boundary:
        raise BadBodyError(
            f"broken multipart body: its boundary must be one line of {_LONGEST_BOUNDARY} characters at most"
        )
    return boundary


def files(
    content: bytes,
    boundary: bytes,
    max_files: int,
    pause: Callable[[], object] = lambda: None,
) -> list[bytes]:
    """The contents of all parts that are files, in order.

    Args:
        content: the body.
        boundary: from ``boundary_of``.
        max_files: more files than that are an error.
        pause: called now and then while a large body is read, to let other threads run.

    Raises:
        BadBodyError: the body is broken, or has too many or too large parts.
    """
    found: list[bytes] = []
    fields = 0
    for part, headers in _parts(content, boundary, pause):
        if not _file_name(headers) and not _is_picture(part, headers):
            fields += 1
            if fields > MAX_FIELDS:
                raise BadBodyError(f"the multipart body has more than {MAX_FIELDS:,} parts without a file name")
            if len(part) > MAX_FIELD_BYTES:
                raise BadBodyError(
                    f"a part without a file name has {len(part):,} bytes; it may have {MAX_FIELD_BYTES:,}. A picture "
                    "needs a file name: curl sends one for -F image=@FILE"
                )
            continue
        if len(found) == max_files:
            raise BadBodyError(f"the multipart body has more than {max_files} files")
        found.append(_decoded(part, headers.get("content-transfer-encoding", ""), pause))
    return found


class _Delimiters:
    """Finds the delimiters of one body."""

    def __init__(self, content: bytes, boundary: bytes, pause: Callable[[], object]) -> None:
        self._content = content
        self._text = b"--" + boundary
        self._pause = pause
        self._false = 0

    def first(self) -> tuple[_Delimiter, bytes]:
        """The first delimiter, and how the lines of this body end.

        Raises:
            BadBodyError: there is no delimiter.
        """
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
        """The first delimiter that begins at ``start`` or later and before ``stop``; None if there is none.

        Raises:
            BadBodyError: too many other lines begin with the boundary.
        """
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
                raise BadBodyError("broken multipart body: too many lines of its parts begin with its boundary")
        return None

    def _at(self, start: int, line_break: int, line_end: bytes) -> _Delimiter | None:
        """The delimiter that begins at ``start``; None if other text follows the boundary on its line.

        Args:
            start: where the boundary, or the line break before it, begins.
            line_break: length of that line break; 0 at the start of the body.
            line_end: how lines end.
        """
        end = start + line_break + len(self._text)
        if self._content.startswith(b"--", end):
            return _Delimiter(start, end, last=True)
        line = self._content[end : end + _PADDING]
        end += len(line) - len(line.lstrip(b" \t"))
        return _Delimiter(start, end, last=False) if self._content.startswith(line_end, end) else None


def _parts(content: bytes, boundary: bytes, pause: Callable[[], object]) -> Iterator[tuple[memoryview, dict[str, str]]]:
    """The parts of a body: the content and the headers of each."""
    view, delimiters = memoryview(content), _Delimiters(content, boundary, pause)
    before, line_end = delimiters.first()
    while not before.last:
        after = delimiters.next(before.end, line_end)
        if after is None:
            raise BadBodyError("broken multipart body: it ends without its last boundary; was it cut off?")
        # The empty line after the headers of an empty part may be the line break that begins the next delimiter.
        blank = content.find(2 * line_end, before.end, min(after.start + len(line_end), before.end + _MAX_HEADERS))
        if blank < 0:
            why = "are too long" if after.start - before.end > _MAX_HEADERS else "do not end with an empty line"
            raise BadBodyError(f"broken multipart body: the headers of a part {why}")
        yield view[blank + 2 * len(line_end) : after.start], _headers(content[before.end : blank])
        before = after


def _headers(block: bytes) -> dict[str, str]:
    """A part's headers, by their names in lower case. A line that begins with a space continues the line before."""
    text = re.sub(r"\r?\n[ \t]+", " ", block.decode("latin-1"))
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _file_name(headers: dict[str, str]) -> str:
    """A part's file name. It is empty if the part has none, or if no file was chosen in a form."""
    parameters = _parameters(headers.get("content-disposition", ""))
    # RFC 5987 writes names with an encoding as filename*, RFC 2231 long ones in numbered pieces.
    names = (parameters.get(key, "") for key in ("filename", "filename*", "filename*0", "filename*0*"))
    return next((name for name in names if name), "")


#: How the files of pictures begin. BMP has but two letters, and 4 bytes of zeros after its size.
_PICTURES = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0\0\0\0", re.DOTALL)


def _is_picture(part: memoryview, headers: dict[str, str]) -> bool:
    """Whether a part without a file name is a picture all the same."""
    if not part:
        return False  # no file was chosen in a form
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind.startswith("image/") or kind == "application/octet-stream" or _PICTURES.match(part[:16]) is not None


def _parameters(header: str) -> dict[str, str]:
    """The parameters of a header, as in ``form-data; name="a"``, by their names in lower case."""
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(header):
        found.setdefault(name.lower(), quoted or plain.strip())
    return found


def _decoded(part: memoryview, encoding: str, pause: Callable[[], object]) -> bytes:
    """A part's content without its transfer encoding."""
    match encoding.lower():
        case "" | "binary" | "8bit" | "7bit":
            return bytes(part)
        case "base64":
            try:
                return base64_text.decode(part, pause)
            except base64_text.Base64Error as error:
                raise BadBodyError(f"a part's Content-Transfer-Encoding is base64, but it is not: {error}") from error
        case "quoted-printable":
            return binascii.a2b_qp(bytes(part))
    raise BadBodyError(f"a part's Content-Transfer-Encoding is {encoding[:40]!r}; send the picture's bytes without one")
