"""The checkpoints of this machine and where their weights are: the manifest, the box and the local cache.

``weights/manifest.toml`` lists the checkpoints that the project knows: those in the box (``file``) and the public ones
(``url``). ``topfive import`` puts weights into the cache, each file with its card in its header; a file in the cache
replaces the one in the box. No torch is imported.
"""

from __future__ import annotations

import json
import math
import os
import struct
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import platformdirs

from models.checkpoints.accuracies import NAME, Accuracy, Counting, read_accuracies
from models.checkpoints.cards import CardError, parse_card
from models.checkpoints.labels import LABEL_SETS
from models.checkpoints.manifest import ManifestRow, manifest
from models.images.preprocess import PRESETS, Preprocess
from models.networks.memory import Costs
from models.networks.variants import VARIANTS, UnknownModelError, Variant, find_variant

State = Literal["loadable", "weights missing"]
_NONE: Mapping[str, Any] = MappingProxyType({})
#: How often a service looks at the cache's folder, in seconds. Each look releases the interpreter's lock, and getting
#: it back from busy threads costs more than the look.
LOOK_EVERY_S = 1.0
#: In bytes; the networks' are 2 to 60 KB. All headers in the cache are read at each start.
_LONGEST_HEADER = 10_000_000


class WeightsMissingError(FileNotFoundError):
    """The checkpoint is known, but its weights are not on this machine; the text says how to get them."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(f"{checkpoint.name} has no weights on this machine: {checkpoint.mend}")
        self.checkpoint = checkpoint

    def __str__(self) -> str:  # FileNotFoundError would print an errno
        return str(self.args[0])


class WrongWeightsError(ValueError):
    """The weight file is damaged, of an unknown format, or holds another network; the text says which in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights for a variant on one label set, whether they are on this machine or not."""

    variant: Variant
    labels: str
    origin: str
    preprocess: Preprocess
    top1: float | None
    top5: float | None
    accuracy_source: str = ""
    recipe: str = ""
    """Data, recipe and seed, if ``topfive train`` made it."""
    trained: bool = True
    path: Path | None = None
    """Where the weights are; None if they are missing, or random."""
    modified_ns: int | None = None
    """When the file was put into the cache, since other weights may have the same card. It is the inode's change time,
    which is new even for a copy that keeps an old modification time."""
    url: str | None = None
    download_bytes: int | None = None
    """Size of the file at ``url``."""
    network: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    own_costs: Costs | None = None
    """Costs that were counted for this very checkpoint, if they were."""
    name: str = field(init=False, repr=False, compare=False)
    """``googlenet@imagenet1k``, or ``googlenet@untrained``."""

    def __post_init__(self) -> None:
        # Put together once: it is asked for some hundred times at each decision.
        object.__setattr__(self, "name", f"{self.variant.name}@{self.labels if self.trained else 'untrained'}")

    @property
    def costs(self) -> Costs:
        """Costs with this checkpoint's classes and pictures; the costs of the variant if they were not counted."""
        return self.own_costs or self.variant.costs

    @property
    def model(self) -> str:
        """Its name in answers: the name of the variant."""
        return self.variant.name

    def same_weights(self, other: Checkpoint) -> bool:
        """Whether another is the same file, if with another accuracy: it may have been measured meanwhile."""
        if self is other:
            return True
        rated = replace(other, top1=self.top1, top5=self.top5, accuracy_source=self.accuracy_source)
        return self == rated

    @property
    def state(self) -> State:
        return "loadable" if self.path is not None or not self.trained else "weights missing"

    @property
    def mend(self) -> str:
        """How to get missing weights."""
        name = self.variant.name
        if self.url is None or self.download_bytes is None:
            return f"no public weights are known; import your own with: topfive import {name} FILE"
        size = f"{self.download_bytes / 1e6:.0f} MB"
        return f"topfive pull {name} (fetches {size}), or offline: topfive import {name} FILE"


