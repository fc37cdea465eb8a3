"""Engines whose weights can be parked, and a host memory that knows which of them it really holds."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from models.checkpoints.catalogue import Checkpoint
from service.engines import Engine
from service.engines.fake import FakeEngine


@dataclass
class Host:
    """The memory of a host, and what happened in it."""

    events: list[str] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)
    """Bytes by name."""
    most: int = 0
    """The most bytes that were held at once."""
    broken: set[str] = field(default_factory=set)
    """What fails: "park" or "wake"."""
    open: threading.Event = field(default_factory=threading.Event)
    """Weights are parked and woken only while it is set."""

    def __post_init__(self) -> None:
        self.open.set()

    def note(self, event: str, name: str) -> None:
        assert self.open.wait(30)
        self.events.append(f"{event} {name}")
        if event in self.broken:
            raise RuntimeError(f"no memory to {event} {name}")


class Sleeper(FakeEngine):
    """An engine with as many bytes of weights as a test says.

    Args:
        checkpoint: as of ``FakeEngine``.
        host: where it is parked.
        size: of its weights, in bytes.
        name: in the host's events; the checkpoint's by default.
    """

    def __init__(self, checkpoint: Checkpoint, host: Host, size: int = 100, name: str = "") -> None:
        super().__init__(checkpoint)
        self.host, self.parked_bytes, self.name = host, size, name or checkpoint.name

    def park(self) -> Asleep:
        self.host.note("park", self.name)
        assert self.name not in self.host.held
        self.host.held[self.name] = self.parked_bytes
        self.host.most = max(self.host.most, sum(self.host.held.values()))
        return Asleep(self)

    def close(self) -> None:
        self.host.events.append(f"close {self.name}")


class Asleep:
    """Its parked weights."""

    def __init__(self, engine: Sleeper) -> None:
        self.engine, self.bytes_held = engine, engine.parked_bytes

    def wake(self) -> Engine:
        self.engine.host.note("wake", self.engine.name)
        assert self.engine.name in self.engine.host.held
        return self.engine

    def free(self) -> None:
        self.engine.host.events.append(f"free {self.engine.name}")
        del self.engine.host.held[self.engine.name]
