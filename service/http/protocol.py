"""uvicorn's protocol for one connection, with bounds on what a stranger may do to it.

uvicorn alone waits for ever for a request's headers, keeps as many of them as come, answers what is not HTTP in plain
text, loses the body of a request that offers another protocol (Java's ``HttpClient`` offers HTTP/2), and cuts off a
client that still sends when it is refused. Behind HAProxy most of this cannot happen; without Ray, fronts face
strangers.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.domain.errors import BAD_REQUEST, HEADERS_TOO_LARGE, OVERLOADED, SLOW_REQUEST, Failure
from service.http.reply import reply_to

#: How long a request's headers may take. HAProxy has the same (``lifecycle/haproxy.py``).
HEADERS_S = 10.0
#: Most bytes and lines of a request's headers. HAProxy lets a little more through (``lifecycle/haproxy.py``), so that
#: this is what holds behind it too.
MOST_HEADER_BYTES = 32 * 1024
MOST_HEADERS = 128
#: A client that is refused while it sends is read on for so long and so far: one that is cut off does not see the
#: answer. Pauses end it sooner.
_LINGER_S, _LINGER_BYTES, _PAUSE_S = 60.0, 160_000_000, 5.0
#: How long a client may leave an answer unread.
_UNREAD_S = 60.0
_CHECK_EVERY_S = 0.5
#: How many connections without a request are closed at once where there are too many.
_CLOSED_AT_ONCE = 16
#: Headers that offer another protocol, which is not taken.
_OFFERS = (b"connection", b"upgrade", b"http2-settings")


class Connections:
    """The connections of one server: how many there may be, and which of them wait for their client.

    One timer watches those that wait. A timer for each would cost every request several microseconds.

    Args:
        most: connections at once. Where another one comes, those that wait for a request are closed for it.
        clock: seconds, monotonic.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.clock = clock
        self.heads: dict[Bounded, float] = {}
        """Those whose request's headers have not arrived, oldest first, and until when they may wait."""
        self.slow: dict[Bounded, float] = {}
        """Those that read on after a refusal, or whose answer is not read."""
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, waiting: dict[Bounded, float], connection: Bounded, for_s: float) -> None:
        """Begins to watch a connection; ``waiting`` is ``heads`` or ``slow``."""
        waiting[connection] = self.clock() + for_s
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_CHECK_EVERY_S, self.check)

    def forget(self, connection: Bounded) -> None:
        """Stops to watch a connection."""
        self.heads.pop(connection, None)
        self.slow.pop(connection, None)

    def check(self) -> None:
        """Ends the connections that have waited for too long."""
        now = self.clock()
        for waiting in (self.heads, self.slow):
            for connection in [found for found, due in waiting.items() if due < now]:
                del waiting[connection]
                connection.overdue()
        self._timer = None
        if self.heads or self.slow:
            self._timer = asyncio.get_running_loop().call_later(_CHECK_EVERY_S, self.check)

    def make_room(self, newest: Bounded) -> bool:
        """Closes connections that have no request, if there are too many. Returns whether the newest one may stay."""
        if len(newest.connections) <= self.most:
            return True
        found = [other for other in self.heads if other is not newest][:_CLOSED_AT_ONCE]
        found += list(self.slow)[: _CLOSED_AT_ONCE - len(found)]
        if not found:
            found = [other for other in newest.connections if isinstance(other, Bounded) and other.idle]
        for other in found[:_CLOSED_AT_ONCE]:
            self.forget(other)
            other.abort()
        return bool(found)


