"""The protocol between fronts and owners: what passes, what does not, and that its version changes with it."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.link import messages
from service.link.messages import (
    Answered,
    Ask,
    Call,
    Cancel,
    Cropped,
    Decode,
    Described,
    Failed,
    Kind,
    MemberTimes,
    Message,
    Reply,
    Times,
    Undecoded,
    Why,
    encode,
    from_front,
    from_owner,
)

#: Every message of version 2: its tag, and its fields in the order in which they are sent. A change of this table needs
#: another version, or an old front and a new owner misunderstand each other while they are replaced.
VERSION_2 = {
    "Ask": (1, "id query arrived size traceparent crop caller outline"),
    "Cropped": (2, "id kind slot decode_s"),
    "Undecoded": (3, "id kind failure"),
    "Cancel": (4, "id"),
    "Call": (5, "id method path query headers client"),
    "Kind": (6, "number preprocess max_pixels"),
    "Decode": (7, "id kind"),
    "Described": (8, "number model name labels origin trained top1 members"),
    "Answered": (9, "id served indices probabilities times why members kind"),
    "Failed": (10, "id slug detail extras model whole"),
    "Reply": (11, "id status headers body"),
}
FROM_FRONT = [
    Ask(1, b'{"k":3}', 12.5, 700, "00-1-2-01", Cropped(1, 0, 3, 0.001), "192.0.2.7"),
    Ask(2, b"{}", 0.0, 0),
    Ask(3, b"{}", 0.0, 9, None, None, "", messages.Outline("png alpha", 30, 20, 9, 600.0, 4.0, 0.0)),
    Cropped(3, 1, 2, 0.5),
    Undecoded(4, 0, Failed(4, "undecodable", "a text", {"known": ["a", 1]}, "lenet5")),
    Cancel(5),
    Call(6, "GET", "/models/ä", b"a=b", [(b"host", b"localhost"), (b"x", b"\xff")], ("127.0.0.1", 80)),
    Call(7, "HEAD", "/", b"", [], None),
]
_LENET = Described(1, "lenet5", "lenet5@mnist", "mnist", "a paper", True, 99.4)
_TIMES = Times(0.1, 0.2, 0.3, 4)
FROM_OWNER = [
    Kind(0, {"fit": "warp", "mean": [0.5]}, 80_000_000),
    Decode(2**63, 1),
    _LENET,
    Described(2, "ensemble:a,b", "ensemble:a@x,b@x", "x", "average", False, None, [_LENET, _LENET]),
    Answered(9, 1, [3, 1], [0.75, 0.25], _TIMES, Why("fits", 3.5, [{"model": "a"}]), [MemberTimes(_TIMES, 1.0)], 2),
    Answered(10, 1, [], [], _TIMES),
    Failed(11, "overloaded", "later", {"retry_after_ms": 1.5}, None, True),
    Reply(12, 200, [(b"content-type", b"text/plain")], b"\x00\xff"),
]
READERS: list[tuple[Callable[[bytes], Message], list[Any], list[Any]]] = [
    (from_front, FROM_FRONT, FROM_OWNER),
    (from_owner, FROM_OWNER, FROM_FRONT),
]


def test_every_message_is_as_its_version_says() -> None:
    kinds = (*typing.get_args(messages.FromFront), *typing.get_args(messages.FromOwner))
    found = {kind.__name__: (kind.__struct_config__.tag, " ".join(kind.__struct_fields__)) for kind in kinds}
    assert messages.VERSION == 2
    assert found == VERSION_2


def test_the_table_has_an_example_of_each_message() -> None:
    assert {type(example).__name__ for example in FROM_FRONT + FROM_OWNER} == set(VERSION_2)


@pytest.mark.parametrize("side", [0, 1], ids=["from a front", "from an owner"])
def test_what_is_sent_is_what_is_read(side: int) -> None:
    read, own, others = READERS[side]
    for example in own:
        assert read(encode(example)) == example
    for example in others:
        with pytest.raises(msgspec.ValidationError):
            read(encode(example))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.001, 1e10, "1", None])
@pytest.mark.parametrize("message", [(1, 1, b"{}", None, 700), (2, 1, 0, 0, None)], ids=["arrived", "decode_s"])
def test_times_that_would_spoil_queues_and_forecasts_are_refused(message: tuple[Any, ...], value: Any) -> None:
    fields = [value if field is None else field for field in message]
    with pytest.raises(msgspec.ValidationError):
        from_front(msgspec.msgpack.encode(fields))
    assert from_front(msgspec.msgpack.encode([1.5 if field is None else field for field in message]))


@pytest.mark.parametrize("size", [-1, 2**40 + 1, 2**64 - 1, 1.5])
def test_sizes_that_no_picture_has_are_refused(size: float) -> None:
    with pytest.raises(msgspec.ValidationError):
        from_front(msgspec.msgpack.encode([1, 1, b"{}", 0.0, size]))


@pytest.mark.parametrize("caller", ["x" * 101, 5, None, b"192.0.2.7"])
def test_callers_whose_names_are_long_or_no_text_are_refused(caller: Any) -> None:
    fields = [1, 1, b"{}", 0.0, 700, None, None]
    with pytest.raises(msgspec.ValidationError):
        from_front(msgspec.msgpack.encode([*fields, caller]))
    assert from_front(msgspec.msgpack.encode([*fields, "x" * 100]))


@given(st.binary(max_size=200))
def test_random_bytes_are_a_message_or_refused(data: bytes) -> None:
    for read, _, _ in READERS:
        try:
            found = read(data)
        except msgspec.DecodeError:
            continue
        assert type(found).__name__ in VERSION_2


@given(st.sampled_from(FROM_FRONT + FROM_OWNER), st.data())
def test_a_message_that_is_cut_short_is_refused(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for read, _, _ in READERS:
        with pytest.raises(msgspec.DecodeError):
            read(cut)


def test_deeply_nested_messages_are_refused_as_any_other_nonsense_is() -> None:
    # [8, 1, "", "", "", "", true, nil, [...]]: a checkpoint that is a member of a member of a member.
    head = bytes([0x99, 8, 1, 0xA0, 0xA0, 0xA0, 0xA0, 0xC3, 0xC0, 0x91])
    with pytest.raises((RecursionError, msgspec.DecodeError)):
        from_owner(head * 100_000)
