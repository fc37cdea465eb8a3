"""The real Prometheus with the product's own configuration, against a service on this machine."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.running import free_port

FOLDER = Path(__file__).parent.parent / "service" / "observability"
#: Bounds on waits, not statements about speed.
_WITHIN_S = 60
T = TypeVar("T")


class Prometheus:
    """As much of its HTTP API as tests ask."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=30, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query: {"metric": labels, "value": [when, "number"]}."""
        answer = self._client.post("/query", data={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        data = answer["data"]
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def values(self, expression: str) -> dict[tuple[str, ...], float]:
        """By the labels' values, in the labels' order."""
        return {
            tuple(value for _, value in sorted(sample["metric"].items())): float(sample["value"][1])
            for sample in self.query(expression)
        }

    def rules(self) -> list[dict[str, Any]]:
        groups = self._client.get("/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def targets(self, job: str) -> dict[str, str]:
        """The health of each that is scraped, by its address."""
        active = self._client.get("/targets", params={"state": "active"}).json()["data"]["activeTargets"]
        return {t["labels"]["instance"]: t["health"] for t in active if t["labels"]["job"] == job}

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def prometheus(service_url: str, folder: Path) -> Iterator[Prometheus]:
    """Runs it in ``folder``; what the product's configuration calls ``topfive:8000`` is the service."""
    shutil.copytree(FOLDER / "rules", folder / "rules")
    config = (FOLDER / "prometheus.yml").read_text()
    port = free_port()
    written = config.replace("http://topfive:8000", service_url).replace("localhost:9090", f"127.0.0.1:{port}")
    assert service_url in written
    assert "evaluation_interval: 15s" in written
    written = written.replace("evaluation_interval: 15s", "evaluation_interval: 5s")  # or tests would wait for it
    (folder / "prometheus.yml").write_text(written)
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    found = Prometheus(f"http://127.0.0.1:{port}")
    try:
        assert eventually(found.ready), (folder / "prometheus.log").read_text()[-3000:]
        yield found
    finally:
        found.close()
        process.terminate()
        process.wait(_WITHIN_S)


def eventually(look: Callable[[], T], within_s: float = _WITHIN_S) -> T:
    """Looks again and again until there is something; the last look, whatever it saw, once the bound is over."""
    give_up = time.monotonic() + within_s
    while not (seen := look()) and time.monotonic() < give_up:
        time.sleep(0.25)
    return seen
