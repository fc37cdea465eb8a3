"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name beside its own and renames it; an earlier file stays until then.

    Raises:
        OSError: it cannot be written; nothing is left beside an earlier file.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # Temporary files are their owner's alone; reports are for everybody.
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
