"""The state of checkpoints and devices at the moment of a decision. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from models.checkpoints.catalogue import Checkpoint
from service.domain.ensemble import Ensemble


class Snapshot(NamedTuple):
    """How long a checkpoint takes for one picture, and what it has to do now."""

    forward_s: tuple[float, ...]
    """The 95th percentile of a forward pass by batch size; [0] is unused, and the last is the largest batch."""
    decode_s: float
    """Decoding the picture."""
    footprint_bytes: int
    device: str = ""
    """Checkpoints on one device take turns."""
    ahead: int = 0
    """Pictures that wait or are being decoded and have an earlier deadline than the one that is decided on."""
    queued: int = 0
    """All pictures that wait or are being decoded."""
    max_queue: int = 512
    load_s: float = 0.0
    """Until the checkpoint is in memory, including the loads before its own; 0 if it is in memory."""
    spread: float = 1.0
    """The 95th percentile of a forward pass over its mean."""
    profiled_decode_s: float = 0.0
    """Decoding the picture by the profile alone, without what was learned since; 0 if it was not measured."""
    profiled_forward_s: float = 0.0
    """The 95th percentile of a forward pass of one picture by the profile alone; 0 if there is no profile."""
    fits: bool = True
    """Whether the device's memory limit has room for it once everything else is unloaded."""

    @property
    def alone_s(self) -> float:
        """The time for one picture by the profile alone, with empty queues and the network in memory, whatever the
        load; 0 if nothing was measured."""
        return self.profiled_decode_s + self.profiled_forward_s

    @property
    def per_picture_s(self) -> float:
        """The mean device time of a picture in the largest batch."""
        return self.mean_s(len(self.forward_s) - 1) / (len(self.forward_s) - 1)

    def batches_s(self, pictures: int) -> float:
        """The mean device time of this many pictures, in batches as large as possible."""
        largest = len(self.forward_s) - 1
        full, rest = divmod(pictures, largest)
        return full * self.mean_s(largest) + self.mean_s(rest)

    @property
    def takes_s(self) -> float:
        """How many seconds one more picture delays the pictures behind it."""
        shared = self.ahead % (len(self.forward_s) - 1)
        return (self.forward_s[shared + 1] - self.forward_s[shared]) / self.spread

    def mean_s(self, batch_size: int) -> float:
        """The mean of a forward pass, which counts where many follow each other."""
        return self.forward_s[batch_size] / self.spread


class Candidate(NamedTuple):
    """A checkpoint or an ensemble that may answer with the label set that is asked for."""

    checkpoint: Checkpoint | Ensemble
    snapshot: Snapshot | None
    """None where nothing is known of it, or nothing serves it."""
    safety: float = 1.0
    """The factor by which its predictions are multiplied before they are compared with a budget."""
    trial: bool = False
    """Whether a picture may be admitted on trial, although predictions that were not tested of late refuse it."""
    members: tuple[tuple[Checkpoint, Snapshot], ...] = ()
    """Only for an ensemble: what each member takes; ``snapshot`` is then of all together."""


class LastChoice(NamedTuple):
    """The checkpoint that answered a budget last, and what was too slow for it."""

    name: str
    refused_s: Mapping[str, float] = MappingProxyType({})
    """By model: the predicted time at which each was last refused because of the load."""


class DeviceLoad(NamedTuple):
    """The work that the devices have now."""

    busy: Mapping[str, float] = MappingProxyType({})
    """Seconds until each device finishes the batch that it computes."""
    waiting: Sequence[Snapshot] = ()
    """Every checkpoint that has a queue, of any label set. A candidate with a queue is here as the same object."""
    slack_s: Mapping[str, float] = MappingProxyType({})
    """How many seconds the admitted pictures with later deadlines may be delayed, by device."""
    used_s: Mapping[str, float] = MappingProxyType({})
    """How many seconds each device has computed since it was first used, whoever asked; a device may be missing."""
    price: Mapping[str, float] = MappingProxyType({})
    """Points of top-1 accuracy that the device time of the largest network costs now, by device; none: 0."""
    last: LastChoice | None = None
    """What answered such a budget a moment ago."""
