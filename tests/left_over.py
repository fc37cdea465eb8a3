"""What this process holds: open files, and memory for crops that is mapped."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_files() -> int:
    """How many descriptors are open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def mappings() -> int:
    """How many mappings of memory for crops there are, of fronts and of owners."""
    return Path("/proc/self/maps").read_text().count("topfive-crops")


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fails if more files are open after the block than before it, or more memory is mapped."""
    files, maps = open_files(), mappings()
    yield
    if open_files() > files or mappings() > maps:
        gc.collect()
    assert open_files() <= files, "files are left open"
    assert mappings() <= maps, "memory for crops is left mapped"
