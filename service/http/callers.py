"""Who may load and unload networks: callers on the service's own machine, and not web pages from elsewhere."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from fastapi import Request

from service.domain.errors import BadBodyError, ForbiddenError

#: Headers in which a proxy says that it asks for somebody else, without an address that is read here.
_OTHER_PROXIES = ("forwarded", "x-real-ip", "via")


async def only_from_this_machine(request: Request) -> None:
    """A dependency of paths that change what the service does for everybody.

    Behind HAProxy every request comes from this machine; HAProxy adds the address of its own caller to
    ``X-Forwarded-For``. That header never makes a stranger local: the peer must be local, and everybody in the header
    too. What browsers say is checked beside that, since any page that somebody on this machine opens can send a POST to
    localhost; under a name that is no name of this machine (DNS rebinding) even as if from the same origin.

    Raises:
        ForbiddenError: the caller is somewhere else, or is a web page from somewhere else.
    """
    headers = request.headers
    peer = None if request.client is None else request.client.host
    forwarded = [part.strip() for value in headers.getlist("x-forwarded-for") for part in value.split(",")]
    for address in (peer, *forwarded):
        if address is None or not is_loopback(address):
            raise ForbiddenError(f"only callers on the service's own machine may do this, and you come from {address}")
    for name in _OTHER_PROXIES:
        if name in headers:
            raise ForbiddenError(
                f"only callers on the service's own machine may do this, and you come through a proxy ({name})"
            )
    origins = headers.getlist("origin")
    for origin in origins:
        if not _is_local_origin(origin):
            raise ForbiddenError(f"only web pages of this machine may do this, and not one of {origin[:100]!r}")
    if not origins and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise ForbiddenError("only web pages of this machine may do this, and not one of another site")
    host = headers.get("host", "")
    if not _is_local_host(f"//{host}"):
        raise ForbiddenError(f"ask for localhost: {host[:100]!r} may be anybody's name for this machine")


async def no_body(request: Request) -> None:
    """A dependency of paths that take no body: one that is announced is refused, and not read.

    Raises:
        BadBodyError: there is one.
    """
    if announces_body(request):
        raise BadBodyError(f"{request.method} {request.url.path} takes no body; leave it away")


def announces_body(request: Request) -> bool:
    """Whether a request's headers say that a body comes."""
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0").strip("0") != ""


def is_loopback(address: str) -> bool:
    """Whether an IP address means this machine."""
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
