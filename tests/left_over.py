"""What this process holds: open files, memory for crops that is mapped, and errors that nobody has seen."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def open_files() -> int:
    """How many descriptors are open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def mappings() -> int:
    """How many mappings of memory for crops there are, of fronts and of owners."""
    return Path("/proc/self/maps").read_text().count("topfive-crops")


@contextmanager
def nothing_left(caplog: pytest.LogCaptureFixture | None = None) -> Iterator[None]:
    """Fails if more files are open after the block than before it, or more memory is mapped.

    Args:
        caplog: is cleared at the end: the exceptions in it refer to what they happened to.
    """
    files, maps = open_files(), mappings()
    yield
    if caplog is not None:
        caplog.clear()
        for when in ("setup", "call", "teardown"):
            caplog.get_records(when).clear()
    if open_files() > files or mappings() > maps:
        gc.collect()
    assert open_files() <= files, "files are left open"
    assert mappings() <= maps, "memory for crops is left mapped"


@contextmanager
def no_loop_errors() -> Iterator[None]:
    """Fails if anything reaches the event loop's own handler of exceptions."""
    found: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: found.append(context))
    yield
    loop.set_exception_handler(None)
    assert found == []
