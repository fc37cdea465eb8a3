"""What a request asks for: its query parameters, and the pictures in its body.

A body is multipart, JSON, or else the bytes of one picture, whatever its Content-Type says: curl's ``--data-binary``
sends a form's type with any bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from models.validation import first_error
from service.domain.errors import BadParameterError, Failure, NoPictureError
from service.http import json_body, multipart
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


class Body(NamedTuple):
    """The pictures of a request."""

    pictures: list[bytes | Failure]
    """The bytes of each; in a bulk request, a failure in the place of one that cannot be read."""
    bulk: bool
    """Whether the answer lists results, which it does for several files and for ``images``."""


async def read_body(upload: Upload, content_type: str) -> Body:
    """The pictures in a request's body.

    Raises:
        BadBodyError: the multipart, JSON or base64 is broken, or has too many pictures or other parts.
        NoPictureError: there is no picture in it.
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


def _multipart(upload: Upload, boundary: bytes, pause: Callable[[], None] = _no_break) -> Body:
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
