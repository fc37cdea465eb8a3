"""Finds the device owners of this machine by their sockets, and keeps a connection to each."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from service.fronts.owner import Lost, Owner
from service.link.crops import Slots
from service.link.messages import Call, Reply
from service.link.sockets import HandshakeError, connect

log = logging.getLogger(__name__)

#: How often the folder is looked at while an owner is missing, and while none is.
_SOON_S, _LATER_S = 0.05, 1.0
#: How often memory is given back that a burst of pictures needed.
_TRIM_EVERY_S = 5.0


class Owners:
    """The device owners that a front is connected to. Not thread-safe: use it from one event loop.

    Args:
        folder: where the owners' sockets are. It need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owners: dict[Path, Owner] = {}
        self._came = asyncio.Event()
        self._missing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._refused = ""
        self.memory: Slots | None = None
        """This front's memory for crops, as new owners get it; None before the first connection."""
        self.seen = False
        """Whether there ever was an owner."""

    def begin(self) -> None:
        """Begins to look for owners."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._look()), loop.create_task(self._trim())]

    async def end(self) -> None:
        """Ends all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for owner in tuple(self._owners.values()):
            owner.close()
        self.memory = None

    def one(self) -> Owner | None:
        """The owner with the fewest pictures of this front; None if there is none at the moment."""
        least = None
        for owner in self._owners.values():
            if owner.open and (least is None or owner.waiting < least.waiting):
                least = owner
        return least

    async def wait(self) -> Owner:
        """Waits until there is an owner. The caller bounds the wait."""
        while (owner := self.one()) is None:
            self._came.clear()
            await self._came.wait()
        return owner

    async def call(self, call: Call) -> Reply | None:
        """Has an owner answer a request that classifies nothing; None if there is none, or if it ends meanwhile."""
        owner = self.one()
        reply = None if owner is None else await owner.call(call)
        return None if isinstance(reply, Lost) else reply

    async def _look(self) -> None:
        while True:
            self._missing.clear()
            for path in self._sockets():
                if path not in self._owners:
                    await self._connect(path)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LATER_S if self._owners else _SOON_S):
                    await self._missing.wait()

    def _sockets(self) -> list[Path]:
        try:
            return sorted(self._folder.glob("*.sock"))
        except OSError:
            return []

    async def _connect(self, path: Path) -> None:
        try:
            connected, memory = await connect(path, self.memory)
        except OSError:
            return  # a dead owner left its socket behind, or a new one is just beginning
        except HandshakeError as error:
            if str(error) != self._refused:
                log.warning("%s", error)
                self._refused = str(error)
            return
        # Owners that have another memory keep it, and so do pictures that are in it.
        self.memory = memory
        owner = Owner(memory, self._lost)
        self._owners[path] = owner
        await owner.begin(connected)
        self.seen = True
        self._came.set()

    def _lost(self, owner: Owner) -> None:
        self._owners = {path: other for path, other in self._owners.items() if other is not owner}
        self._missing.set()

    async def _trim(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_EVERY_S)
            for memory in {owner.memory for owner in self._owners.values()}:
                memory.trim()
