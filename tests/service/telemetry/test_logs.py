"""Log lines as text and as JSON, and the access log."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.config.settings import Settings
from service.telemetry.logs import configure_logging, log_left_out
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
    # Nothing is logged a second time, as text.
    assert "INFO topfive.access" not in lines.getvalue()
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
    assert len(lines.getvalue().splitlines()) == 2
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "service.somewhere", "second\nline")
    assert "ValueError: broken" in line["traceback"]


@pytest.mark.parametrize("name", ["service", "models", "topfive"])
def test_all_of_our_loggers_write_from_info_on(lines: io.StringIO, name: str) -> None:
    configure_logging("json")
    configure_logging("json")  # twice is as good as once
    log = logging.getLogger(f"{name}.somewhere")
    log.debug("unseen")
    log.info("seen")
    assert [json.loads(line)["message"] for line in lines.getvalue().splitlines()] == ["seen"]


def test_times_are_utc_with_milliseconds(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        configure_logging("json")
        record = logging.LogRecord("service", logging.INFO, __file__, 1, "a line", None, None)
        # 2001-09-09 01:46:40 UTC is a billion seconds after 1970.
        record.created, record.msecs = 1_000_000_000.042, 42.0
        logging.getLogger("service").handle(record)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert json.loads(lines.getvalue())["time"] == "2001-09-09T01:46:40.042Z"


def test_a_file_that_is_left_out_is_a_warning(lines: io.StringIO) -> None:
    configure_logging("text")
    log_left_out(Path("cache/x.safetensors"), "it has no card")
    (line,) = lines.getvalue().splitlines()
    assert line.endswith("WARNING service.telemetry.logs: cache/x.safetensors is left out: it has no card")
