"""The three kinds of body: multipart, JSON, and everything else, which is the bytes of one picture.

curl's ``--data-binary`` sends a form's content type with a picture's bytes, so that only multipart and JSON are taken
at their word.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator
from typing import NamedTuple

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BadBodyError, BodyTooLargeError, Failure, NoPictureError, failure_of
from service.schemas import Pictures

#: Pictures in one request at most.
MAX_PICTURES = 64
#: A body that is too large is still read to its end, up to this many times the limit, before it is refused: a client
#: that is cut off while it sends often never sees the answer.
_READ_ON = 8
_SLICE = 64 * 1024

_DATA_URL = re.compile(r"data:[^,]*?;base64,", re.IGNORECASE)


class Body(NamedTuple):
    """The pictures of a request; an entry of a bulk request that cannot be read is the failure to answer with."""

    pictures: list[bytes | Failure]
    bulk: bool


async def read_body(request: Request, max_bytes: int) -> Body:
    """Reads the pictures of a request.

    Raises:
        BodyTooLargeError, BadBodyError, NoPictureError: as their names say.
    """
    content = await _read_bytes(request, max_bytes)
    kind, _, _ = request.headers.get("content-type", "").partition(";")
    match kind.strip().lower():
        case "multipart/form-data":
            return await _multipart(request, content)
        case "application/json":
            # Decoding megabytes of base64 takes milliseconds that the event loop does not have.
            return _json(content) if len(content) < _SLICE else await asyncio.to_thread(_json, content)
    if not content:
        raise NoPictureError("the body is empty")
    return Body([content], bulk=False)


async def _read_bytes(request: Request, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
        else:
            chunks.clear()
            if size > _READ_ON * max_bytes:
                break
    if size > max_bytes:
        raise BodyTooLargeError(f"the body has more than {max_bytes / 1e6:g} MB")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _multipart(request: Request, content: bytes) -> Body:
    async def stream() -> AsyncGenerator[bytes, None]:
        # The parser runs on the event loop and some bodies keep it busy for seconds; others get their turn between.
        for start in range(0, len(content), _SLICE):
            yield content[start : start + _SLICE]
            await asyncio.sleep(0)

    try:
        parser = MultiPartParser(request.headers, stream(), max_files=MAX_PICTURES, max_part_size=len(content))
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        # KeyError and ValueError: no boundary, or a broken one.
        text = error.message if isinstance(error, MultiPartException) else "the boundary is missing or broken"
        raise BadBodyError(f"broken multipart body: {text}") from error
    try:
        files = [await part.read() for _, part in form.multi_items() if isinstance(part, UploadFile) and part.filename]
    finally:
        await form.close()
    if not files:
        raise NoPictureError("the multipart body has no part with a file name: curl sends one for -F image=@FILE")
    if len(files) == 1 and not files[0]:
        raise NoPictureError("the file in the multipart body is empty")
    return Body(list(files), bulk=len(files) > 1)


def _json(content: bytes) -> Body:
    try:
        body = Pictures.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise BadBodyError(f"broken JSON body: {where}: {first['msg']}") from error
    if (body.image is None) == (body.images is None):
        raise BadBodyError('the JSON body needs either "image" or "images"')
    if body.image is not None:
        return Body([_from_base64(body.image)], bulk=False)
    texts = body.images or []
    if not 1 <= len(texts) <= MAX_PICTURES:
        raise BadBodyError(f'"images" has {len(texts)} entries; 1 to {MAX_PICTURES} are allowed')
    return Body([_entry(text) for text in texts], bulk=True)


def _entry(text: str) -> bytes | Failure:
    try:
        return _from_base64(text)
    except (BadBodyError, NoPictureError) as error:
        return failure_of(error)


def _from_base64(text: str) -> bytes:
    if text[:5].lower() == "data:":
        head = _DATA_URL.match(text[:256])
        if head is None:
            raise BadBodyError("the data: URL is not base64 (data:image/png;base64,...)")
        text = text[head.end() :]
    try:
        # Line breaks are common in base64 and mean nothing.
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadBodyError(f"bad base64: {error}") from error
    if not content:
        raise NoPictureError("the picture is empty")
    return content
