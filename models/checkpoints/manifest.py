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
    """One checkpoint that the project knows. If a variant has several for one label set, ``topfive pull`` gets the
    first."""

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
    """The whole digest, or its beginning, as in torchvision's file names."""
    bytes: int | None = None
    mib: float | None = None
    """The size that torchvision states, if no exact one is published."""
    recipe: str = ""
    costs: Mapping[str, int] | None = None
    """Costs, if the checkpoint's classes or pictures are not the variant's own."""
    network: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    """Arguments of the network that these weights were trained with, such as the constants of its LRN."""

    @property
    def size(self) -> int:
        """Bytes of the file; rounded if no exact figure is published."""
        return self.bytes if self.bytes is not None else round((self.mib or 0) * 2**20)


@cache
def manifest() -> tuple[ManifestRow, ...]:
    """The rows of ``weights/manifest.toml``, in its order."""
    text = (resources.files("weights") / "manifest.toml").read_text(encoding="utf-8")
    return tuple(ManifestRow(**row) for row in tomllib.loads(text)["checkpoint"])


def known_file(variant: Variant, path: Path) -> ManifestRow | None:
    """The manifest's row for this very file, found by its digest; None if the project does not know the file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    for row in manifest():
        if row.variant == variant.name and row.sha256 and digest.startswith(row.sha256):
            return row
    return None
