"""A service that only lists networks and loads them: enough for what ``topfive loadtest`` asks itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: name: (top-1, analytic MB, footprint MB), as on two cores.
NETWORKS = {
    "alexnet@untrained": (54.8, 247.6, 559.0),
    "googlenet@untrained": (67.78, 47.2, 215.0),
    "inception_v3@untrained": (77.294, 143.1, 452.0),
    "vgg16@untrained": (71.592, 614.4, 1530.0),
}


def row(name: str, state: str = "loadable") -> dict[str, Any]:
    """As ``GET /models`` has it; members that the report does not read are among them."""
    top1, analytic, footprint = NETWORKS.get(name, (50.0, 10.0, 100.0))
    return {
        "name": name,
        "variant": name.partition("@")[0],
        "labels": "mnist" if name.startswith("lenet5") else "imagenet1k",
        "aliases": ["inception_v1"] if name.startswith("googlenet") else [],
        "year": 2014,
        "top1": top1,
        "analytic_mb": analytic,
        "footprint_mb": footprint if state == "loadable" else None,
        "state": state,
        "resident": False,
        "mend": None if state == "loadable" else f"topfive pull {name}",
    }


class PretendedService:
    """Rows and failures can be changed while it runs."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.asked: list[str] = []
        self.load_statuses: dict[str, list[int]] = {}
        """By name: the statuses of the next loads; 200 after them. 504 goes on, and is loaded a moment later."""
        self.keys: list[str | None] = []
        """The header Authorization of each request for the listing."""
        self.listing: tuple[int, bytes] | None = None
        """What /models answers instead of the rows."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append(f"GET {self.path}")
                service.keys.append(self.headers["Authorization"])
                listing = json.dumps({"models": service.rows, "memory": [{"device": "2 cores", "limit_mb": 1.0}]})
                self._answer(*(service.listing or (200, listing.encode())))

            def do_POST(self) -> None:
                service.asked.append(f"POST {self.path}")
                name = self.path.partition("?model=")[2] or self.path.split("/")[2]
                statuses = service.load_statuses.get(name, [])
                status = statuses.pop(0) if statuses else 200
                if status in (200, 504):
                    next(r for r in service.rows if r["name"] == name)["resident"] = True
                self._answer(status, json.dumps({"detail": f"{name} does not fit"}).encode())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        """As if it had died."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def pretended_service(*names: str) -> Iterator[PretendedService]:
    service = PretendedService([row(name) for name in names or NETWORKS])
    try:
        yield service
    finally:
        service.stop()
