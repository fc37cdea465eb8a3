"""The processes of a server: which they are, what they use, and how they are ended. By process id, never by name."""

from __future__ import annotations

import os
import resource
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

_MB = 1024 * 1024


@dataclass
class Use:
    """What a tree of processes used in a while."""

    cpu_s: float = 0.0
    """User and system time of all of them."""
    peak_rss_mb: float = 0.0
    """Largest sum of resident memory that was seen. Pages that processes share count once for each."""
    peak_largest_mb: float = 0.0
    """Of the largest process."""
    processes: int = 0


class Strangers:
    """Cores that neither this script's children nor a tree used: what other work on the machine took away."""

    def __init__(self) -> None:
        self._before = self._now()

    def cores(self, tree_cpu_s: float = 0.0) -> float:
        """Mean since the beginning."""
        wall, busy, children = (now - then for now, then in zip(self._now(), self._before, strict=True))
        return max(0.0, (busy - children - tree_cpu_s) / wall)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        times, children = psutil.cpu_times(), resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = times.user + times.nice + times.system + getattr(times, "steal", 0.0)
        return time.monotonic(), busy, children.ru_utime + children.ru_stime


class Tree:
    """Descendants of a process that leads a session, and whatever else lives in a session that one of them led.

    Daemons of Ray outlive their parents, so parentage alone would lose them, and the id of a session cannot be had by a
    stranger as long as one of its processes lives.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._sessions = {root}
        self._known: dict[int, psutil.Process] = {}
        self._cpu: dict[int, float] = {}

    def refresh(self) -> list[psutil.Process]:
        """The living processes."""
        found: dict[int, psutil.Process] = {}
        parents = [self._known.get(self._root), *self._known.values()]
        with suppress(psutil.Error):
            parents[0] = parents[0] or psutil.Process(self._root)
        for parent in filter(None, parents):
            if parent.pid not in found:
                with suppress(psutil.Error):
                    if parent.is_running():
                        found |= {p.pid: p for p in (parent, *parent.children(recursive=True))}
        own = os.getsid(0)
        for pid in found:
            with suppress(OSError):
                self._sessions.add(os.getsid(pid))
        self._sessions.discard(own)
        for pid in psutil.pids():
            with suppress(OSError, psutil.Error):
                if pid not in found and os.getsid(pid) in self._sessions:
                    found[pid] = psutil.Process(pid)
        # A Process object remembers when it began, so a number that is given out again is told from the old one.
        for pid, process in found.items():
            if self._known.get(pid) != process:
                self._known[pid] = process
        return list(found.values())

    def cpu_s(self) -> float:
        """User and system seconds so far, with what ended processes had used when they were last seen."""
        for process in self.refresh():
            with suppress(psutil.Error):
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
        return sum(self._cpu.values())

    def memory_mb(self) -> tuple[float, float, int]:
        """Resident memory: the sum, the largest process, how many processes."""
        sizes = []
        for process in list(self._known.values()):
            with suppress(psutil.Error):
                sizes.append(process.memory_info().rss / _MB)
        return sum(sizes), max(sizes, default=0.0), sum(size > 0 for size in sizes)

    def end(self) -> int:
        """Ends what is left: asks, waits, kills. Returns how many there were."""
        left = []
        for process in self.refresh():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process)
        for process in left:
            with suppress(psutil.Error):
                process.terminate()
        _, alive = psutil.wait_procs(left, timeout=3)
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=10)
        return len(left)


@dataclass
class Watch:
    """Measures a tree between ``__enter__`` and ``__exit__``."""

    tree: Tree
    every_s: float = 0.5
    use: Use = field(default_factory=Use)

    def __enter__(self) -> Use:
        self._stop = threading.Event()
        self._before = self.tree.cpu_s()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self.use

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self.use.cpu_s = self.tree.cpu_s() - self._before

    def _sample(self) -> None:
        refreshed = time.monotonic()
        while True:
            total, largest, count = self.tree.memory_mb()
            self.use.peak_rss_mb = max(self.use.peak_rss_mb, total)
            self.use.peak_largest_mb = max(self.use.peak_largest_mb, largest)
            self.use.processes = max(self.use.processes, count)
            if self._stop.wait(self.every_s):
                return
            if time.monotonic() > refreshed + 3:
                self.tree.refresh()
                refreshed = time.monotonic()
