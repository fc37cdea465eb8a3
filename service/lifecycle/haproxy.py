"""Our part of HAProxy's configuration, and the program that puts it in.

Ray Serve writes a configuration and starts HAProxy with it, again after each change of its replicas. It has no setting
for several addresses, for another address than its replicas listen on, or for what a caller hears while the service
starts and stops. So Serve is told that HAProxy is ``haproxy.sh``: that runs this file, which changes the configuration
and becomes HAProxy, with the same process id. It runs for each reload, by its path and with the standard library alone.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

#: HAProxy turns new requests away once this file of the service's folder has that line.
STOPPING, STOPPING_LINE = "stopping", "stopping"
#: Once this file is there the port is closed, and a HAProxy that Serve starts in the place of the last one must not
#: open it again.
CLOSED = "closed"
#: Names in the service's folder, or in a folder of Serve's below. The path of a socket has 107 bytes at most, of which
#: Serve's folder takes 57 and HAProxy's suffix of a temporary name 12.
ADMIN_SOCKET, METRICS_SOCKET = "a", "m"
_FRONT, _SCRIPT, _PAGE = "front.json", "answers.lua", "503.http"

#: A service and not ``http-request return``, which closes the connection after the answer: a client that is still
#: sending would see a reset and no answer. After a service HAProxy reads the rest of the body first.
_SERVICE = """
core.register_service("{name}", "http", function(applet)
  local body = [==[{body}]==]
  applet:set_status(503)
  applet:add_header("content-type", "application/problem+json")
  applet:add_header("content-length", tostring(#body))
  applet:add_header("retry-after", "1")
  applet:add_header("connection", "close")
  applet:start_response()
  applet:send(body)
end)
"""


@dataclass(frozen=True, slots=True)
class Front:
    """What HAProxy has to know beside what Serve tells it."""

    folder: str
    """The service's own."""
    binary: str
    """The real HAProxy."""
    bind: Sequence[str]
    """Arguments of ``bind``, one an address."""

    def write(self, *, stopping: str, starting: str, down: str) -> None:
        """Puts everything into the service's folder; the texts are problem documents: for requests that come while
        the service stops, before it has started, and while no replica is up."""
        folder = Path(self.folder)
        services = {"topfive_stopping": stopping, "topfive_starting": starting}
        script = "".join(_SERVICE.replace("{name}", name).replace("{body}", body) for name, body in services.items())
        (folder / _SCRIPT).write_text(script)
        head = (
            "HTTP/1.1 503 Service Unavailable",
            "Content-Type: application/problem+json",
            "Retry-After: 1",
            f"Content-Length: {len(down.encode())}",
        )
        (folder / _PAGE).write_bytes("\r\n".join((*head, "", down)).encode())
        (folder / _FRONT).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Front:
        return cls(**json.loads((folder / _FRONT).read_text()))


def rewritten(config: str, front: Front) -> str:
    """Serve's configuration with our addresses and answers.

    Raises:
        ValueError: something that is to be replaced is not there: another version of Ray.
    """
    folder = Path(front.folder)
    frontend = [
        *(f"bind {address}" for address in front.bind),
        # For ``callers.py``: who asks, since a replica sees HAProxy alone.
        "option forwardfor",
        # A file, so that a reload knows it too. The driver tells the running HAProxy by its admin socket.
        f"acl topfive_stopping str({STOPPING_LINE}) -f {folder / STOPPING}",
        "http-request use-service lua.topfive_stopping if topfive_stopping !{ path /healthz }",
    ]
    changes = {
        r"^global\n": f"global\n    lua-load {folder / _SCRIPT}\n",
        r"^frontend http_frontend\n +bind .*\n": "\n    ".join(["frontend http_frontend", *frontend]) + "\n",
        # Serve's own answer, before it has told HAProxy of the application and after it has taken that away, is 404.
        r"^(backend default_backend\n +http-request) return status 404 .*\n": (
            r"\1 use-service lua.topfive_starting" + "\n"
        ),
        # Serve's page for what HAProxy answers by itself while no replica is up says 500.
        r"^( +errorfile 50[234]) .*\n": rf"\1 {folder / _PAGE}" + "\n",
        # A page for people on this machine; Serve shows it to everybody.
        r"^(listen stats\n +bind) \*:": r"\1 127.0.0.1:",
    }
    for pattern, replacement in changes.items():
        config, found = re.subn(pattern, replacement, config, flags=re.MULTILINE)
        if not found:
            raise ValueError(f"Ray Serve's configuration of HAProxy has no {pattern!r}; this version of Ray is unknown")
    return config


def main() -> None:
    """Changes the configuration that follows ``-f`` and becomes HAProxy."""
    arguments = sys.argv[1:]
    front = Front.read(Path(os.environ["TOPFIVE_FRONT"]))
    if (Path(front.folder) / CLOSED).exists():
        sys.exit("the service is stopping")
    config = Path(arguments[arguments.index("-f") + 1])
    part = config.with_suffix(".part")
    part.write_text(rewritten(config.read_text(), front))
    part.replace(config)
    os.execv(front.binary, [front.binary, *arguments])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
