"""Replies: their headers, and the same reply over ASGI and as a response of Starlette."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.reply import Reply

REPLY = Reply.of(429, "application/problem+json", "näher".encode(), {"Retry-After": "2", "X-Who": "näher"})


def test_a_reply_begins_with_its_length_in_bytes_and_its_type() -> None:
    assert REPLY.status == 429
    assert REPLY.body == b"n\xc3\xa4her"
    assert REPLY.headers == [
        (b"content-length", b"6"),
        (b"content-type", b"application/problem+json"),
        # ASGI wants names in lower case, and HTTP wants Latin-1.
        (b"retry-after", b"2"),
        (b"x-who", b"n\xe4her"),
    ]


def test_further_headers_may_be_missing() -> None:
    assert Reply.of(200, "text/plain", b"").headers == [(b"content-length", b"0"), (b"content-type", b"text/plain")]


@pytest.mark.parametrize("name", ["retry-after", "Retry-After", "RETRY-AFTER"])
def test_a_header_is_found_by_its_name_in_any_case(name: str) -> None:
    assert REPLY.header(name) == "2"
    assert REPLY.header("x-who") == "näher"


def test_the_first_header_of_a_name_counts_and_a_missing_one_is_none() -> None:
    reply = Reply(200, [(b"x-first", b"0"), (b"x-twice", b"1"), (b"x-twice", b"2")], b"")
    assert (reply.header("x-twice"), reply.header("x-third")) == ("1", None)


async def sent(app: ASGIApp) -> list[dict[str, Any]]:
    """What an application sends."""
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError

    await app({"type": "http", "method": "POST", "headers": []}, receive, send)
    return messages


async def over_asgi(_scope: Scope, _receive: Receive, send: Send) -> None:
    await REPLY.send(send)


async def test_it_is_sent_in_two_messages_and_starlettes_response_sends_the_same() -> None:
    start = {"type": "http.response.start", "status": 429, "headers": REPLY.headers}
    assert await sent(over_asgi) == [start, {"type": "http.response.body", "body": REPLY.body}]
    assert await sent(REPLY.response()) == await sent(over_asgi)


@pytest.mark.parametrize("app", [over_asgi, REPLY.response()], ids=["asgi", "starlette"])
async def test_a_client_reads_what_was_replied(app: ASGIApp) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        answer = await client.post("/")
    assert (answer.status_code, answer.content) == (429, REPLY.body)
    assert (answer.headers["retry-after"], answer.headers["content-length"]) == ("2", "6")
    assert answer.headers["content-type"] == "application/problem+json"