class _Gentle:
    """A transport as uvicorn's cycle of request and answer sees it: closing it does not cut the client off."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write: Callable[[Any], None] = transport.write
        self.is_closing = transport.is_closing
        self.close = close

    def over(self) -> None:
        """Ignores what is written from now on: uvicorn does not tell a request that another one follows (pipelining)
        that its client has gone, and uvloop raises where a closed transport is written to."""
        self.write = _ignore


def _ignore(_data: Any) -> None:
    pass


class Bounded(HttpToolsProtocol):
    """One connection. Every bound that it breaks is answered with a problem document."""

    def __init__(
        self,
        all_of_them: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = all_of_them
        self._header_bytes = 0
        self._offers = False
        """Whether the request offers another protocol, so that the parser ends behind its headers."""
        self._received = 0
        """Bytes of the piece that is being parsed."""
        self._too_large = False
        self._refused = False
        """Whether nothing that comes is read any more."""
        self._left = _LINGER_BYTES
        self._linger_until = math.inf

    @property
    def _in_headers(self) -> bool:
        """Whether a part of a request's headers has come. uvicorn makes the scope at their begin, the cycle at their
        end."""
        return self.scope is not None and (self.cycle is None or self.cycle.scope is not self.scope)

    @property
    def idle(self) -> bool:
        """Whether the client has been answered and sends nothing."""
        return self.cycle is not None and self.cycle.response_complete and not self.pipeline

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._gentle: Any = _Gentle(transport, self._close)
        if self._all.make_room(self):
            self._all.watch(self._all.heads, self, HEADERS_S)
        else:
            self._refuse(Failure(OVERLOADED, "too many connections", {"retry_after_ms": 1000.0}))

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.forget(self)
        self._gentle.over()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._discard(len(data))
            return
        self._unset_keepalive_if_required()
        self._received = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._without_offer(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._broken()
        cycle = self.cycle
        if (cycle is None or cycle.scope is not self.scope) and not self._refused:
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                self._too_large = True
                self._broken()
            elif self not in self._all.heads:
                self._all.watch(self._all.heads, self, HEADERS_S)

    def on_header(self, name: bytes, value: bytes) -> None:
        # As uvicorn's, which would take any number.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        if len(self.headers) > MOST_HEADERS:
            self._too_large = True
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        if self._received > MOST_HEADER_BYTES:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > MOST_HEADER_BYTES:
                self._too_large = True
                raise ValueError("too large headers")
        if self.parser.should_upgrade():
            self._offers = True
            return  # the parser ends here, and ``_without_offer`` goes on
        if self._header_bytes or self.cycle is None:
            self._header_bytes = 0
            self._all.heads.pop(self, None)
        super().on_headers_complete()
        # Its task has not run yet.
        self.cycle.transport = self._gentle

    def on_body(self, body: bytes) -> None:
        # As uvicorn's, which knows of WebSockets. A chunk of a body may have a single byte.
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        # As uvicorn's, which knows of WebSockets.
        cycle = self.cycle
        if not self._offers and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        if self._refused:
            self.flow.resume_reading()
            self.pipeline.clear()
        elif self.cycle.more_body and self.cycle.response_complete:
            # The application did not want the body, and did not say so.
            self._linger()
        else:
            super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._all.watch(self._all.slow, self, _UNREAD_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._refused:
            self._all.slow.pop(self, None)

    def overdue(self) -> None:
        """Ends the connection: its client has not done in time what it was to do."""
        if self._in_headers and not self._refused:
            self._refuse(Failure(SLOW_REQUEST.slug, f"the request's headers had not arrived after {HEADERS_S:g} s"))
        else:
            # What is left is an empty connection, the rest of a refused body, or an answer that nobody reads.
            self.abort()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._gentle.over()
        self.transport.abort()

    def _without_offer(self, rest: bytes) -> None:
        """Reads a request that offers another protocol as if it did not: RFC 9110 lets servers ignore the offer."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._broken()
            return
        kept = [(name, value) for name, value in self.headers if name not in _OFFERS]
        said = b",".join(value for name, value in self.headers if name == b"connection").split(b",")
        options = [option for option in said if option.strip().lower() not in _OFFERS]
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % pair for pair in (*kept, (b"connection", b",".join(options))) if pair[1]]
        self.parser = httptools.HttpRequestParser(self)
        self._offers = False
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _broken(self) -> None:
        """Answers a request that is not valid, or closes the connection after the answer to the one before it."""
        cycle = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if self._too_large:
            lines = f"{MOST_HEADER_BYTES // 1024} KB or {MOST_HEADERS} lines"
            failure = Failure(HEADERS_TOO_LARGE.slug, f"the request line and headers have more than {lines}")
        else:
            failure = Failure(BAD_REQUEST.slug, "this is not HTTP/1.1, or its framing is broken")
        if not answering:
            self._refuse(failure)
        elif self.pipeline or not cycle.more_body:
            # A request before this one has not been answered.
            self._refused = True
            cycle.keep_alive = False
            self.pipeline.clear()
        elif cycle.response_started:
            self._refused = True
            self.transport.close()
        else:
            # It is this request's body that is broken.
            cycle.disconnected = True
            cycle.message_event.set()
            self._refuse(failure)

    def _refuse(self, failure: Failure) -> None:
        """Answers without an application, and closes the connection."""
        reply = reply_to(failure, {"connection": "close"})
        status = HTTPStatus(reply.status)
        head = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        head += [b"%s: %s" % pair for pair in (*self.server_state.default_headers, *reply.headers)]
        self.transport.write(b"\r\n".join([*head, b"", reply.body]))
        self._linger()

    def _close(self) -> None:
        """Closes the connection after an answer."""
        if self.cycle.more_body and not self.transport.is_closing():
            self._linger()
        else:
            self._gentle.over()
            self.transport.close()

    def _linger(self) -> None:
        """Ends this side of the connection, and reads on for a while."""
        self._refused = True
        self._all.forget(self)
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._linger_until = self._all.clock() + _LINGER_S
        self._all.watch(self._all.slow, self, _PAUSE_S)

    def _discard(self, size: int) -> None:
        self._left -= size
        now = self._all.clock()
        if self._left < 0 or now > self._linger_until:
            self.abort()
        elif self in self._all.slow:
            self._all.slow[self] = now + _PAUSE_S