class Catalogue:
    """The checkpoints of this machine. Not thread-safe.

    Args:
        cache_directory: where imported weights are; ``cache_dir()`` by default.
        untrained: every variant has random weights of a fixed seed instead, regardless of which checkpoints exist.
        variants: those that a service hosts; all by default.
        left_out: is called with each file in the cache that cannot be used and the reason, once for each content.
        look_every_s: for how long a look at the cache's folder counts. By default every call looks, so that an import
            counts at once; a service gives ``LOOK_EVERY_S``.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        cache_directory: Path | None = None,
        *,
        untrained: bool = False,
        variants: Collection[str] | None = None,
        left_out: Callable[[Path, str], None] = lambda _path, _why: None,
        look_every_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cache_dir = cache_directory or cache_dir()
        self.untrained = untrained
        self._variants = VARIANTS.keys() if variants is None else frozenset(variants)
        self._left_out = left_out
        self._look_every_s = look_every_s
        self._clock = clock
        self._look_at = -math.inf
        self._changed_at = -1
        self._rows: list[Checkpoint] = []
        self._cards: dict[Path, tuple[object, Checkpoint | None]] = {}
        self._found: dict[tuple[str, str | None], Checkpoint] = {}
        self._counting = Counting()
        self._measured: list[Accuracy] = []
        self._together: list[tuple[tuple[Checkpoint, ...], Accuracy]] = []

    def checkpoints(self) -> list[Checkpoint]:
        """One row for each checkpoint that is known or in the cache, and one for each variant without any."""
        if self._look_every_s:
            now = self._clock()
            if now < self._look_at:
                return self._rows
            self._look_at = now + self._look_every_s
        # A file comes by rename, which changes the time of the folder: one stat tells whether to read it again.
        try:
            changed_at = (self.cache_dir / "checkpoints").stat().st_mtime_ns
        except FileNotFoundError:
            changed_at = 0
        if changed_at != self._changed_at:
            # A folder's time moves in ticks (of milliseconds on some systems), and a second change may come within
            # the same tick: a recent time does not prove that nothing has changed since.
            fresh = abs(time.time_ns() - changed_at) < 1_000_000_000
            rows = [row for row in self._read() if row.variant.name in self._variants]
            if rows != self._rows:
                # Rows that have not changed stay the same objects, so that callers can compare by identity.
                before = {row.name: row for row in self._rows}
                self._rows = [before[row.name] if before.get(row.name) == row else row for row in rows]
                self._found.clear()
            self._together = self._measured_together()
            self._changed_at = -1 if fresh else changed_at
        return self._rows

    def together(self) -> list[tuple[tuple[Checkpoint, ...], Accuracy]]:
        """The ensembles whose accuracy was measured here, each with its members, which are loadable."""
        self.checkpoints()
        return self._together

    def _measured_together(self) -> list[tuple[tuple[Checkpoint, ...], Accuracy]]:
        rows = {row.name: row for row in self._rows}
        several = [a for a in self._measured if len(a.members) > 1 and a.names <= rows.keys()]
        return [(tuple(rows[member.name] for member in accuracy.members), accuracy) for accuracy in several]

    def _rated(self, rows: list[Checkpoint]) -> list[Checkpoint]:
        """The checkpoints with the accuracies that were measured here with the same weights."""
        paths = {row.name: row.path for row in rows}
        found = read_accuracies(self.accuracies_path, self._left_out)
        self._measured = [accuracy for accuracy in found if self._counting.counts(accuracy, paths)]
        alone = {accuracy.members[0].name: accuracy for accuracy in self._measured if len(accuracy.members) == 1}
        return [
            replace(row, top1=own.top1, top5=own.top5, accuracy_source=own.source) if own is not None else row
            for row, own in ((row, alone.get(row.name)) for row in rows)
        ]

    @property
    def accuracies_path(self) -> Path:
        """The file of accuracies that were measured here."""
        return self.cache_dir / "checkpoints" / NAME

    def _read(self) -> list[Checkpoint]:
        if self.untrained:
            return [_untrained(variant) for variant in VARIANTS.values()]
        found: dict[tuple[str, str], Checkpoint] = {}
        for row in manifest():
            if row.variant in VARIANTS:
                found.setdefault((row.variant, row.labels), _from_manifest(row))
        cards = {path: self._card(path) for path in sorted(self.cache_dir.glob("checkpoints/*@*.safetensors"))}
        self._cards = cards
        for _, checkpoint in cards.values():
            if checkpoint is not None:
                found[checkpoint.variant.name, checkpoint.labels] = checkpoint
        with_rows = {variant for variant, _ in found}
        for variant in VARIANTS.values():
            if variant.name not in with_rows:
                found[variant.name, variant.labels] = _without_weights(variant)
        order = {name: i for i, name in enumerate(VARIANTS)}
        rows = sorted(found.values(), key=lambda c: (order[c.variant.name], LABEL_SETS.index(c.labels)))
        return self._rated(rows)

    def _card(self, path: Path) -> tuple[object, Checkpoint | None]:
        """What identifies the content of a file in the cache, and its checkpoint; known content is not read again."""
        try:
            status = path.stat()
        except OSError:
            return None, None
        content = status.st_ino, status.st_size, status.st_ctime_ns
        known = self._cards.get(path)
        if known is not None and known[0] == content:
            return known
        why, checkpoint = "it has no card; topfive import gives it one", None
        try:
            checkpoint = checked_card(path)
        except CardError as error:
            why = str(error)
        if checkpoint is not None and path != self.path_for(checkpoint.variant, checkpoint.labels):
            why, checkpoint = f"its card is that of {checkpoint.name}", None
        if checkpoint is None:
            self._left_out(path, why)
        return content, checkpoint

    def find(
        self, model: str, labels: str | None = None, serves: Callable[[Checkpoint], bool] | None = None
    ) -> Checkpoint:
        """The checkpoint that ``model`` names.

        Without a label set, it is the first one loadable of imagenet1k, cifar10 and mnist; if none is loadable, the
        first one known.

        Args:
            model: a variant, an alias, or ``variant@label_set``.
            labels: the label set, if ``model`` does not name one.
            serves: tells whether a loadable checkpoint can be served; those that can come first.

        Raises:
            UnknownModelError: no such variant, or it has no checkpoint for that label set.
        """
        rows = self.checkpoints()
        known = self._found.get((model, labels))
        if known is None:
            known = self._found[model, labels] = self._find(rows, model, labels)
        # The first of those that are loadable is the first of those that can be served too, if it can.
        if serves is None or (known.state == "loadable" and serves(known)):
            return known
        return self._find(rows, model, labels, serves)

    def _find(
        self,
        rows: list[Checkpoint],
        model: str,
        labels: str | None,
        serves: Callable[[Checkpoint], bool] = lambda _checkpoint: True,
    ) -> Checkpoint:
        name, _, at = model.partition("@")
        variant = find_variant(name)
        if variant.name not in self._variants:
            raise UnknownModelError(model, self._variants)
        if at and labels and at != labels:
            raise UnknownModelError(f"{model} with labels={labels}")
        wanted = at or labels
        rows = [c for c in rows if c.variant == variant]
        if wanted and not (wanted == "untrained" and self.untrained):
            rows = [c for c in rows if c.labels == wanted]
        if not rows:
            raise UnknownModelError(f"{variant.name}@{wanted}")

        # A checkpoint that cannot be served now may be in a moment; missing weights have to be fetched first.
        def rank(row: Checkpoint) -> tuple[bool, bool, int]:
            there = row.state == "loadable"
            return not there, there and not serves(row), LABEL_SETS.index(row.labels)

        return min(rows, key=rank)

    def path_for(self, variant: Variant, labels: str) -> Path:
        """Where the weights of a checkpoint are stored."""
        return self.cache_dir / "checkpoints" / f"{variant.name}@{labels}.safetensors"


def cache_dir() -> Path:
    """``TOPFIVE_CACHE_DIR``, or the user's cache folder."""
    return Path(os.environ.get("TOPFIVE_CACHE_DIR") or platformdirs.user_cache_path("topfive"))


