"""What the router is given and what it gives: budgets, how checkpoints stand, the load, a decision. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from models.checkpoints.catalogue import Checkpoint
from service.domain.ensemble import Ensemble


class Snapshot(NamedTuple):
    """What a checkpoint takes, by its profile, and what it has to do now."""

    forward_s: tuple[float, ...]
    """A forward pass by batch size, at the 95th percentile; [0] is unused and the last is the largest batch."""
    decode_s: float
    footprint_bytes: int
    device: str = ""
    """Checkpoints of one device take turns."""
    ahead: int = 0
    """Pictures that wait or are being decoded, and would go before the one that is to be decided on."""
    queued: int = 0
    """All that wait or are being decoded."""
    max_queue: int = 512
    load_s: float = 0.0
    """Until it is in memory, the loads before its own among it; 0 if it is."""
    spread: float = 1.0
    """The 95th percentile of a forward pass over its mean."""
    profiled_decode_s: float = 0.0
    """Decoding by the profile alone, whatever was learned since; 0 where it does not tell."""
    profiled_forward_s: float = 0.0
    """The 95th percentile of a forward pass of one picture by the profile alone; 0 where there is none."""
    fits: bool = True
    """Whether the device's memory limit has room for it, whatever else is unloaded."""
    members: tuple[Snapshot, ...] = ()
    """Of an ensemble; the rest is theirs together."""

    @property
    def parts(self) -> tuple[Snapshot, ...]:
        """The members of an ensemble, or itself."""
        return self.members or (self,)

    @property
    def by_device(self) -> dict[str, list[Snapshot]]:
        """The members, or itself, by their devices: who takes turns with whom."""
        return _by_device(self.parts)

    @property
    def alone_s(self) -> float:
        """One picture with empty queues, the network in memory, by the profile alone: what no load changes. 0 where
        nothing was measured."""
        return self.profiled_decode_s + self.profiled_forward_s

    @property
    def per_picture_s(self) -> float:
        """Device time of a picture in the largest batch, on average."""
        return self.mean_s(len(self.forward_s) - 1) / (len(self.forward_s) - 1)

    def batches_s(self, pictures: int) -> float:
        """Device time of so many in batches as large as possible, on average."""
        largest = len(self.forward_s) - 1
        full, rest = divmod(pictures, largest)
        return full * self.mean_s(largest) + self.mean_s(rest)

    @property
    def takes_s(self) -> float:
        """By how much one more picture delays those who go after it."""
        return self.batches_s(self.ahead + 1) - self.batches_s(self.ahead)

    def mean_s(self, batch_size: int) -> float:
        """Of a forward pass: what counts where many follow each other."""
        return self.forward_s[batch_size] / self.spread


def combined(members: Sequence[Snapshot]) -> Snapshot:
    """How an ensemble stands. Its members decode at once and compute in turn: on one device it takes the sum of what
    they take; on several, what the slowest device takes. Memory is the sum, whether or not all must be there at once:
    where there is no room for that, they are loaded one after the other.

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
    """What may answer with the label set that is asked for."""

    checkpoint: Checkpoint | Ensemble
    snapshot: Snapshot | None
    """None where nothing is known, or nobody is there to serve it."""
    safety: float = 1.0
    """By which its predictions are multiplied before they are held against a budget."""
    trial: bool = False
    """Whether a picture may be let in on trial, against predictions that nobody has tried of late."""


class DeviceLoad(NamedTuple):
    """What the devices have to do now."""

    busy: Mapping[str, float] = MappingProxyType({})
    """Seconds until each is through with the batch that it computes."""
    waiting: Sequence[Snapshot] = ()
    """Every checkpoint with a queue, of whatever label set: the candidates' own objects, where they are among them."""
    slack_s: Mapping[str, float] = MappingProxyType({})
    """By how much those may be delayed, on each device, who were let in and would go after the picture."""
