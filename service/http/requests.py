"""What a request asks for: its query parameters, and the pictures in its body.

A body is multipart or JSON, if its Content-Type says so. Else it is the bytes of one picture, whatever the type says:
curl's ``--data-binary`` sends a form's type with any bytes. Only what begins as JSON does is JSON under any type:
browsers send it as ``text/plain`` and curl as a form, unless they are told otherwise.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from models.validation import first_error
from service.domain.errors import BadParameterError, Failure, NoPictureError
from service.http import encodings, json_body, multipart
from service.http.body_memory import Room
from service.http.uploads import Upload

T = TypeVar("T")
Parameters = TypeVar("Parameters", bound=BaseModel)

#: Most pictures in one request.
MAX_PICTURES = 64
#: Bodies of at least this many bytes, or with more parts, are parsed in a thread. On the event loop they would delay
#: every other request by more than a third of a millisecond.
_LARGE = 64 * 1024
#: A picture of at least this many bytes, if it came in several chunks, is joined in a thread.
_LARGE_PICTURE = 256 * 1024
_MANY_PARTS = 16

_threads = ThreadPoolExecutor(2, thread_name_prefix="body")


@lru_cache(maxsize=1024)
def read_query(kind: type[Parameters], raw: bytes) -> Parameters:
    """The checked parameters in a query string. They are cached: clients send the same few again and again.

    Args:
        kind: the model of the parameters that the path takes.
        raw: the query string, percent-encoded.

    Raises:
        BadParameterError: a parameter is unknown or given twice, or its value is not allowed.
    """
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    names = [name for name, _ in pairs]
    for name in names:
        if name not in kind.model_fields:
            known = ", ".join(kind.model_fields) or "none"
            raise BadParameterError(f"unknown parameter {name!r}; known: {known}")
        if names.count(name) > 1:
            raise BadParameterError(f"{name} is given {names.count(name)} times; give it once")
    try:
        return kind.model_validate(dict(pairs))
    except ValidationError as error:
        first = first_error(error)
        raise BadParameterError(f"{first.field}={first.given}: {first.reason}") from error


class Head(NamedTuple):
    """What a request's headers say of its body."""

    content_type: str
    kind: Literal["multipart", "json", "other"]
    coding: str | None
    """The content coding to undo: ``gzip``, ``deflate`` or None."""
    copies: int
    """How many times its size a body takes while it is parsed: its pieces, all of them joined, and its pictures."""


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Head, int | None]:
    """What the headers say of the body, and its length if they do.

    Raises:
        UnsupportedEncodingError: they name a content coding that is not undone.
    """
    found = dict(headers)
    length = found.get(b"content-length")
    head = head_of(found.get(b"content-type", b""), found.get(b"content-encoding", b""))
    return head, int(length) if length is not None and length.isdigit() else None


@lru_cache(maxsize=128)
def head_of(content_type: bytes, coding: bytes = b"") -> Head:
    """What these headers say. It is cached: clients send the same few again and again.

    Raises:
        UnsupportedEncodingError: the content coding is not undone.
    """
    text, undone = content_type.decode("latin-1"), encodings.coding_of(coding.decode("latin-1"))
    media_type = text.partition(";")[0].strip().lower()
    # multipart/mixed and multipart/related too, in which some interfaces take a picture beside JSON.
    multipart_ = media_type.startswith("multipart/")
    kind: Literal["multipart", "json", "other"]
    kind = "multipart" if multipart_ else "json" if _is_json(media_type) else "other"
    return Head(text, kind, undone, 3 if undone or kind != "other" else 2)


def announces_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request's headers say that a body follows."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0") != b"")
        for name, value in headers
    )


class Body(NamedTuple):
    """The pictures of a request."""

    pictures: list[bytes | Failure]
    """The bytes of each; in a bulk request, a failure in the place of one that cannot be read."""
    bulk: bool
    """Whether the answer lists results, which it does for several files and for ``images``."""


