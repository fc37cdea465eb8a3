"""Which addresses of this machine a host means, and how they are written."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress


class NotOurAddressError(ValueError):
    """A host that this machine cannot listen on."""


def addresses(host: str) -> list[str]:
    """The addresses to listen on, as numbers. A name may have several, of which those count that are this machine's:
    many machines know ``localhost`` as ``::1`` too and have no IPv6.

    Raises:
        NotOurAddressError: there is none.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise NotOurAddressError(f"{host!r} cannot be listened on: {reason}; {_ADVICE}") from error
    ours: list[str] = []
    for family, _, _, _, address in found:
        number = str(address[0])
        # An address of one link alone ("fe80::1%eth0") is none that HAProxy takes.
        if number not in ours and "%" not in number and not (len(address) == 4 and address[3]):
            with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((number, 0))
                ours.append(number)
    if not ours:
        raise NotOurAddressError(f"{host!r} is not an address of this machine; {_ADVICE}")
    return ours


_ADVICE = "give one of its addresses or names, 127.0.0.1 for this machine alone, or 0.0.0.0 for all of its addresses"


def is_wildcard(host: str) -> bool:
    """Whether it means every address of the machine, however that is written."""
    try:
        address = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4][0]
    except (OSError, UnicodeError):
        return False
    return ipaddress.ip_address(str(address).partition("%")[0]).is_unspecified


def authority(host: str, port: int | str) -> str:
    """host:port, as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url(host: str, port: int) -> str:
    """Where a service on that host answers on this machine: a wildcard is no address, the loopback is one of those
    that it means."""
    return f"http://{authority('127.0.0.1' if is_wildcard(host) else host, port)}"


def bind_arguments(host: str, port: int) -> list[str]:
    """What HAProxy's ``bind`` takes, one an address. The wildcard of IPv6 is that of both families, as everywhere on
    Linux. Of every other address of IPv6 HAProxy has to be told that it is not: otherwise a reload does not recognise
    its socket, and closes the others.

    Raises:
        NotOurAddressError: as ``addresses``.
    """
    families = {
        address: " v4v6" if address == "::" else " v6only" if ":" in address else "" for address in addresses(host)
    }
    return [authority(address, port) + family for address, family in families.items()]
