"""A service that is only an HTTP server with fixed answers, for what asks a service over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

#: A status and a JSON document.
Answer = tuple[int, dict[str, Any]]


@contextmanager
def answering(
    *readyz: Answer, models: list[dict[str, Any]], listing_status: int = 200, key: str | None = None
) -> Iterator[str]:
    """Answers /readyz with these in turn, the last one from then on, and /models with these rows, if the
    request has the key. Yields the URL."""
    turns = list(readyz)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = listing_status, {"models": models}
            if self.path != "/readyz" and key is not None and self.headers["Authorization"] != f"Bearer {key}":
                status, document = 401, {"detail": "no key"}
            if self.path == "/readyz":
                status, document = turns.pop(0) if len(turns) > 1 else turns[0]
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/problem+json" if status != 200 else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
