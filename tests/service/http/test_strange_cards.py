"""Cards that strangers wrote: whatever they say, the service starts, and no request is answered with 500."""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoints.catalogue import Catalogue, card
from service.config.settings import Settings
from service.domain.prediction import Limits
from service.engines.fake import FakeEngine
from service.http.app import create_app
from service.runtime.placement import LocalPlacement
from tests.cards import checkpoint
from tests.pictures import picture
from tests.profiles import Measured

CARD: dict[str, Any] = json.loads(card(checkpoint("googlenet", "cifar10"))["topfive"])
#: Where a card may be wrong: its fields, and the fields of those.
PLACES = [(name,) for name in CARD] + [("preprocess", name) for name in CARD["preprocess"]]
PLACES += [("network", "as_graph"), ("network", "lrn"), ("costs", "params"), ("x",), ("preprocess", "x")]
numbers = st.one_of(
    st.integers(-3, 3000), st.floats(), st.sampled_from([10**15, 10**16, 2**63, -1e400, 1e-320, float("nan")])
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=30), st.sampled_from(["googlenet", "mnist", "99"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["size", "k", "params", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def changed(changes: list[tuple[tuple[str, ...], Any]]) -> str:
    """The card with other values at some places, as JSON that may hold NaN and infinity."""
    document = json.loads(json.dumps(CARD))
    for place, value in changes:
        inner = document
        for name in place[:-1]:
            inner = inner[name] if isinstance(inner.get(name), dict) else inner.setdefault(f"{name} ", {})
        inner[place[-1]] = value
    return json.dumps(document)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(PLACES), values), min_size=1, max_size=3))
async def test_no_card_stops_the_service_or_a_request(changes: list[tuple[tuple[str, ...], Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await serve_with(Path(folder), changed(changes))


async def serve_with(folder: Path, text: str) -> None:
    header = json.dumps({"__metadata__": {"topfive": text}}).encode()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "googlenet@cifar10.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    told: list[str] = []
    catalogue = Catalogue(folder, left_out=lambda _path, why: told.append(why))
    placement = LocalPlacement(
        lambda one: FakeEngine(one, 0.0), Limits(), profiles=Measured(), memory_limit_bytes=sys.maxsize
    )
    app = create_app(catalogue, placement, Settings(cache_dir=folder))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for method, path in (
            ("GET", "/models"),
            ("GET", "/models/googlenet"),
            ("GET", "/models/googlenet@cifar10"),
            ("POST", "/route"),
            ("POST", "/route?min_top1=50"),
            ("POST", "/classify"),
            ("POST", "/classify?latency_ms=20000"),
            ("POST", "/classify?memory_mb=5000&min_top1=10"),
            ("POST", "/classify?model=googlenet"),
            ("GET", "/metrics"),
        ):
            sent = {"content": picture(side=40)} if path.startswith("/classify") else {}
            answer = await client.request(method, path, **sent)
            assert answer.status_code < 500 or answer.status_code in (503, 504), (path, answer.text)
            if "json" in answer.headers["content-type"]:
                json.loads(answer.text, parse_constant=no_number)
    await placement.close()
    # The box's own checkpoint answers in the place of one whose card is left out, which is told once.
    assert len(told) <= 1
    assert all(line.isprintable() and len(line) < 400 for line in told)


def no_number(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


async def test_cards_of_both_kinds_are_met(tmp_path: Path) -> None:
    """Else the property would be one of nothing."""
    good, bad = (changed([(("top1",), value)]) for value in (50.0, "50"))
    for name, text in (("good", good), ("bad", bad)):
        (tmp_path / name).mkdir()
        await serve_with(tmp_path / name, text)
