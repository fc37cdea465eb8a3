"""A port that closes, with the kernel itself: new handshakes are dropped, and queued connections are kept."""

from __future__ import annotations

import socket

import pytest

from service.lifecycle.handshakes import ignore_new


def test_a_port_that_drops_new_handshakes_keeps_queued_connections() -> None:
    """Without this, closing the port would reset connections that the kernel has queued."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        with socket.create_connection(address) as queued:
            assert ignore_new(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            queued.sendall(b"question")
            taken, _ = listener.accept()
            with taken:
                assert taken.recv(100) == b"question"
                taken.sendall(b"answer")
                assert queued.recv(100) == b"answer"


def test_both_kinds_of_addresses_drop_new_handshakes() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert ignore_new(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname()[:2], timeout=0.3)


def test_it_says_so_if_the_kernel_cannot() -> None:
    """The caller then need not wait for handshakes."""
    closed = socket.socket()
    closed.close()
    assert not ignore_new(closed)