def card(checkpoint: Checkpoint) -> dict[str, str]:
    """The card of a checkpoint as safetensors metadata, which ``read_card`` reads."""
    fields = {
        "variant": checkpoint.variant.name,
        "labels": checkpoint.labels,
        "origin": checkpoint.origin,
        "top1": checkpoint.top1,
        "top5": checkpoint.top5,
        "accuracy_source": checkpoint.accuracy_source,
        "recipe": checkpoint.recipe,
        "preprocess": checkpoint.preprocess.to_json(),
        "network": dict(checkpoint.network),
        "costs": None if checkpoint.own_costs is None else asdict(checkpoint.own_costs),
    }
    return {"topfive": json.dumps(fields)}


def read_card(path: Path) -> Checkpoint | None:
    """The checkpoint that the card in a safetensors file describes; None if the file is damaged, or its card is missing
    or cannot be used."""
    try:
        return checked_card(path)
    except CardError:
        return None


def checked_card(path: Path) -> Checkpoint | None:
    """The checkpoint that the card in a safetensors file describes; None if the file has no card of this project.

    Raises:
        CardError: the file is damaged, or its card cannot be used.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            (length,) = struct.unpack("<Q", file.read(8))
            if length > status.st_size:
                raise CardError("it is not a complete safetensors file")
            if length > _LONGEST_HEADER:
                raise CardError(f"its header has {length:,} bytes; the limit is {_LONGEST_HEADER:,}")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        if "topfive" not in metadata:
            return None
        text = metadata["topfive"]
        size = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except OSError as error:
        raise CardError(f"it cannot be read: {error.strerror}") from error
    except (struct.error, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CardError("it is not a complete safetensors file") from error
    if size != status.st_size:
        raise CardError(f"it has {status.st_size:,} bytes, but {size:,} by its header")
    card = parse_card(text)
    return Checkpoint(
        variant=card.variant,
        labels=card.labels,
        origin=card.origin,
        preprocess=card.preprocess,
        top1=card.top1,
        top5=card.top5,
        accuracy_source=card.accuracy_source,
        recipe=card.recipe,
        network=card.network,
        own_costs=card.costs,
        path=path,
        modified_ns=status.st_ctime_ns,
    )


def _from_manifest(row: ManifestRow) -> Checkpoint:
    path = None
    if row.file is not None:
        path = Path(str(resources.files("weights") / row.file))
    return Checkpoint(
        variant=VARIANTS[row.variant],
        labels=row.labels,
        origin=row.origin,
        preprocess=PRESETS[row.preprocess],
        top1=row.top1,
        top5=row.top5,
        accuracy_source=row.accuracy_source,
        recipe=row.recipe,
        path=path if path is not None and path.is_file() else None,
        url=row.url,
        download_bytes=row.size if row.url is not None else None,
        network=row.network,
        own_costs=None if row.costs is None else Costs(**row.costs),
    )


def _without_weights(variant: Variant) -> Checkpoint:
    return Checkpoint(
        variant=variant,
        labels=variant.labels,
        origin="none",
        preprocess=PRESETS[variant.preprocess],
        top1=None,
        top5=None,
    )


def _untrained(variant: Variant) -> Checkpoint:
    top1, top5 = variant.published
    return Checkpoint(
        variant=variant,
        labels=variant.labels,
        origin="seeded random weights",
        preprocess=PRESETS[variant.preprocess],
        top1=top1,
        top5=top5,
        accuracy_source=f"stand-in: {variant.published_source}",
        trained=False,
    )
