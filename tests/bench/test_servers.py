"""The rows of servers that are compared, and how one is started and ended."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from servers import OURS, STARLETTE, Server, StartError, raw, running, servers, without_ray

from service.config.fleet import Fleet

#: Answers every request with the fleet that it was given, and with where it would import TopFive from.
_TELLS = """
import http.server, json, os, pathlib, sys
answer = json.dumps([pathlib.Path(sys.argv[2]).read_text(), os.environ["PYTHONPATH"]]).encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
TELLS = Server("tells", "Tells", (sys.executable, "-c", _TELLS, "{port}", "{fleet}"), "/{network}", raw)
BODY = raw(b"picture", "image/png")


def test_topfives_ways_come_first_and_the_floor_is_no_contender() -> None:
    keys = list(servers())
    assert keys[:4] == ["topfive", "solo-1", "solo", "app"]
    assert keys[4:] == [f"{name}-{style}" for name in ("mosec", "litserve", "bentoml", "ray") for style in "st"]
    assert STARLETTE.key not in keys
    assert {servers()[key].style for key in keys[:4]} == {"s"}


def test_without_ray_there_are_as_many_fronts_as_a_row_says() -> None:
    fleets = {server.key: Fleet.model_validate(tomllib.loads(server.fleet.format(network="vgg16"))) for server in OURS}
    assert all(fleet.names() == ["vgg16"] for fleet in fleets.values())
    assert {key: fleets[key].ray for key in ("topfive", "solo-1", "solo")} == {
        "topfive": True,
        "solo-1": False,
        "solo": False,
    }
    assert (fleets["solo-1"].fronts, fleets["solo"].fronts) == (1, "auto")


def test_a_server_gets_its_fleet_and_the_checkout_and_ends(tmp_path: Path) -> None:
    server = replace(TELLS, fleet=without_ray(3))
    with running(server, "alexnet", tmp_path, BODY, 1, checkout=Path("/elsewhere")) as up:
        assert up.url.endswith("/alexnet")
        fleet, path = up.answer
        assert tomllib.loads(fleet) == {"ray": False, "fronts": 3, "deployment": [{"variants": ["alexnet"]}]}
        assert path.startswith("/elsewhere:")
        assert len(up.tree.refresh()) == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(up.url, trust_env=False)
    assert up.tree.refresh() == []


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    server = replace(TELLS, command=(sys.executable, "-c", "raise SystemExit('no such key: fronts')"))
    with (
        pytest.raises(StartError, match=r"(?s)tells is not ready.*no such key: fronts"),
        running(server, "alexnet", tmp_path, BODY, 1),
    ):
        pass
