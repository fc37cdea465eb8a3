"""Log lines as text and as JSON, and the access log."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.config.settings import Settings
from service.telemetry.logs import configure_logging
from tests.fakes import Fakes
from tests.pictures import picture


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The stream that is logged to. Restores the loggers afterwards."""
    names = ("service", "models", "topfive", "topfive.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    stream = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", stream)
    yield stream
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


async def access_lines(lines: io.StringIO, tmp_path: Path, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    configure_logging("text")
    fakes = Fakes(tmp_path)
    fakes.settings = Settings(cache_dir=tmp_path, access_log=True)
    async with fakes.client() as client:
        for request in requests:
            await client.post(**request)
    return [json.loads(line) for line in lines.getvalue().splitlines() if line.startswith("{")]


async def test_a_request_is_one_line_of_json(lines: io.StringIO, tmp_path: Path) -> None:
    (line,) = await access_lines(
        lines,
        tmp_path,
        {"url": "/classify?model=lenet5", "content": picture(), "headers": {"X-Request-ID": "abc"}},
    )
    timings = line.pop("timings_ms")
    moment = line.pop("time")
    assert line == {
        "level": "INFO",
        "logger": "topfive.access",
        "message": "/classify 200",
        "request_id": "abc",
        "method": "POST",
        "path": "/classify",
        "status": 200,
        "reason": "ok",
        "model": "lenet5",
        "pictures": 1,
    }
    assert list(timings) == ["decode", "queue", "forward", "total"]
    assert timings["total"] >= timings["decode"] + timings["queue"] + timings["forward"]
    assert moment.endswith("Z")


async def test_the_line_of_a_request_says_what_went_wrong(lines: io.StringIO, tmp_path: Path) -> None:
    bad, unknown = await access_lines(
        lines,
        tmp_path,
        {"url": "/classify?model=lenet5", "content": b"junk\n{}"},
        {"url": "/classify?model=%22%7D%0A%7B", "content": picture()},
    )
    assert (bad["status"], bad["reason"], bad["model"], bad["pictures"]) == (422, "undecodable", "lenet5", 1)
    assert (unknown["status"], unknown["reason"], unknown["model"]) == (404, "unknown-model", "none")
    # Without a proxy that gives requests a name, they have one all the same.
    assert bad["request_id"] != unknown["request_id"]
    assert set(bad["timings_ms"]) == {"total"}


async def test_the_access_log_is_off_by_default(lines: io.StringIO, tmp_path: Path) -> None:
    configure_logging("text")
    async with Fakes(tmp_path).client() as client:
        await client.post("/classify?model=lenet5", content=picture())
    assert "classify" not in lines.getvalue()


def test_the_other_lines_are_text_or_json(lines: io.StringIO) -> None:
    log = logging.getLogger("service.somewhere")
    configure_logging("text")
    log.warning("first %d", 1)
    assert lines.getvalue().endswith("WARNING service.somewhere: first 1\n")
    configure_logging("json")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("second\nline")
    line = json.loads(lines.getvalue().splitlines()[-1])
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "service.somewhere", "second\nline")
    assert "ValueError: broken" in line["traceback"]
