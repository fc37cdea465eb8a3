"""Our log lines to standard error, which Ray carries from every replica to the console of ``topfive serve``."""

from __future__ import annotations

import logging
import sys

_OURS = ("service", "models", "topfive")


def configure_logging() -> None:
    """Sends our own loggers to standard error; other libraries' are left as they are."""
    # The process's own: in a replica Serve puts a stream in its place that ends in Serve's log, at a level below ours.
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]
        logger.propagate = False
