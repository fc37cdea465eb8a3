"""The real service with seeded random weights: every network answers, and says that it is untrained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.networks.variants import VARIANTS
from tests.pictures import DIGIT, photo
from tests.running import Service, uvicorn_service

#: Of the largest networks only VGG-16: the others would take minutes and gigabytes more, and tests/models/onnx/
#: test_export.py compares their graphs with torch.
NAMES = [name for name, variant in VARIANTS.items() if variant.params < 80_000_000 or name == "vgg16"]

pytestmark = [pytest.mark.slow, pytest.mark.service, pytest.mark.timeout(480)]


@pytest.fixture(scope="module")
def client(untrained_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("served")
    fleet = folder / "served.toml"
    fleet.write_text(f"[[deployment]]\nvariants = {json.dumps(NAMES)}\n")
    service = Service(untrained_cache, "--untrained", "--fleet", str(fleet), log=folder / "log.txt")
    try:
        # First a process of its own exports the graph of each network.
        service.wait_until_ready(within_s=400)
        with httpx.Client(base_url=service.url, timeout=120) as client:
            yield client
    finally:
        assert service.stop() == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_network_answers_and_says_untrained(client: httpx.Client, name: str) -> None:
    content = DIGIT.read_bytes() if name == "lenet5" else photo()
    answer = client.post(f"/classify?model={name}", content=content)
    assert answer.status_code == 200
    body = answer.json()
    assert len(body["top5"]) == 5
    assert body["checkpoint"]["name"] == f"{name}@untrained"
    assert body["checkpoint"]["trained"] is False


def test_the_router_uses_published_accuracies_of_untrained_networks(client: httpx.Client) -> None:
    body = client.post("/classify", content=photo()).json()
    assert (body["model"], body["checkpoint"]["trained"]) == ("inception_v3", False)


def test_two_services_give_the_same_random_answer(client: httpx.Client, tmp_path: Path) -> None:
    """The weights depend only on a seed, so all services agree."""
    ours = client.post("/classify?model=lenet5", content=DIGIT.read_bytes()).json()["top5"]
    with uvicorn_service(tmp_path, "lenet5", untrained=True) as url:
        theirs = httpx.post(f"{url}/classify?model=lenet5", content=DIGIT.read_bytes(), timeout=60).json()["top5"]
    assert [label["index"] for label in ours] == [label["index"] for label in theirs]
