"""The three kinds of body: multipart, JSON, and everything else, which is the bytes of one picture.

curl's ``--data-binary`` sends a form's content type with a picture's bytes, so that only multipart and JSON are taken
at their word.
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

from service.domain.errors import BadParameterError, Failure, NoPictureError
from service.http import json_body, multipart
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

_threads = ThreadPoolExecutor(2, thread_name_prefix="body")


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


def _json(upload: Upload, pause: Callable[[], None] = _no_break) -> Body:
    return Body(*json_body.pictures(upload.content(), MAX_PICTURES, pause))
