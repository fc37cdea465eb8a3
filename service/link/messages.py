"""The protocol between a front and a device owner: every message, in MessagePack.

    front                                   owner
                                            Welcome: what the front's memory must hold
    Hello, and the memory
    Ask: a picture arrived          ->
                                    <-      Kind: how pictures are cropped for a checkpoint, before its first use
                                    <-      Decode: this picture, for that kind
    Cropped: it lies in this slot   ->
                                    <-      Described: a checkpoint, before it answers for the first time
                                    <-      Answered or Failed
    Cancel: the caller has gone     ->
    Call: any other request         ->
                                    <-      Reply

A front that knows already how a named model's pictures are cropped decodes first, and sends the crop with ``Ask``: then
one message goes each way. Ids are the front's; the owner numbers kinds and checkpoints, anew for each connection.
Times are on ``time.monotonic()``, which all processes of a machine share.

Both sides run the same version of this program, except while it is being replaced: whoever meets another version closes
the connection. ``VERSION`` changes with every change of this file or of ``sockets.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from models.images import outline as outlines

VERSION = 2
#: The kind of a picture's file as it came, for an owner whose device decodes. It needs no ``Kind``; its ``Cropped`` has
#: the file in the slot. An owner asks for no file that is larger than a slot.
FILE = -1

#: What a front says goes into queues and forecasts, which not-a-number and infinity would spoil for all others.
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
Amount: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, le=1e15)]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
#: An owner keeps the names of callers for a while.
Caller: TypeAlias = Annotated[str, msgspec.Meta(max_length=100)]


class Outline(msgspec.Struct, array_like=True, frozen=True):
    """What the picture's header says of the work of decoding it: a ``models.images.outline.Outline``."""

    kind: outlines.Kind
    width: Size
    height: Size
    size: Size
    units: Amount
    held: Amount
    extra: Amount


class Ask(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """A picture to classify."""

    id: int
    query: bytes
    """``domain.query.Query`` as JSON."""
    arrived: Seconds
    """When the picture's last byte arrived."""
    size: Size
    """Encoded bytes."""
    traceparent: str | None = None
    crop: Cropped | None = None
    """The crop, if the front expects to know what is wanted."""
    caller: Caller = ""
    """Who asks."""
    outline: Outline | None = None
    """The picture's, if it is not decoded yet and its first bytes say something of it."""


class Cropped(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """A picture was decoded, and its crop is in the front's memory until it is answered."""

    id: int
    kind: int
    slot: int
    decode_s: Seconds


class Undecoded(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """A picture could not be decoded."""

    id: int
    kind: int
    failure: Failed


class Cancel(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """Nobody waits for the picture, or the call, any more."""

    id: int


class Call(msgspec.Struct, array_like=True, tag=5, frozen=True):
    """An HTTP request to any other path. Its body is not sent: none of these paths takes one."""

    id: int
    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None


class Kind(msgspec.Struct, array_like=True, tag=6, frozen=True):
    """How pictures are cropped."""

    number: int
    preprocess: dict[str, Any]
    """``Preprocess.to_json()``."""
    max_pixels: int


class Decode(msgspec.Struct, array_like=True, tag=7, frozen=True):
    """A picture is wanted in a kind."""

    id: int
    kind: int


class Described(msgspec.Struct, array_like=True, tag=8, frozen=True):
    """What answers say of a checkpoint or an ensemble: a ``domain.classified.Served``. A number that was used before is
    another's from now on."""

    number: int
    model: str
    name: str
    labels: str
    origin: str
    trained: bool
    top1: float | None
    members: list[Described] = []


class Times(msgspec.Struct, array_like=True, frozen=True):
    """The seconds of the phases of a picture."""

    decode_s: float
    queue_s: float
    forward_s: float
    batch_size: int


class MemberTimes(msgspec.Struct, array_like=True, frozen=True):
    """The same of a member of an ensemble, and how long it took in all."""

    times: Times
    total_s: float


class Why(msgspec.Struct, array_like=True, frozen=True):
    """Why a checkpoint answers: ``domain.decision.Routing``."""

    reason: str
    predicted_ms: float | None
    considered: list[dict[str, Any]]


class Answered(msgspec.Struct, array_like=True, tag=9, frozen=True):
    """A picture was classified."""

    id: int
    served: int
    """The number of the checkpoint."""
    indices: list[int]
    probabilities: list[float]
    times: Times
    why: Why | None = None
    members: list[MemberTimes] | None = None
    kind: int | None = None
    """How the next picture for the same query will be wanted, most likely; None if that is open."""


class Failed(msgspec.Struct, array_like=True, tag=10, frozen=True):
    """A picture could not be classified: ``domain.errors.Failure``."""

    id: int
    slug: str
    detail: str
    extras: dict[str, Any]
    model: str | None = None
    whole: bool = False
    """Whether the query is wrong, whatever the picture is, so that the request fails as a whole."""


class Reply(msgspec.Struct, array_like=True, tag=11, frozen=True):
    """The answer to a call."""

    id: int
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


FromFront: TypeAlias = Ask | Cropped | Undecoded | Cancel | Call
FromOwner: TypeAlias = Kind | Decode | Described | Answered | Failed | Reply
Message: TypeAlias = FromFront | FromOwner

encode = msgspec.msgpack.Encoder().encode
from_front = msgspec.msgpack.Decoder(FromFront).decode
from_owner = msgspec.msgpack.Decoder(FromOwner).decode
