"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path, *, mode: int = 0o644, durable: bool = False) -> Iterator[Path]:
    """Yields the path of an empty temporary file, which replaces ``path`` when the block ends without an error.

    Until then readers see the older file. If the block raises, the older file stays and the temporary one is removed;
    a process that is killed leaves it behind, hidden beside ``path`` as ``.NAME.RANDOM.part``.

    Args:
        path: the file to write; its folder exists.
        mode: the permissions of the new file.
        durable: waits until the content is on the disk, so that ``path`` is whole after a power cut too.

    Raises:
        OSError: the folder cannot be written to, or ``path`` is a folder.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        if durable:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
