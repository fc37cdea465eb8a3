"""The servers that ``compare.py``, ``path.py`` and ``fronts.py`` measure: how each is started, asked and ended."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from processes import Tree

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
PEERS_VENV = ROOT / ".venv-peers"
PEERS_PYTHON = PEERS_VENV / "bin" / "python"
REQUIREMENTS = PEERS / "requirements.txt"
BOUNDARY = "topfive-bench"
_EXPORT = """
import sys
from pathlib import Path
from models.checkpoints.catalogue import Catalogue
from models.onnx.export import export
export(Catalogue(untrained=True).find(sys.argv[1]), Path(sys.argv[2]))
"""
#: Of a fleet that hosts a network for the first time, the graph is exported and its times are measured.
_READY_WITHIN_S = 240
_REFUSES_WITHIN_S = 30
_STOP_WITHIN_S = 30


@dataclass(frozen=True, slots=True)
class Body:
    """What a server is sent."""

    content: bytes
    content_type: str


#: A fleet of one network; ``{network}`` is filled in.
FLEET = """
[[deployment]]
variants = ["{network}"]
"""


def without_ray(fronts: int | str) -> str:
    """The fleet of one network without Ray: one process owns the device, and so many others do HTTP and decoding."""
    return f"ray = false\nfronts = {json.dumps(fronts)}\n{FLEET}"


@dataclass(frozen=True, slots=True)
class Server:
    """One server in one style."""

    key: str
    """``mosec-s``: t is a tutorial's own way, s TopFive's graph, threads and decode."""
    title: str
    command: tuple[str, ...]
    """``{port}``, ``{network}``, ``{folder}`` and ``{fleet}``, the fleet's file, are filled in."""
    path: str
    body: Callable[[bytes, str], Body]
    readyz: bool = False
    """Whether ``/readyz`` says when it is ready; otherwise the first answer does."""
    fleet: str = FLEET
    """The fleet that ``topfive serve`` is given; ``{network}`` is filled in."""

    @property
    def style(self) -> str:
        return self.key.rpartition("-")[2] if self.key[-2:] in ("-t", "-s") else "s"


def raw(picture: bytes, content_type: str) -> Body:
    return Body(picture, content_type)


def msgpack(picture: bytes, _content_type: str) -> Body:
    """``{"image": picture}``."""
    return Body(b"\x81\xa5image\xc6" + len(picture).to_bytes(4, "big") + picture, "application/msgpack")


def json_image(picture: bytes, _content_type: str) -> Body:
    return Body(json.dumps({"image_data": base64.b64encode(picture).decode()}).encode(), "application/json")


def json_images(picture: bytes, _content_type: str) -> Body:
    return Body(json.dumps({"images": [base64.b64encode(picture).decode()]}).encode(), "application/json")


def form(picture: bytes, content_type: str) -> Body:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="picture"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    )
    content = head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Body(content, f"multipart/form-data; boundary={BOUNDARY}")


_CLASSIFY = "/classify?model={network}"
_SERVE = (sys.executable, "-m", "service.commands.main", "serve")
_TOPFIVE = (*_SERVE, "--port", "{port}", "--fleet", "{fleet}", "--untrained")
_UVICORN = (sys.executable, "-m", "uvicorn", "--port", "{port}", "--log-level", "warning", "--no-access-log")
#: TopFive in each way that it can be served. A new way is a row.
OURS = (
    Server("topfive", "TopFive, local", _TOPFIVE, _CLASSIFY, raw, readyz=True),
    Server("solo-1", "TopFive, solo, one front", _TOPFIVE, _CLASSIFY, raw, readyz=True, fleet=without_ray(1)),
    Server("solo", "TopFive, solo, best fronts", _TOPFIVE, _CLASSIFY, raw, readyz=True, fleet=without_ray("auto")),
    Server("app", "TopFive's app, bare uvicorn", (*_UVICORN, "bare_api:app"), _CLASSIFY, raw, readyz=True),
)
#: The floor below TopFive's app. No contender: it has neither batches nor checks.
STARLETTE = Server(
    "starlette", "bare Starlette handler", (*_UVICORN, "bare_starlette:app"), _CLASSIFY, raw, readyz=True
)


def servers() -> dict[str, Server]:
    """Every server that is compared, in the order in which they are measured."""
    return {server.key: server for server in (*OURS, *_peers())}


