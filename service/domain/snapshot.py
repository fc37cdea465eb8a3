"""The state of checkpoints and devices at the moment of a decision. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from models.checkpoints.catalogue import Checkpoint
from service.domain.ensemble import Ensemble


class Snapshot(NamedTuple):
    """How long a checkpoint, or an ensemble, takes for one picture, and what it has to do now."""

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
    members: tuple[Snapshot, ...] = ()
    """The members' snapshots, if this is for an ensemble; the other fields combine them."""

    @property
    def parts(self) -> tuple[Snapshot, ...]:
        """An ensemble's members, or this snapshot alone."""
        return self.members or (self,)

    @property
    def by_device(self) -> dict[str, list[Snapshot]]:
        """The parts by device: those of one device take turns."""
        return _by_device(self.parts)

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
        return self.batches_s(self.ahead + 1) - self.batches_s(self.ahead)

    def mean_s(self, batch_size: int) -> float:
        """The mean of a forward pass, which counts where many follow each other."""
        return self.forward_s[batch_size] / self.spread


def combined(members: Sequence[Snapshot]) -> Snapshot:
    """The snapshot of an ensemble.

    The members decode at the same time and compute in turn: on one device an ensemble takes the sum of their times, on
    several the time of the slowest device. Its footprint is the sum, although the members are loaded one after the
    other where there is no room for all at once.

    Args:
        members: at least one.
    """
    on_devices = _by_device(members).values()
    sizes = range(min(len(member.forward_s) for member in members))
    forward_s = tuple(max(sum(member.forward_s[size] for member in some) for some in on_devices) for size in sizes)
    fullest = min(members, key=lambda member: member.max_queue - member.queued)
    return Snapshot(
        forward_s,
        decode_s=max(member.decode_s for member in members),
        footprint_bytes=sum(member.footprint_bytes for member in members),
        device=members[0].device,
        ahead=max(member.ahead for member in members),
        queued=fullest.queued,
        max_queue=fullest.max_queue,
        load_s=max(sum(member.load_s for member in some) for some in on_devices),
        spread=min(member.spread for member in members),
        profiled_decode_s=max(member.profiled_decode_s for member in members),
        profiled_forward_s=max(sum(member.profiled_forward_s for member in some) for some in on_devices),
        fits=all(member.fits for member in members),
        members=tuple(members),
    )


def _by_device(members: Sequence[Snapshot]) -> dict[str, list[Snapshot]]:
    found: dict[str, list[Snapshot]] = {}
    for member in members:
        found.setdefault(member.device, []).append(member)
    return found


class Candidate(NamedTuple):
    """A checkpoint or an ensemble that may answer with the label set that is asked for."""

    checkpoint: Checkpoint | Ensemble
    snapshot: Snapshot | None
    """None where nothing is known of it, or nothing serves it."""
    safety: float = 1.0
    """The factor by which its predictions are multiplied before they are compared with a budget."""
    trial: bool = False
    """Whether a picture may be admitted on trial, although predictions that were not tested of late refuse it."""


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
