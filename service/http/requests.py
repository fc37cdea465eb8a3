"""The three kinds of body: multipart, JSON, and everything else, which is the bytes of one picture.

curl's ``--data-binary`` sends a form's content type with a picture's bytes, so that only multipart and JSON are taken
at their word.
"""

from __future__ import annotations

import asyncio
import codecs
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from pydantic import BaseModel, ValidationError

from service.domain.errors import BadBodyError, BadParameterError, Failure, NoPictureError, failure_of
from service.http import base64_text, multipart
from service.http.uploads import Upload

T = TypeVar("T")
Parameters = TypeVar("Parameters", bound=BaseModel)

#: Pictures in one request at most.
MAX_PICTURES = 64
#: What is larger, or has more parts, is read in a thread: on the event loop it would take more than a third of a
#: millisecond from everybody.
_LARGE = 64 * 1024
_LARGE_PICTURE = 256 * 1024
_MANY_PARTS = 16
#: Commas in a JSON body at most. 64 pictures have two each, as ``data:`` URLs; thousands are junk, which takes many
#: times its size in memory once it is read.
_MAX_COMMAS = 1_000
#: Characters of an error's text that an answer repeats.
_MAX_TEXT = 200
_WINDOW = 1024 * 1024
#: Of a data: URL, before its base64.
_MAX_HEAD = 256

_threads = ThreadPoolExecutor(2, thread_name_prefix="body")
_DATA_URL = re.compile(rb"data:[^,]*?;base64,", re.IGNORECASE)


@lru_cache(maxsize=1024)
def read_query(kind: type[Parameters], raw: bytes) -> Parameters:
    """The query string, checked. The same few come again and again.

    Raises:
        BadParameterError: unknown, repeated, or with a value that is not allowed.
    """
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    names = [name for name, _ in pairs]
    for name in names:
        if name not in kind.model_fields:
            known = ", ".join(kind.model_fields) or "none"
            raise BadParameterError(f"unknown parameter {name!r}; known: {known}")
        if names.count(name) > 1:
            raise BadParameterError(f"{name} is given {names.count(name)} times")
    try:
        return kind.model_validate(dict(pairs))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise BadParameterError(f"{first['loc'][0]}={first['input']}: {message}") from error


class Body(NamedTuple):
    """The pictures of a request; an entry of a bulk request that cannot be read is the failure to answer with."""

    pictures: list[bytes | Failure]
    bulk: bool


async def read_body(upload: Upload, content_type: str) -> Body:
    """The pictures in a request's body.

    Raises:
        BadBodyError, NoPictureError: as their names say.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        boundary = multipart.boundary_of(content_type)
        if upload.size < _LARGE and upload.content().count(b"--" + boundary) <= _MANY_PARTS:
            return _multipart(upload, boundary)
        return await _in_thread(_multipart, upload, boundary, _Breaks())
    if kind.endswith("json") and _is_json(kind):
        return _json(upload) if upload.size < _LARGE else await _in_thread(_json, upload, _Breaks())
    if not upload.size:
        raise NoPictureError("the body is empty")
    if len(upload.chunks) == 1 or upload.size < _LARGE_PICTURE:
        return Body([upload.content()], bulk=False)
    return Body([await _in_thread(upload.content)], bulk=False)


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, work, *arguments)


def _is_json(kind: str) -> bool:
    return kind in ("application/json", "text/json") or (kind.startswith("application/") and kind.endswith("+json"))


class _Breaks:
    """Lets other threads run now and then. Without it the event loop gets the interpreter's lock once in five
    milliseconds."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self) -> None:
        if time.perf_counter() - self._last > 0.0003:
            # Whoever waits for the lock takes longer to wake up than a sleep of no length is.
            time.sleep(0.0001)
            self._last = time.perf_counter()


def _no_break() -> None:
    pass


def _multipart(upload: Upload, boundary: bytes, pause: Callable[[], None] = _no_break) -> Body:
    if not upload.size:
        raise NoPictureError("the body is empty")
    files = multipart.files(upload.content(), boundary, MAX_PICTURES, pause)
    if not files:
        raise NoPictureError("the multipart body has no part with a file name: curl sends one for -F image=@FILE")
    if len(files) == 1 and not files[0]:
        raise NoPictureError("the file in the multipart body is empty")
    return Body(list(files), bulk=len(files) > 1)


class _Pictures(msgspec.Struct, forbid_unknown_fields=True):
    """A JSON body. Its strings stay where they are, in the bytes of the body."""

    image: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    images: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Pictures)


def _json(upload: Upload, pause: Callable[[], None] = _no_break) -> Body:
    content = upload.content()
    body = _parsed(content, pause)
    image = None if body.image is msgspec.UNSET or bytes(body.image) == b"null" else body.image
    images = None if body.images is msgspec.UNSET else body.images
    if (image is None) == (images is None):
        raise BadBodyError('the JSON body needs either "image" or "images"')
    escaped = b"\\" in content
    if image is not None:
        return Body([_from_base64(_text(image, "image", escaped), pause)], bulk=False)
    assert images is not None
    if not 1 <= len(images) <= MAX_PICTURES:
        raise BadBodyError(f'"images" has {len(images)} entries; 1 to {MAX_PICTURES} are allowed')
    texts = [_text(raw, f"images[{index}]", escaped) for index, raw in enumerate(images)]
    return Body([_entry(text, pause) for text in texts], bulk=True)


def _parsed(content: bytes, pause: Callable[[], None]) -> _Pictures:
    if b"\0" in content[:4]:
        raise BadBodyError("broken JSON body: it is in UTF-16 or UTF-32, and JSON is sent in UTF-8")
    commas = 0
    for start in range(0, len(content), _WINDOW):
        commas += content.count(b",", start, start + _WINDOW)
        if commas > _MAX_COMMAS:
            raise BadBodyError(
                f'broken JSON body: more than {_MAX_COMMAS:,} members; it takes "image", a string, or "images", an '
                f"array of 1 to {MAX_PICTURES} strings"
            )
        pause()
    # RFC 8259 lets a reader ignore a byte order mark, which PowerShell and .NET write.
    text = memoryview(content)[3:] if content.startswith(codecs.BOM_UTF8) else content
    try:
        return _decoder.decode(text)
    except RecursionError as error:
        raise BadBodyError("broken JSON body: it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadBodyError(f"broken JSON body: {_shortened(str(error))}") from error


def _text(raw: msgspec.Raw, where: str, escaped: bool) -> bytes | memoryview:
    """A string's characters; most of the time the body's own bytes.

    Args:
        raw: as it stands in the body.
        where: in the body.
        escaped: whether there may be escapes in it.
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


def _entry(text: bytes | memoryview, pause: Callable[[], None]) -> bytes | Failure:
    try:
        return _from_base64(text, pause)
    except (BadBodyError, NoPictureError) as error:
        return failure_of(error)


def _from_base64(text: bytes | memoryview, pause: Callable[[], None]) -> bytes:
    head = bytes(text[:_MAX_HEAD])
    if head[:5].lower() == b"data:":
        url = _DATA_URL.match(head)
        if url is None:
            raise BadBodyError("the data: URL is not base64 (data:image/png;base64,...)")
        text = text[url.end() :]
    try:
        content = base64_text.decode(text, pause)
    except base64_text.Base64Error as error:
        raise BadBodyError(f"bad base64: {error}") from error
    if not content:
        raise NoPictureError("the picture is empty")
    return content