def _peers() -> list[Server]:
    """Other people's servers, each with TopFive's graph and as its own tutorial writes it."""
    ours, theirs = sys.executable, str(PEERS_PYTHON)
    found = []
    mosec = ("--address", "127.0.0.1", "--port", "{port}", "--timeout", "60000", "--log-level", "error")
    bento = ("serve", "bentoml_server:Classify", "--host", "127.0.0.1", "--port", "{port}")
    for style in ("s", "t"):
        tutorial = style == "t"
        found += [
            Server(
                f"mosec-{style}",
                "MOSEC",
                (theirs, "mosec_server.py", *mosec),
                "/inference",
                msgpack if tutorial else raw,
            ),
            Server(f"litserve-{style}", "LitServe", (theirs, "litserve_server.py"), "/predict", json_image),
            Server(
                f"bentoml-{style}",
                "BentoML",
                (theirs, "-m", "bentoml", *bento),
                "/classify",
                form if tutorial else json_images,
            ),
            Server(f"ray-{style}", "Ray Serve, @serve.batch", (ours, "ray_batch_server.py"), "/", raw),
        ]
    names = [server.key.partition("-")[0] for server in found]
    return sorted(found, key=lambda server: names.index(server.key.partition("-")[0]))


def make_peers_venv() -> None:
    """Makes ``.venv-peers`` unless it is there. It sees this environment's packages, torch above all, after its own."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp = PEERS_VENV / ".installed"
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"making {PEERS_VENV.name} ...", flush=True)
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    subprocess.run([sys.executable, "-m", "venv", PEERS_VENV], check=True, timeout=120)  # noqa: S603 - our own
    asked = [subprocess.check_output([python, "-c", purelib], text=True) for python in (sys.executable, PEERS_PYTHON)]  # noqa: S603
    main, own = (Path(answer.strip()) for answer in asked)
    (own / "main_environment.pth").write_text(f"{main}\n")
    pip = [PEERS_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS]
    subprocess.run(pip, check=True, timeout=900)  # noqa: S603 - our own
    stamp.write_text(digest)


def export(network: str, folder: Path) -> None:
    """What the peers need in the folder: the network's graph."""
    graph = folder / f"{network}.onnx"
    if not graph.exists():
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", _EXPORT, network, str(graph)]
        subprocess.run(command, env=environment, check=True, timeout=300)  # noqa: S603 - our own


class StartError(RuntimeError):
    """A server did not get ready; the text ends with the last of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    url: str
    tree: Tree
    answer: Any
    """Its answer to the picture."""


@contextmanager
def running(
    server: Server, network: str, folder: Path, body: Body, threads: int, checkout: Path = ROOT
) -> Iterator[Running]:
    """Starts a server, waits until it answers, ends it and everything that it has started.

    Args:
        checkout: of TopFive, whose code is served.
    """
    port = free_port()
    fleet = folder / f"{server.key}-{network}.toml"
    fleet.write_text(server.fleet.format(network=network))
    words = {"port": str(port), "network": network, "folder": str(folder), "fleet": str(fleet)}
    environment = {
        **os.environ,
        "PATH": f"{PEERS_VENV / 'bin'}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": f"{checkout}:{PEERS}",
        "PYTHONWARNINGS": "ignore",
        "BENCH_NETWORK": network,
        "BENCH_STYLE": server.style,
        "BENCH_GRAPH": str(folder / f"{network}.onnx"),
        "BENCH_THREADS": str(threads),
        "BENCH_PORT": str(port),
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    log = folder / f"{server.key}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own
            [word.format(**words) for word in server.command],
            cwd=PEERS,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    tree = Tree(process.pid)
    url = f"http://127.0.0.1:{port}"
    try:
        answer = _wait(process, server, url, server.path.format(network=network), body, log)
        tree.refresh()
        yield Running(url + server.path.format(network=network), tree, answer)
    finally:
        tree.refresh()
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_WITHIN_S)
        tree.end()
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], server: Server, url: str, path: str, body: Body, log: Path) -> Any:
    """The first answer, within a bounded time."""
    give_up = time.monotonic() + _READY_WITHIN_S
    said, refused_at = "", None
    with httpx.Client(timeout=30, trust_env=False) as client:
        while time.monotonic() < give_up and process.poll() is None:
            with suppress(httpx.TransportError):
                if not server.readyz or client.get(f"{url}/readyz").status_code == 200:
                    response = client.post(
                        url + path, content=body.content, headers={"Content-Type": body.content_type}
                    )
                    if response.status_code == 200:
                        return response.json()
                    said = f"status {response.status_code}: {response.text[:200]}"
                    refused_at = refused_at or time.monotonic()
                    if time.monotonic() > refused_at + _REFUSES_WITHIN_S:
                        break
            time.sleep(0.25)
    raise StartError(f"{server.key} is not ready: {said}\n{log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