async def read_body(upload: Upload, head: Head, room: Room, max_bytes: int) -> Body:
    """The pictures in a request's body. The upload is empty afterwards.

    Args:
        upload: the body.
        head: what the headers say of it.
        room: the memory that it takes. Afterwards it is as large as the pictures are.
        max_bytes: of the body without its content coding.

    Raises:
        BadBodyError: the multipart, JSON, base64 or content coding is broken, or it has too many pictures or other
            parts.
        BodyTooLargeError: it is too large without its content coding.
        NoPictureError: there is no picture in it.
        OverloadedError: the memory for bodies has no room to parse it.
    """
    if head.coding is not None:
        upload = await _without_coding(upload, head.coding, room, max_bytes)
    parse: Callable[..., Body]
    if head.kind == "multipart":
        boundary = multipart.boundary_of(head.content_type)
        in_thread = upload.size >= _LARGE or upload.content().count(b"--" + boundary) > _MANY_PARTS
        parse = partial(_multipart, boundary=boundary)
    elif head.kind == "json" or _begins_as_json(upload):
        in_thread, parse = upload.size >= _LARGE, _json
    else:
        return await _raw(upload, room)
    if not in_thread:
        return parse(upload)
    room.resize(3 * upload.size)
    body = await _in_thread(parse, upload, _Breaks())
    upload.chunks.clear()
    room.resize(sum(len(picture) for picture in body.pictures if isinstance(picture, bytes)))
    return body


async def _raw(upload: Upload, room: Room) -> Body:
    if not upload.size:
        raise NoPictureError("the body is empty")
    if len(upload.chunks) == 1 or upload.size < _LARGE_PICTURE:
        return Body([upload.content()], bulk=False)
    room.resize(2 * upload.size)
    content = await _in_thread(upload.content)
    room.resize(upload.size)
    return Body([content], bulk=False)


async def _without_coding(upload: Upload, coding: str, room: Room, max_bytes: int) -> Upload:
    """The upload without its content coding. Its room grows with it, so that no body takes more than there is."""
    loop, before, reserved = asyncio.get_running_loop(), upload.size, _LARGE
    if not before:
        return upload

    def taken(size: int) -> None:
        # The rooms belong to the event loop. Twice: the pieces are joined.
        room.resize(before + 2 * size)

    def grown(size: int) -> None:
        nonlocal reserved
        if size > reserved:
            reserved = min(max_bytes, 2 * size)
            asyncio.run_coroutine_threadsafe(_called(taken, reserved), loop).result()

    taken(reserved)
    content = await _in_thread(encodings.decoded, upload.chunks, coding, max_bytes, grown, _Breaks())
    upload.chunks.clear()
    room.resize(len(content))
    return Upload([content], len(content), upload.ended)


async def _called(function: Callable[[int], None], size: int) -> None:
    function(size)


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, work, *arguments)


#: How JSON may begin: with a brace, white space, or a byte order mark.
_BEFORE_JSON = frozenset((b"{", b" ", b"\t", b"\r", b"\n", codecs.BOM_UTF8[:1]))


def _begins_as_json(upload: Upload) -> bool:
    """Whether a body can only be JSON: no picture begins with a brace."""
    first = upload.chunks[0] if upload.chunks else b""
    if first[:1] not in _BEFORE_JSON:
        return False
    return first[:64].removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")


def _is_json(kind: str) -> bool:
    return kind in ("application/json", "text/json") or (kind.startswith("application/") and kind.endswith("+json"))


class _Breaks:
    """A ``pause`` that lets other threads run. Without it, the event loop would get the interpreter's lock once in five
    milliseconds only."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self) -> None:
        if time.perf_counter() - self._last > 0.0003:
            # After time.sleep(0) this thread would have the lock again before another one is awake.
            time.sleep(0.0001)
            self._last = time.perf_counter()


def _no_break() -> None:
    pass


def _multipart(upload: Upload, pause: Callable[[], None] = _no_break, *, boundary: bytes) -> Body:
    if not upload.size:
        raise NoPictureError("the body is empty")
    files = multipart.files(upload.content(), boundary, MAX_PICTURES, pause)
    if not files:
        raise NoPictureError("the multipart body has no part with a file name: curl sends one for -F image=@FILE")
    if len(files) == 1 and not files[0]:
        raise NoPictureError("the file in the multipart body is empty")
    return Body(list(files), bulk=len(files) > 1)


def _json(upload: Upload, pause: Callable[[], None] = _no_break) -> Body:
    return Body(*json_body.pictures(upload.content(), MAX_PICTURES, pause))
