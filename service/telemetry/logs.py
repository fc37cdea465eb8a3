"""Log lines: text for people, or JSON for log collectors. The access log, one line a request, is always JSON.

They go to standard error; Ray carries it from every replica to the console of ``topfive serve``.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

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


class Access(NamedTuple):
    """One request, for the access log."""

    request_id: str | None
    method: str
    path: str
    status: int
    server_timing: str
    """The header of that name: the phases of a single picture; empty for other answers."""
    outcome: Outcome
    pictures: int
    took_s: float
    trace_id: str | None = None
    key: str | None = None
    """The name of the caller's key, never the key."""


def log_access(access: Access) -> None:
    """Logs one request: its identifiers, its outcome, and where its time went."""
    fields = {
        # Serve gives every request an id and returns it to the client; another server may not.
        "request_id": access.request_id or uuid4().hex,
        **({} if access.trace_id is None else {"trace_id": access.trace_id}),
        **({} if access.key is None else {"key": access.key}),
        "method": access.method,
        "path": access.path,
        "status": access.status,
        "reason": access.outcome.reason,
        "model": access.outcome.model,
        "pictures": access.pictures,
        "timings_ms": {**_phases(access.server_timing), "total": round(access.took_s * 1000, 3)},
    }
    access_log.info("%s %d", access.path, access.status, extra={"fields": fields})


def _phases(server_timing: str) -> dict[str, float]:
    """The phases of a single picture in milliseconds, from the header that the caller gets."""
    phases = (part.split(";dur=") for part in server_timing.split(", ") if part)
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
