"""Who calls, and who may load and unload networks: callers on the service's own machine, but no web pages of other
sites."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import Scope

from service.access.keys import Key
from service.domain.errors import BadBodyError, ForbiddenError
from service.http.requests import announces_body

#: Where the key that let a request in is noted in its scope (``access.py``).
KEY = "topfive.key"
#: Headers in which proxies name the caller in forms that are not parsed here. Any of them means another caller.
_OTHER_PROXIES = ("forwarded", "x-real-ip", "via")
#: Longer ends of ``X-Forwarded-For`` are cut, which keeps the cache small whatever is sent. An IPv6 address with
#: brackets, zone and port is shorter.
_LONGEST_ADDRESS = 80


def caller_of(scope: Scope) -> str:
    """Who sent a request: a short text that differs between callers.

    It is the name of the caller's key, if the service has keys. Otherwise it is the caller's IP address; of IPv6 the
    network of 64 bits, since one customer has all of them. A peer on this machine may be a proxy, as HAProxy is: then
    the last element of ``X-Forwarded-For`` counts, which the proxy itself adds. What strangers write into that header
    stands before the proxy's element, or is not read at all.
    """
    key: Key | None = scope.get(KEY)
    if key is not None:
        return key.caller
    client = scope.get("client")
    peer = "" if client is None else client[0]
    if _is_here(peer):
        for name, value in reversed(scope["headers"]):
            if name == b"x-forwarded-for":
                return _caller(peer, value[-_LONGEST_ADDRESS:])
    return _caller(peer, b"")


@lru_cache(maxsize=4096)
def _is_here(peer: str) -> bool:
    """Whether a peer is on this machine. Peers on a Unix socket have no address."""
    return peer == "" or is_loopback(peer)


@lru_cache(maxsize=4096)
def _caller(peer: str, forwarded: bytes) -> str:
    """The caller.

    Args:
        peer: the peer's address; empty on a Unix socket.
        forwarded: the end of ``X-Forwarded-For`` as a peer on this machine sent it; else empty.
    """
    last = forwarded.rpartition(b",")[2].decode("latin-1").strip()
    return _identity(last) or _identity(peer) or "127.0.0.1"


def _identity(text: str) -> str | None:
    """The caller that an address stands for; None if the text is not an address. Some proxies add the caller's port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)


async def only_from_this_machine(request: Request) -> None:
    """A FastAPI dependency for paths that change what the service does for everybody. Where the service has keys, the
    caller's key has been checked, and may come from anywhere: web pages of other sites do not have it.

    Behind HAProxy every request comes from this machine, and HAProxy adds its caller's address to
    ``X-Forwarded-For``. So the peer must be local and every address in that header too; a remote caller gains nothing
    by writing a local address into it.

    Browsers need two more checks. Any page that is open on this machine can send a POST to localhost, so ``Origin``
    or ``Sec-Fetch-Site`` must name a page of this machine. A page can also reach the service under its own host name
    (DNS rebinding), which makes the request same-origin, so ``Host`` must be a name of this machine.

    Raises:
        ForbiddenError: the caller is on another machine, or is a web page of another site.
    """
    if KEY in request.scope:
        return
    headers = request.headers
    peer = None if request.client is None else request.client.host
    forwarded = [part.strip() for value in headers.getlist("x-forwarded-for") for part in value.split(",")]
    for address in (peer, *forwarded):
        if address is None or not is_loopback(address):
            raise ForbiddenError(f"only callers on the service's own machine may do this; you call from {address}")
    for name in _OTHER_PROXIES:
        if name in headers:
            raise ForbiddenError(
                f"only callers on the service's own machine may do this; you call through a proxy (header {name})"
            )
    origins = headers.getlist("origin")
    for origin in origins:
        if not _is_local_origin(origin):
            raise ForbiddenError(f"only web pages of this machine may do this; this one is of {origin[:100]!r}")
    if not origins and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise ForbiddenError("only web pages of this machine may do this; this one is of another site")
    host = headers.get("host", "")
    if not _is_local_host(f"//{host}"):
        raise ForbiddenError(f"send this to localhost: anybody can point the name {host[:100]!r} at this machine")


async def no_body(request: Request) -> None:
    """A FastAPI dependency for paths that take no body. It does not read the body that it refuses.

    Raises:
        BadBodyError: the request announces a body.
    """
    if announces_body(request.scope["headers"]):
        raise BadBodyError(f"{request.method} {request.url.path} takes no body; send it without one")


def is_loopback(address: str) -> bool:
    """Whether an address is a loopback IP address, which only this machine has. IPv4 addresses mapped into IPv6 count
    too; names do not."""
    try:
        found = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _is_local_origin(origin: str) -> bool:
    return origin.startswith(("http://", "https://")) and _is_local_host(origin)


def _is_local_host(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)
