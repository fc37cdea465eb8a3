"""Has a replica listen on loopback alone, where the whole service does.

Ray Serve opens a port in each replica for calls of other replicas, on all addresses of the machine. It is read with
pickle, which runs what it is sent; Ray's token protects it. Where Ray's node has the loopback address, nobody calls
from elsewhere, so the port need not be open to the network at all. Ray Serve has no setting for this.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import Any

from service.config.listening import authority

log = logging.getLogger(__name__)

#: The function by which Ray Serve opens the port.
_OPENS = "add_port_to_grpc_server"


def listen_here_alone() -> None:
    """Changes the address of the port that Ray Serve opens in this replica once our class has been made. Does nothing
    where Ray's node has another address than loopback."""
    import ray
    from ray.serve._private import replica

    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if not ipaddress.ip_address(node).is_loopback:
        return
    opens = getattr(replica, _OPENS, None)
    if opens is None:
        log.warning("this version of Ray Serve is unknown: a port of this replica is open to the network")
        return

    def open_here(server: Any, address: str) -> Any:
        return opens(server, authority(node, address.rpartition(":")[2]))

    setattr(replica, _OPENS, open_here)
