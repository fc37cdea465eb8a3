"""Where Ray's node has the loopback address, a replica listens there alone."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

with warnings.catch_warnings():
    # Ray Serve uses what pydantic deprecates.
    warnings.simplefilter("ignore")
    import ray
    from ray.serve._private import replica

    from service.cluster.loopback import listen_here_alone


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses that replicas of this process open."""
    found: list[Any] = []

    def add_port(server: Any, address: str) -> int:
        found.append((server, address))
        return 4711

    # Ray Serve itself calls it by this name.
    assert callable(replica.add_port_to_grpc_server)
    monkeypatch.setattr(replica, "add_port_to_grpc_server", add_port)
    return found


@pytest.mark.parametrize(
    ("node", "address"),
    [("127.0.0.1", "127.0.0.1:0"), ("::1", "[::1]:0"), ("10.0.0.7", "[::]:0"), ("2001:db8::1", "[::]:0")],
)
def test_the_port_is_opened_where_others_look_for_it(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch, node: str, address: str
) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: node)
    listen_here_alone()
    server = SimpleNamespace()
    assert replica.add_port_to_grpc_server(server, "[::]:0") == 4711
    assert opened == [(server, address)]


def test_a_ray_serve_that_is_unknown_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.delattr(replica, "add_port_to_grpc_server")
    listen_here_alone()
    assert "open to the network" in caplog.text
