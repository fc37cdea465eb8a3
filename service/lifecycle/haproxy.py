"""Our part of HAProxy's configuration, and the program that adds it.

Ray Serve writes a configuration and starts HAProxy with it; it does so again after each change of its replicas. Serve
has no settings for several addresses, for an address that its replicas do not listen on, or for the answers while the
service starts and stops. So we tell Serve that the HAProxy program is ``haproxy.sh``. That runs this file, which
changes the configuration and then replaces itself with the real HAProxy, under the same process id. This file runs at
each reload, by its path and with only the standard library, so it imports nothing else.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

#: HAProxy turns new requests away once this file in the service's folder has this line.
STOPPING, STOPPING_LINE = "stopping", "stopping"
#: Once this file exists the port is closed, and a HAProxy that Serve starts to replace the last one must not open it.
CLOSED = "closed"
#: The folder, in the service's, of the sockets on which ingress replicas serve HTTP themselves: ``cluster/direct.py``.
DIRECT = "i"
#: Sockets in a folder that Serve makes below the service's folder. The names are short, because the path of a socket
#: has at most 107 bytes, of which Serve's folder takes 57 and HAProxy's suffix for temporary names 12.
ADMIN_SOCKET, METRICS_SOCKET = "a", "m"
_FRONT, _SCRIPT = "front.json", "answers.lua"
#: The statuses with which HAProxy answers by itself, and the phrase of each.
PAGES = {
    400: "Bad Request",
    403: "Forbidden",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
#: Seconds. A request's headers must arrive within ``timeout http-request``, as in ``http/protocol.py``. Nobody may
#: pause for longer than ``timeout client``, which leaves ``http/uploads.py`` time to say so first. ``timeout server``
#: is longer than the longest ``latency_ms``.
_TIMEOUTS = {"http-request": 10, "client": 60, "http-keep-alive": 75, "queue": 5, "server": 3660}
#: Bytes of a request's headers, with room to rewrite them, and their lines. Both are more than ``http/protocol.py``
#: takes, so that most of what is too large gets a problem document there: what HAProxy cannot read it answers with a
#: page of its own, before ``errorfile`` counts.
BUFFER_BYTES = 40 * 1024
_LINES = 200
#: From this share of all connections on, the first request of a connection is turned away. The rest is for answering
#: them: beyond the limit callers would wait unseen.
_FULL = 7 / 8
#: What Ray Serve reads from a request's headers beside ``x-request-id`` and ``traceparent``: how long the request may
#: take, to which replica it goes, whether Serve watches for its caller. Strangers do not decide that. The names are
#: regular expressions: Serve takes ``_`` for ``-`` in some of them.
_OF_SERVE = (
    "^x[-_]request[-_]timeout[-_]seconds$",
    "^x[-_]request[-_]disconnect[-_]disabled$",
    "^serve[-_]multiplexed[-_]model[-_]id$",
    "^x[-_]session[-_]id$",
    "^x[-_]serve[-_]router[-_]",
    "^x[-_]body[-_]truncated$",
    "^x[-_]haproxy[-_]reload[-_]id$",
)

#: A Lua service that answers with a problem. ``http-request return`` would close the connection right after the answer,
#: and a client that is still sending would see a reset instead. After a service HAProxy reads the rest of the body
#: first.
_SERVICE = """
core.register_service("{name}", "http", function(applet)
  local body = [==[{body}]==]
  applet:set_status({status})
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
    """What our part of the configuration needs: addresses, and the program and folder to use."""

    folder: str
    """The service's folder."""
    binary: str
    """The path of the real HAProxy."""
    bind: Sequence[str]
    """The arguments of ``bind``, one for each address."""
    metrics: str = ""
    """The address that HAProxy's own metrics are served on; empty for all."""

    def write(self, *, stopping: str, starting: str, full: str, pages: Mapping[int, str]) -> None:
        """Writes the files that HAProxy and ``main`` read into the service's folder.

        Args:
            stopping: the problem document for requests that arrive while the service stops.
            starting: the same for requests that arrive before it has started.
            full: the same for requests on new connections while there are too many.
            pages: the same for each status of ``PAGES``; 503 is for requests that arrive while no replica is up.
        """
        folder = Path(self.folder)
        services = (
            ("topfive_stopping", 503, stopping),
            ("topfive_starting", 503, starting),
            ("topfive_full", 429, full),
        )
        script = "".join(
            _SERVICE.replace("{name}", name).replace("{status}", str(status)).replace("{body}", body)
            for name, status, body in services
        )
        (folder / _SCRIPT).write_text(script)
        for status, phrase in PAGES.items():
            head = (
                f"HTTP/1.1 {status} {phrase}",
                "Content-Type: application/problem+json",
                *(["Retry-After: 1"] if status in (429, 503) else []),
                f"Content-Length: {len(pages[status].encode())}",
                "Connection: close",
            )
            _page(folder, status).write_bytes("\r\n".join((*head, "", pages[status])).encode())
        (folder / _FRONT).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Front:
        """What ``write`` has written."""
        return cls(**json.loads((folder / _FRONT).read_text()))


def _page(folder: Path, status: int) -> Path:
    return folder / f"{status}.http"


def rewritten(config: str, front: Front) -> str:
    """Serve's configuration with our addresses and answers.

    Raises:
        ValueError: the configuration lacks a line that is to be replaced: this is another version of Ray.
    """
    folder = Path(front.folder)
    connections = re.search(r"^ +maxconn (\d+)\n", config, re.MULTILINE)
    if connections is None:
        raise ValueError("Ray Serve's configuration of HAProxy has no maxconn; this version of Ray is unknown")
    full = int(_FULL * int(connections[1]))
    pages = [f"    errorfile {status} {_page(folder, status)}\n" for status in PAGES]
    timeouts = [f"    timeout {what} {seconds}s\n" for what, seconds in _TIMEOUTS.items()]
    frontend = [
        *(f"bind {address}" for address in front.bind),
        # A replica sees only HAProxy; this header tells it who the caller is (``service/http/callers.py``).
        "option forwardfor",
        # Strangers do not steer Serve.
        *(f"http-request del-header {name} -m reg" for name in _OF_SERVE),
        # The application watches for callers who leave; for a replica without a socket of its own, Serve need not.
        "http-request set-header x-request-disconnect-disabled ?1",
        # From a file, so that a reload sees it too. The driver tells the running HAProxy over its admin socket.
        f"acl topfive_stopping str({STOPPING_LINE}) -f {folder / STOPPING}",
        "http-request use-service lua.topfive_stopping if topfive_stopping !{ path /healthz }",
        f"http-request use-service lua.topfive_full if {{ fe_conn gt {full} }} {{ http_first_req }}",
    ]
    changes = {
        r"^global\n": f"global\n    lua-load {folder / _SCRIPT}\n    tune.http.maxhdr {_LINES}\n",
        r"^frontend http_frontend\n +bind .*\n": "\n    ".join(["frontend http_frontend", *frontend]) + "\n",
        # Without an application, at the start and the end, Serve has HAProxy answer 404.
        r"^(backend default_backend\n +http-request) return status 404 .*\n": (
            r"\1 use-service lua.topfive_starting" + "\n"
        ),
        # While no replica is up, Serve has HAProxy answer with a page that says 500. A replica that breaks off is down.
        r"^( +errorfile 50[234]) .*\n": rf"\1 {_page(folder, 503)}" + "\n",
        # The end of the defaults, where our lines win over those before. Metrics are as public as the service: Serve
        # would open them to everybody.
        r"^frontend prometheus\n( +bind) :": "".join((*pages, *timeouts, "frontend prometheus\n"))
        + rf"\1 {front.metrics}:",
        # Serve opens HAProxy's statistics to everybody; this limits them to this machine.
        r"^(listen stats\n +bind) \*:": r"\1 127.0.0.1:",
    }
    for pattern, replacement in changes.items():
        config, found = re.subn(pattern, replacement, config, flags=re.MULTILINE)
        if not found:
            raise ValueError(f"Ray Serve's configuration of HAProxy has no {pattern!r}; this version of Ray is unknown")
    return _SERVER.sub(lambda line: _directly(line, folder / DIRECT), config)


#: A replica: the end of its name is its tag, after the names of the application and the deployment.
_SERVER = re.compile(r"^( +server SERVE_REPLICA_\S+-(\w+)) ([\d.]+):(\d+) check\b", re.MULTILINE)


def _directly(line: re.Match[str], sockets: Path) -> str:
    """A replica's line with its own socket, if it has one. Its health is still asked over Serve's port."""
    name, tag, host, port = line.groups()
    path = sockets / tag
    return f"{name} unix@{path} check addr {host} port {port}" if path.is_socket() else line[0]


def main() -> None:
    """Changes the configuration file that follows ``-f``, then replaces this process with HAProxy."""
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
