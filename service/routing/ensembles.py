"""Ensembles, for the router: several checkpoints that compute one picture, priced as one candidate.

An ensemble is put on a device of its own, which is busy until its members' devices are free. So ``choose.py`` compares
it with a budget as it does a checkpoint, and knows of one checkpoint and one device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.domain.ensemble import Ensemble
from service.domain.snapshot import Candidate, DeviceLoad, Snapshot
from service.routing.choose import DeviceQueues
from service.routing.safety import Safety


def joined(
    ensemble: Ensemble,
    snapshots: Sequence[tuple[Checkpoint, Snapshot | None]],
    load: DeviceLoad,
    safeties: Sequence[Safety],
) -> tuple[Candidate, DeviceLoad]:
    """An ensemble as a candidate, and the load with its device.

    The members decode at the same time and compute in turn: on one device an ensemble takes the sum of their times, on
    several the time of the slowest device. Its footprint is the sum, although the members are loaded one after the
    other where there is no room for all at once.

    Args:
        ensemble: as it was found. After a re-import, other checkpoints may be served for its members.
        snapshots: of the members.
        load: the work that the devices have now.
        safeties: of the members and of ensembles: it is trusted as the least of them.
    """
    now = tuple(member for member, _ in snapshots)
    # Nobody has measured others together.
    served = ensemble if now == ensemble.members else Ensemble(now)
    members = tuple((member, snapshot) for member, snapshot in snapshots if snapshot is not None)
    if len(members) < len(snapshots):
        return Candidate(served, None), load
    queues, parts, device = DeviceQueues(load), [snapshot for _, snapshot in members], served.name
    slowest = max((_on_one(queues, some) for some in _by_device(parts)), key=_total_s)
    load_s, decode_s, wait_s, own_s, mean_s = slowest
    fullest = min(parts, key=lambda part: part.max_queue - part.queued)
    together = Snapshot(
        (0.0, own_s),
        decode_s,
        footprint_bytes=sum(part.footprint_bytes for part in parts),
        device=device,
        queued=fullest.queued,
        max_queue=fullest.max_queue,
        load_s=load_s,
        spread=own_s / mean_s,
        profiled_decode_s=max(part.profiled_decode_s for part in parts),
        profiled_forward_s=max(sum(part.profiled_forward_s for part in some) for some in _by_device(parts)),
        fits=all(part.fits for part in parts),
    )
    can_wait = all(
        sum(part.takes_s for part in some) <= load.slack_s.get(some[0].device, float("inf"))
        for some in _by_device(parts)
    )
    trial = all(safety.trial for safety in safeties) and all(queues.idle(part) for part in parts)
    candidate = Candidate(served, together, max(safety.factor for safety in safeties), trial, members)
    slack_s = load.slack_s if can_wait else {**load.slack_s, device: 0.0}
    return candidate, load._replace(busy={**load.busy, device: wait_s}, slack_s=slack_s)


def measured(catalogue: Catalogue, checkpoints: Sequence[Checkpoint]) -> Sequence[Ensemble]:
    """The ensembles of these checkpoints, and of no others, whose accuracy was measured on this machine."""
    together = catalogue.together()
    if not together:
        return ()
    names = {checkpoint.name for checkpoint in checkpoints}
    return [Ensemble(members, accuracy.top1) for members, accuracy in together if accuracy.names <= names]


def _by_device(parts: Iterable[Snapshot]) -> list[list[Snapshot]]:
    """The parts of each device, which take turns."""
    found: dict[str, list[Snapshot]] = {}
    for part in parts:
        found.setdefault(part.device, []).append(part)
    return list(found.values())


def _on_one(queues: DeviceQueues, parts: Sequence[Snapshot]) -> tuple[float, float, float, float, float]:
    """Seconds that loading, decoding, waiting and computing take for the parts of one device, and the mean of the
    last: they wait once for all pictures ahead of them, and compute a batch each, one after the other."""
    device, shared = parts[0].device, [part.ahead % (len(part.forward_s) - 1) for part in parts]
    ahead_s = queues.ahead.get(device, 0.0)
    ahead_s -= sum(part.mean_s(size) for part, size in zip(parts, shared, strict=True))
    ahead_s += sum(part.batches_s(part.ahead) for part in parts if id(part) not in queues.counted)
    decode_s = max(part.decode_s for part in parts)
    own_s = sum(part.forward_s[size + 1] for part, size in zip(parts, shared, strict=True))
    mean_s = sum(part.mean_s(size + 1) for part, size in zip(parts, shared, strict=True))
    wait_s = queues.busy.get(device, 0.0) + ahead_s
    if wait_s < decode_s:
        wait_s += queues.next.get(device, 0.0)
    return sum(part.load_s for part in parts), decode_s, wait_s, own_s, mean_s


def _total_s(seconds: tuple[float, float, float, float, float]) -> float:
    load_s, decode_s, wait_s, own_s, _ = seconds
    return load_s + max(decode_s, wait_s) + own_s


def with_ensembles(price: Mapping[str, float], candidates: Sequence[Candidate]) -> Mapping[str, float]:
    """The prices of devices, and of those that the ensembles among the candidates are put on."""
    ensembles = [(c.snapshot, device_times(c)) for c in candidates if c.members and c.snapshot is not None]
    if not price or not ensembles:
        return price
    own = {
        whole.device: sum(price.get(device, 0.0) * seconds for device, seconds in times) / whole.per_picture_s
        for whole, times in ensembles
    }
    return {**price, **own}


def device_times(candidate: Candidate) -> Sequence[tuple[str, float]]:
    """The devices that compute a picture, with the seconds that it takes on each in the largest batch."""
    snapshot = candidate.snapshot
    if snapshot is None:
        return ()
    if not candidate.members:
        return ((snapshot.device, snapshot.per_picture_s),)
    some = _by_device(part for _, part in candidate.members)
    return [(parts[0].device, sum(part.per_picture_s for part in parts)) for parts in some]
