"""Our log lines to standard error, which Ray carries from every replica to the console of ``topfive serve``: as text
for people, or as JSON for what collects them. The line of a request is always JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import Request, Response

from service.domain.outcome import Outcome

_OURS = ("service", "models", "topfive")
log = logging.getLogger(__name__)
access_log = logging.getLogger("topfive.access")


def configure_logging(log_format: str) -> None:
    """Sends our own loggers to standard error, as ``text`` or ``json``; other libraries' are left as they are."""
    # The process's own: in a replica Serve puts a stream in its place that ends in Serve's log, at a level below ours.
    handler = logging.StreamHandler(sys.__stderr__)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_Json() if log_format == "json" else text)
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]
        logger.propagate = False
    lines = logging.StreamHandler(sys.__stderr__)
    lines.setFormatter(_Json())
    access_log.handlers, access_log.propagate = [lines], False


def log_left_out(path: Path, why: str) -> None:
    """One line for a file in the cache that counts as no checkpoint."""
    log.warning("%s is left out: %s", path, why)


def log_access(
    request: Request, response: Response, outcome: Outcome, pictures: int, took_s: float, trace_id: str | None = None
) -> None:
    """One line a request: what its trace is looked up by, what became of it, and where its time went."""
    fields = {
        # Serve gives every request one, and answers with it; another server may not.
        "request_id": request.headers.get("x-request-id") or uuid4().hex,
        **({} if trace_id is None else {"trace_id": trace_id}),
        "method": request.method,
        "path": request.url.path,
        "status": response.status_code,
        "reason": outcome.reason,
        "model": outcome.model,
        "pictures": pictures,
        "timings_ms": {**_phases(response), "total": round(took_s * 1000, 3)},
    }
    access_log.info("%s %d", request.url.path, response.status_code, extra={"fields": fields})


def _phases(response: Response) -> dict[str, float]:
    """Of a lone picture, as the caller reads them."""
    phases = (part.split(";dur=") for part in response.headers.get("server-timing", "").split(", ") if part)
    return {name: float(milliseconds) for name, milliseconds in phases}


class _Json(logging.Formatter):
    """A line is a JSON object; a traceback is one of its strings."""

    def format(self, record: logging.LogRecord) -> str:
        # UTC with milliseconds, by which lines of several machines sort.
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
