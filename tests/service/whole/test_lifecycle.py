"""Starting, stopping, killing and restarting the real service. No process may be left over in any case."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.config.listening import addresses
from service.lifecycle.processes import of_run
from service.lifecycle.record import Record, base, running
from tests.clients import Callers
from tests.pictures import DIGIT, picture
from tests.running import Service, free_port
from tests.waiting import until

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]


Start = Callable[..., Service]


@pytest.fixture(scope="module")
def start(box_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts services, and ends them after the tests, whatever those did to them."""
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:

        def starter(*options: str, port: int | None = None) -> Service:
            service = Service(box_cache, *options, port=port, log=logs / f"{time.monotonic_ns()}.log")
            stack.callback(service.stop)
            service.wait_until_ready()
            return service

        yield starter


@pytest.fixture(scope="module")
def handed_on() -> list[Service]:
    """The service that the last test left in order for the next one, or none. A start takes a quarter of a minute, so
    every start that can be avoided counts."""
    return []


@pytest.fixture
def in_order(start: Start, handed_on: list[Service], local: Service) -> Service:
    """A service that was handed on, or the one of the session, which no test needs after this file."""
    if handed_on:
        return handed_on.pop()
    return local if local.process.poll() is None else start()


@pytest.fixture
def service(in_order: Service, handed_on: list[Service]) -> Iterator[Service]:
    """A service that a test may harm. A test that has a service in order at its end hands it on."""
    in_order.harmed = True
    yield in_order
    if in_order not in handed_on:
        in_order.stop()


def record(service: Service) -> Record:
    (found,) = [record for record in running() if record.port == service.port]
    return found


def named(service: Service, title: str) -> psutil.Process:
    """The process of a service whose command line contains this text."""
    for process in of_run(record(service).run):
        # Some of Ray's processes end at any moment.
        with suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                return process
    raise LookupError(title)


def post(url: str, model: str = "lenet5") -> int:
    """The status of a classification; 0 without an answer."""
    try:
        return httpx.post(f"{url}/classify?model={model}", content=DIGIT.read_bytes(), timeout=10).status_code
    except httpx.TransportError:
        return 0


def proxied(service: Service) -> set[str]:
    """All addresses to which the HAProxy of a service may send requests."""
    (config,) = (base() / str(service.port)).rglob("haproxy.cfg")
    return set(re.findall(r"^\s*server \S+ (unix@\S+|\S+:\d+)", config.read_text(), re.MULTILINE))


