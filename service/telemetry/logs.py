"""Log lines: text for people, or JSON for log collectors. The access log, one line a request, is always JSON.

They go to standard error; Ray carries it from every replica to the console of ``topfive serve``.
"""

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
    """Sends our own loggers to standard error, as ``text`` or ``json``. Loggers of other libraries do not change."""
    # Not ``sys.stderr``: in a replica Serve replaces it by a stream that ends in Serve's own log, at a lower level.
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
    """Logs that a file in the cache is not a usable checkpoint."""
    log.warning("%s is left out: %s", path, why)


def log_access(
    request: Request, response: Response, outcome: Outcome, pictures: int, took_s: float, trace_id: str | None = None
) -> None:
    """Logs one request: its identifiers, its outcome, and where its time went."""
    fields = {
        # Serve gives every request an id and returns it to the client; another server may not.
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
    """The phases of a single picture in milliseconds, from the header that the caller gets."""
    phases = (part.split(";dur=") for part in response.headers.get("server-timing", "").split(", ") if part)
    return {name: float(milliseconds) for name, milliseconds in phases}


class _Json(logging.Formatter):
    """Formats a record as one line of JSON, its traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        # UTC with milliseconds, so that lines of several machines can be sorted.
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
