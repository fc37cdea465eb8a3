"""A whole service with keys and rates, of several processes; and where the processes of a service listen."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from service.access.keys import add_key, revoke_key
from service.commands.main import app
from service.lifecycle.processes import of_run
from service.lifecycle.record import running
from tests.pictures import picture
from tests.problems import problem
from tests.running import Service

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

CLASSIFY = "/classify?model=lenet5"
FRONTS = """
ray = false
fronts = 2
[[deployment]]
variants = ["lenet5"]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def alice(file: Path) -> str:
    return add_key(file, "alice", "classify", None, None)


@pytest.fixture(scope="module")
def service(box_cache: Path, file: Path, alice: str) -> Iterator[Service]:
    """Two fronts and a device owner."""
    fleet = file.with_name("fleet.toml")
    fleet.write_text(FRONTS)
    options = ("--fleet", str(fleet), "--api-keys", str(file), "--metrics-key", "--access-log")
    service = Service(box_cache, *options, log=file.with_name("log.txt"))
    try:
        service.wait_until_ready()
        yield service
    finally:
        assert service.stop() == 0


@pytest.fixture
def ask(service: Service) -> Callable[..., httpx.Response]:
    """Sends each request over a new connection, so that it may go to either front."""

    def request(method: str, path: str, key: str | None = None, content: bytes | None = None) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        url = path if path.startswith("http") else service.url + path
        return httpx.request(method, url, headers=headers, content=content, trust_env=False, timeout=60)

    return request


def test_every_front_asks_for_a_key(ask: Callable[..., httpx.Response], alice: str) -> None:
    for _ in range(8):
        problem(ask("POST", CLASSIFY, content=picture()), 401, "unauthorized")
        assert ask("POST", CLASSIFY, alice, picture()).status_code == 200
        assert ask("GET", "/models", alice).status_code == 200
    problem(ask("POST", "/models/lenet5/unload", alice), 403, "role-too-small")
    assert [ask("GET", path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_every_process_asks_for_a_key_on_its_metrics(ask: Callable[..., httpx.Response], alice: str) -> None:
    assert ask("GET", "/metrics/targets").status_code == 401
    (owner, *fronts) = [target for row in ask("GET", "/metrics/targets", alice).json() for target in row["targets"]]
    for address in (owner, *fronts):
        assert ask("GET", f"http://{address}/metrics").status_code == 401
        assert ask("GET", f"http://{address}/metrics", alice).status_code == 200
    assert ask("GET", "/metrics", alice).headers["x-processes"] == "3 of 3"


def test_the_services_user_needs_no_key_to_look(service: Service) -> None:
    result = CliRunner().invoke(app, ["status", "--port", str(service.port)])
    assert "lenet5@mnist" in result.output


def test_fronts_follow_the_file_and_count_together(ask: Callable[..., httpx.Response], file: Path) -> None:
    key = add_key(file, "twelve", "classify", "12/hour", None)
    probe = add_key(file, "probe", "classify", None, None)
    wait_until(lambda: ask("GET", "/models", probe).status_code == 200)
    # So many that both fronts are among those who answer.
    wait_until(lambda: all(ask("POST", CLASSIFY, probe, picture()).status_code == 200 for _ in range(40)))
    statuses = [ask("POST", CLASSIFY, key, picture()).status_code for _ in range(16)]
    assert statuses == [200] * 12 + [429] * 4
    revoke_key(file, "twelve")
    wait_until(lambda: all(ask("POST", CLASSIFY, key, picture()).status_code == 401 for _ in range(8)))


def test_keys_are_nowhere_to_be_seen(service: Service, ask: Callable[..., httpx.Response], alice: str) -> None:
    assert ask("POST", CLASSIFY, alice, picture()).status_code == 200
    wait_until(lambda: '"key": "alice"' in service.log.read_text())
    assert alice not in service.log.read_text()
    (record,) = [record for record in running() if record.port == service.port]
    for process in of_run(record.run):
        assert alice not in " ".join(process.cmdline())
        assert alice not in Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace")


@pytest.mark.parametrize("fleet", ["local", "cluster"])
def test_a_service_on_loopback_listens_nowhere_else(fleet: str, request: pytest.FixtureRequest) -> None:
    """Ray's ports among them, which run what they are sent."""
    service: Service = request.getfixturevalue(fleet)
    (record,) = [record for record in running() if record.port == service.port]
    found = {}
    for process in of_run(record.run):
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue  # it has ended, as Ray's idle workers do
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                found[connection.laddr.port] = (connection.laddr.ip, process.name())
    assert service.port in found
    assert len(found) > 8, "Ray has more ports than that"
    open_to_others = {port: who for port, who in found.items() if not _is_loopback(who[0])}
    assert open_to_others == {}


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def test_rays_token_is_its_users_alone(local: Service) -> None:
    token = Path.home() / ".ray" / "auth_token"
    if not token.exists() or token.stat().st_uid != os.getuid():
        pytest.skip("Ray's token is elsewhere")
    assert token.stat().st_mode & 0o077 == 0


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)