def test_two_services_side_by_side_and_status_knows_both(local: Service, cluster: Service) -> None:
    """The last test of ``cluster``, which it stops; ``local`` must not notice that."""
    assert (post(cluster.url), post(local.url)) == (200, 200)
    behind_cluster, behind_local = proxied(cluster), proxied(local)
    assert behind_cluster
    assert behind_local
    # Neither HAProxy sends requests to the other service, not even as a fallback.
    assert not behind_cluster & behind_local
    command = [sys.executable, "-m", "service.commands.main", "status"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert cluster.url in shown
    assert local.url in shown
    assert "ready" in shown
    assert "lenet5@mnist" in shown
    with Callers(f"{cluster.url}/classify?model=lenet5", DIGIT.read_bytes()) as callers:
        until(lambda: callers.outcomes["200"] > 20)
        assert cluster.stop() == 0
    assert set(callers.outcomes) == {"200", "503", "refused"}
    assert post(local.url) == 200
    # A third service on the same port is refused with one line.
    refused = subprocess.run(
        [sys.executable, "-m", "service.commands.main", "serve", "--port", str(local.port)],
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 1
    assert f"on port {local.port}" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_killed_supervisor_takes_everything_with_it(service: Service, start: Start, handed_on: list[Service]) -> None:
    run = record(service).run
    service.process.kill()
    until(lambda: of_run(run) == [])
    again = start(port=service.port)
    assert post(again.url) == 200
    handed_on.append(again)


@pytest.mark.slow
@pytest.mark.parametrize("title", ["service.cluster.driver", "gcs_server", "raylet/raylet"])
def test_the_death_of_a_process_that_ray_cannot_replace_ends_the_service(
    service: Service, start: Start, handed_on: list[Service], title: str
) -> None:
    """It ends with a message and an exit status, so that a process supervisor can start it again."""
    run = record(service).run
    named(service, title).kill()
    assert service.process.wait(60) == 1
    assert "has died" in service.log.read_text()
    assert of_run(run) == []
    again = start(port=service.port)
    assert post(again.url) == 200
    handed_on.append(again)


@pytest.mark.slow
def test_everything_killed_at_once_is_cleared_up_by_the_next_start(
    service: Service, start: Start, handed_on: list[Service]
) -> None:
    """Supervisor and driver die together, so that no process is left that could clean up."""
    run = record(service).run
    driver = named(service, "service.cluster.driver")
    service.process.send_signal(signal.SIGSTOP)
    driver.kill()
    service.process.kill()
    assert of_run(run) != []
    again = start(port=service.port)
    assert of_run(run) == []
    assert post(again.url) == 200
    handed_on.append(again)


def is_dead(process: psutil.Process) -> bool:
    """Whether it is a zombie or gone; it may disappear at any moment."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def lives(service: Service, title: str) -> bool:
    try:
        return not is_dead(named(service, title))
    except LookupError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("title", ["ray::ServeReplica", "haproxy -db", "ray::HAProxyManager", "ray::ServeController"])
def test_ray_replaces_a_process_that_dies(service: Service, handed_on: list[Service], title: str) -> None:
    victim = named(service, title)
    victim.kill()
    until(lambda: is_dead(victim))
    answers: list[int] = []
    until(lambda: answers.append(post(service.url)) or answers[-5:] == [200] * 5, within_s=100)
    until(lambda: lives(service, title), within_s=100)
    assert set(answers) <= {0, 200, 404, 503}, "a dead process must not look like a defect of the service"
    handed_on.append(service)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stop_answers_running_requests_and_leaves_nothing(in_order: Service, number: signal.Signals) -> None:
    """A slow request is in flight, most of whose pictures are decoded and batched after the signal. First /readyz
    changes, then the request is answered, then all processes end. Clients that go on meanwhile are answered, then
    turned away, then refused; /healthz still answers 200."""
    service = in_order
    run, url = record(service).run, f"{service.url}/classify?model=lenet5"
    # The first answers after a start, or after the death of a process, take longer; so the fastest counts.
    took_s = []
    for _ in range(3):
        began = time.monotonic()
        assert statuses(bulk(url, 8)) == [200] * 8
        took_s.append(time.monotonic() - began)
    # Enough pictures for two to three seconds on this machine: a stop waits for six.
    count = max(2, min(64, round(8 * 2.5 / min(took_s))))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(bulk, url, count)
        time.sleep(0.3)
        with Callers(url, DIGIT.read_bytes()) as callers:
            service.process.send_signal(number)
            until(lambda: httpx.get(f"{service.url}/readyz", timeout=5).status_code == 503)
            assert httpx.get(f"{service.url}/healthz", timeout=5).status_code == 200
            assert not slow.done(), "the request was too fast to prove anything"
            assert service.stop() == 0
    assert statuses(slow.result()) == [200] * count
    assert {"503", "refused"} <= set(callers.outcomes) <= {"200", "503", "refused"}
    assert of_run(run) == []
    assert "Traceback" not in service.log.read_text()


@pytest.mark.slow
def test_stops_under_load_reset_nobody(start: Start) -> None:
    """Several stops, since the fault that this guards against hits only a few connections of each."""
    for _ in range(3):
        service = start()
        with Callers(f"{service.url}/classify?model=lenet5", DIGIT.read_bytes()) as callers:
            until(lambda callers=callers: callers.outcomes["200"] > 200)
            assert service.stop() == 0
        assert set(callers.outcomes) == {"200", "503", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [1.0, 4.0, 7.0, 10.0])
def test_a_start_can_be_interrupted(box_cache: Path, tmp_path: Path, after_s: float) -> None:
    """At any stage: Ray, HAProxy and replicas start one after the other."""
    service = Service(box_cache, log=tmp_path / "log.txt")
    until(lambda: "starts" in service.log.read_text())
    run = record(service).run
    time.sleep(after_s)
    assert service.stop() == 0
    assert of_run(run) == []
    lines = service.log.read_text().splitlines()
    assert lines[-1] == "stopped"
    assert not [line for line in lines if "Traceback" in line or "***" in line or "SIGTERM" in line]


@pytest.mark.slow
@pytest.mark.parametrize("title", ["haproxy -db", "ray::ServeReplica", "ray::ServeController"])
def test_a_stop_works_although_a_process_has_died(start: Start, title: str) -> None:
    service = start()
    run = record(service).run
    service.harmed = True
    named(service, title).kill()
    assert service.stop() == 0
    assert of_run(run) == []


def own_address(family: socket.AddressFamily) -> str | None:
    """The address at which other machines reach this one; None if there is none. Nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(("2001:db8::1" if family == socket.AF_INET6 else "198.51.100.1", 9))
            return str(probe.getsockname()[0])
    except OSError:
        return next(
            (a.address for found in psutil.net_if_addrs().values() for a in found if is_own(a.address, family)), None
        )


def is_own(address: str, family: socket.AddressFamily) -> bool:
    loopback = address.startswith(("127.", "fe80", "::1"))
    return (":" in address) == (family == socket.AF_INET6) and not loopback and address.count(":") != 5


@pytest.mark.slow
@pytest.mark.parametrize("host", ["own IPv4", "own IPv6", "localhost", "::1", "::", "0.0.0.0"])
def test_every_host_of_this_machine_becomes_ready_and_answers(box_cache: Path, tmp_path: Path, host: str) -> None:
    if host.startswith("own"):
        found = own_address(socket.AF_INET6 if host.endswith("6") else socket.AF_INET)
        if found is None:
            pytest.skip("this machine has no such address")
        host = found
    service = Service(box_cache, "--host", host, log=tmp_path / "log.txt")
    try:
        if host == "::1" and "cannot be listened on" in service.log.read_text():
            pytest.skip("this machine has no IPv6")
        until(lambda: "Ctrl-C stops it" in service.log.read_text() or service.process.poll() is not None)
        found_url = record(service).url
        assert f"{found_url}/docs" in service.log.read_text()
        assert post(found_url) == 200
        assert status(service.port)["url"] == found_url
        assert status(service.port)["ready"]
        for job in ("topfive", "haproxy", "ray"):
            targets = httpx.get(f"{found_url}/metrics/targets?job={job}").json()
            assert targets
            for entry in targets:
                assert httpx.get(f"http://{entry['targets'][0]}/metrics").status_code == 200
        # It listens on no other address.
        listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.laddr.port == service.port and not c.raddr}
        assert listening == set(addresses(host))
    finally:
        assert service.stop() == 0


def status(port: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "service.commands.main", "status", "--json", "--port", str(port)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (service,) = json.loads(shown)["services"]
    return dict(service)


def bulk(url: str, count: int) -> httpx.Response:
    """One request with pictures that have few bytes and take long to decode."""
    picture_file = picture(side=4000)
    return httpx.post(url, files=[("image", (f"{i}.png", picture_file)) for i in range(count)], timeout=60)


def statuses(answer: httpx.Response) -> list[int]:
    return [entry["status"] for entry in answer.json()["results"]]


def test_another_program_on_the_port_is_named(tmp_path: Path) -> None:
    port = free_port()
    stranger = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: any(c.laddr.port == port for c in psutil.Process(stranger.pid).net_connections()))
        refused = subprocess.run(
            [sys.executable, "-m", "service.commands.main", "serve", "--port", str(port)],
            capture_output=True,
            text=True,
        )
    finally:
        stranger.kill()
        stranger.wait()
    assert refused.returncode == 1
    assert f"port {port} is held by" in refused.stderr
    assert f"(pid {stranger.pid})" in refused.stderr
