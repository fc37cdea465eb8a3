"""Runs a container's health check outside of one, against a server that answers what it is told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests.running import free_port


def answers_of_check(command: list[str], path: str, variable: str = "TOPFIVE_PORT") -> dict[str, bool]:
    """Whether the check is content: with a status of 200 on its path and 503 on every other, the other way round, and
    with nobody there. The command is Python's, and finds the port in the variable."""
    return {
        "200": _against(command, variable, {path: 200}, otherwise=503),
        "503": _against(command, variable, {path: 503}, otherwise=200),
        "nobody": _passes(command, variable, free_port()),
    }


def _against(command: list[str], variable: str, statuses: dict[str, int], otherwise: int) -> bool:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.get(self.path, otherwise))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            return _passes(command, variable, server.server_port)
        finally:
            server.shutdown()
            thread.join()


def _passes(command: list[str], variable: str, port: int) -> bool:
    program, *arguments = command
    assert program == "python"
    # A proxy that cannot be reached: the check must not ask for the way.
    environment = {**os.environ, variable: str(port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, timeout=30)
    return done.returncode == 0
