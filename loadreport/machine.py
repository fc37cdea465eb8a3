"""What generated the load."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version


def generator() -> dict[str, str]:
    """This machine's kind, without its name, and the versions that matter."""
    try:
        locust = version("locust")
    except PackageNotFoundError:
        locust = "none"
    return {"locust": locust, "python": platform.python_version(), "cores": str(len(os.sched_getaffinity(0)))}
