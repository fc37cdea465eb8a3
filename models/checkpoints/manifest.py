"""The checkpoints that the project knows: the rows of ``weights/manifest.toml``."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.networks.variants import Variant

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One checkpoint that the project knows. A variant may have several for one label set; the first is the one
    to get."""

    variant: str
    labels: str
    origin: str
    preprocess: str
    top1: float | None = None
    top5: float | None = None
    accuracy_source: str = ""
    file: str | None = None
    url: str | None = None
    sha256: str = ""
    """The whole digest, or the prefix that torchvision puts into its file names."""
    bytes: int | None = None
    mib: float | None = None
    """The size as torchvision states it, where no exact one is published."""
    recipe: str = ""
    costs: Mapping[str, int] | None = None
    """Where the checkpoint's classes or pictures are not the variant's own."""
    network: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    """Arguments of the network that these weights were trained with, such as the constants of its LRN."""

    @property
    def size(self) -> int:
        """Bytes of the file, exact where an exact figure is published."""
        return self.bytes if self.bytes is not None else round((self.mib or 0) * 2**20)


@cache
def manifest() -> tuple[ManifestRow, ...]:
    """The rows of ``weights/manifest.toml``, in its order."""
    text = (resources.files("weights") / "manifest.toml").read_text(encoding="utf-8")
    return tuple(ManifestRow(**row) for row in tomllib.loads(text)["checkpoint"])


def known_file(variant: Variant, path: Path) -> ManifestRow | None:
    """The row of the manifest for this very file, told by its digest; None for a file that the project does not
    know."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    for row in manifest():
        if row.variant == variant.name and row.sha256 and digest.startswith(row.sha256):
            return row
    return None
