"""Closes a listening socket in two steps, so that no connection is reset.

Closing a port resets the connections that the kernel has established and the server has not accepted yet. So the kernel
drops new handshakes for a moment, in which the server accepts what is queued. A client whose handshake is dropped
repeats it after a second, as TCP does, and is then refused.
"""

from __future__ import annotations

import ctypes
import socket
import struct

#: Time for handshakes that have begun when the port stops accepting new ones: a round trip, after which the server
#: accepts what the kernel has queued.
HANDSHAKES_S = 0.25
_SO_ATTACH_FILTER = 26


def ignore_new(listener: socket.socket) -> bool:
    """Makes the kernel drop new handshakes on a listening socket. Returns False if it cannot."""
    # A classic BPF program: load byte 13 of the TCP header, the flags; drop the segment if SYN is set, else let it
    # pass.
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
    )
    buffer = ctypes.create_string_buffer(program)
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
        )
    except OSError:
        return False
    return True
