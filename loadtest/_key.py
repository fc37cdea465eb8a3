"""The key that a service with keys asks for. It is taken from the environment alone: options are seen in ``ps``."""

from __future__ import annotations

import os

VARIABLE = "TOPFIVE_API_KEY"


def authorization() -> str | None:
    """The value of the header ``Authorization``; None if there is no key."""
    key = os.environ.get(VARIABLE, "").strip()
    return f"Bearer {key}" if key else None
