"""Resolves ``--host`` to addresses of this machine, and writes addresses as URLs and HAProxy want them."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress


class NotOurAddressError(ValueError):
    """A host that this machine cannot listen on."""


def addresses(host: str) -> list[str]:
    """The IP addresses to listen on.

    A name may resolve to several. Those that this machine does not have are left out: many machines resolve
    ``localhost`` to ``::1`` too and have no IPv6.

    Raises:
        NotOurAddressError: no address is left.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise NotOurAddressError(f"{host!r} cannot be listened on: {reason}; {_ADVICE}") from error
    ours: list[str] = []
    for family, _, _, _, address in found:
        number = str(address[0])
        # HAProxy does not accept link-local addresses ("fe80::1%eth0").
        if number not in ours and "%" not in number and not (len(address) == 4 and address[3]):
            with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((number, 0))
                ours.append(number)
    if not ours:
        raise NotOurAddressError(f"{host!r} is not an address of this machine; {_ADVICE}")
    return ours


_ADVICE = "give one of its addresses or names, 127.0.0.1 for this machine alone, or 0.0.0.0 for all of its addresses"


def is_wildcard(host: str) -> bool:
    """Whether a host means all addresses of the machine: ``0.0.0.0``, ``::``, ``0`` and other spellings."""
    try:
        address = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4][0]
    except (OSError, UnicodeError):
        return False
    return ipaddress.ip_address(str(address).partition("%")[0]).is_unspecified


def is_here_alone(host: str) -> bool:
    """Whether only this machine can reach a host: all of its addresses are loopback addresses."""
    try:
        found = addresses(host)
    except NotOurAddressError:
        return False
    return all(ipaddress.ip_address(address).is_loopback for address in found)


def authority(host: str, port: int | str) -> str:
    """``host:port`` as in a URL, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url(host: str, port: int) -> str:
    """The URL of a service on this machine. A wildcard is replaced by the loopback address."""
    return f"http://{authority('127.0.0.1' if is_wildcard(host) else host, port)}"


def bind_arguments(host: str, port: int) -> list[str]:
    """The arguments of HAProxy's ``bind``, one for each address.

    The wildcard of IPv6 covers IPv4 too, as everywhere on Linux. Every other IPv6 address needs ``v6only``: without it
    HAProxy does not recognise its socket at a reload, and closes the others.

    Raises:
        NotOurAddressError: the machine has no address of that host.
    """
    families = {
        address: " v4v6" if address == "::" else " v6only" if ":" in address else "" for address in addresses(host)
    }
    return [authority(address, port) + family for address, family in families.items()]
