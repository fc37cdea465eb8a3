"""What an attack costs a polite client: ``python bench/attacks.py [--fleet solo] [--attacks NAME ...]``.

Starts a service that has LeNet-5 and GoogLeNet. A polite client asks both, 20 times a second in all, from beginning to
end. Each attack runs beside it for some seconds, in rounds: without an attack, with it, and with the same attacker
sending the same to a server that does nothing (``control``). Prints the polite client's median and 99th percentile by
network, under attack over without, its lost requests (any answer but 200, or none), the service's largest resident
memory, and what the attacker was answered. Exits with 1 if a 99th percentile more than doubled or a request was lost.

Attackers run on the same machine, with the lowest priority, so that it is the service's work for them that disturbs the
polite client and not their own. What is left of that is in ``control``: where it is far above 1 the machine has too few
cores for this attack, and the ratio says little about the service. Service, polite client and attacker have different
addresses of this machine, by which the service tells callers apart.

Everything is bounded: an attacker has at most 1,000 connections, ends after its seconds, and is killed by its process
id if it does not.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import load
from attackers import NAMES
from processes import Tree, Watch
from running import Service, fleet_of, free_port

_BENCH = Path(__file__).parent
_NETWORKS = ("lenet5", "googlenet")
_PHASES = ("without", "attack", "control")
#: The targets.
_MOST_SLOWER, _MOST_LOST = 2.0, 0


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one request of the polite client."""

    network: str
    due: float
    status: int
    took_ms: float


class Polite:
    """The polite client's process, and what it has said so far."""

    def __init__(self, port: int, rate: float, pictures: dict[str, Path]) -> None:
        named = [f"{network}={file}" for network, file in pictures.items()]
        self._process = _python("polite.py", str(port), "--rate", f"{rate:g}", "--pictures", *named)
        self._sent: dict[int, Answered] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            number, network, due, status, took_ms = line.split()
            self._sent[int(number)] = Answered(network, float(due), int(status), float(took_ms))

    def between(self, start: float, end: float) -> list[Answered]:
        """The requests that were due in a while. The status is -1 of those that are not over."""
        return [answered for answered in tuple(self._sent.values()) if start <= answered.due < end]

    def stop(self) -> None:
        _end(self._process)


@dataclass
class Phase:
    """One phase of an attack's rounds, all rounds together."""

    answered: list[Answered] = field(default_factory=list)
    rss_mb: float = 0.0
    attacker: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lost(self) -> list[int]:
        """The statuses of the requests that were not answered with 200."""
        return [answered.status for answered in self.answered if answered.status != 200]

    def percentile(self, network: str, share: float) -> float:
        """Milliseconds; infinite without an answer."""
        times = sorted(a.took_ms for a in self.answered if a.network == network and a.status == 200)
        return times[min(len(times) - 1, math.ceil(share * len(times)) - 1)] if times else math.inf


class Bench:
    """A service, a polite client beside it, and attackers."""

    def __init__(self, service: Service, polite: Polite, seconds: float) -> None:
        self._service = service
        self._polite = polite
        self._seconds = seconds
        self._tree = Tree(service.pid)

    def rounds(self, name: str, count: int) -> dict[str, Phase]:
        """Measures an attack."""
        phases = {phase: Phase() for phase in _PHASES}
        for _ in range(count):
            for phase in _PHASES:
                self._measure(name, phase, phases[phase])
        return phases

    def _measure(self, name: str, phase: str, into: Phase) -> None:
        with Watch(self._tree) as use:
            if phase == "without":
                start = time.monotonic()
                time.sleep(self._seconds)
            elif phase == "attack":
                start, said = attacked(name, self._service.port, self._seconds)
                into.attacker.append(said)
            else:
                with sink(2 * self._seconds + 20) as port:
                    start, said = attacked(name, port, self._seconds)
                into.attacker.append(said)
        end = start + self._seconds
        # What the attack left behind is the next phase's no more; and late answers are still this one's.
        self._settle(end)
        into.answered += self._polite.between(start, end)
        into.rss_mb = max(into.rss_mb, use.peak_rss_mb)

    def _settle(self, end: float) -> None:
        """Waits until the polite client is answered in its usual time again, at most 40 s: longer than its patience."""
        while time.monotonic() < end + 40:
            time.sleep(1)
            late = self._polite.between(time.monotonic() - 2.0, time.monotonic() - 0.5)
            if time.monotonic() > end + 3 and late and all(a.status == 200 and a.took_ms < 400 for a in late):
                return


def attacked(name: str, port: int, seconds: float) -> tuple[float, dict[str, Any]]:
    """Runs an attacker. Returns when it began, and what it says."""
    process = _python("attackers.py", name, str(port), f"{seconds:g}")
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"the attacker {name} did not get ready")
        start = time.monotonic()
        process.stdin.write("begin\n")
        process.stdin.flush()
        try:
            text, _ = process.communicate(timeout=seconds + 10)
        except subprocess.TimeoutExpired:
            return start, {"counts": {"killed": 1}, "answered_ms": None}
        said: dict[str, Any] = json.loads(text) if text.strip() else {"counts": {"ended": 1}, "answered_ms": None}
        return start, said
    finally:
        _end(process)


@contextmanager
def sink(seconds: float) -> Iterator[int]:
    """A server that does nothing; its port."""
    port = free_port()
    process = _python("attackers.py", "sink", str(port), f"{seconds:g}")
    try:
        time.sleep(1)
        yield port
    finally:
        _end(process)


def _python(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(_BENCH / arguments[0]), *arguments[1:]]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)  # noqa: S603 - our own


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def result(phases: dict[str, Phase]) -> dict[str, Any]:
    """The figures of an attack, by network and phase."""
    ratios: dict[str, Any] = {}
    for network in _NETWORKS:
        usual = {share: phases["without"].percentile(network, share) for share in (0.5, 0.99)}
        for phase in _PHASES:
            times = {share: phases[phase].percentile(network, share) for share in (0.5, 0.99)}
            ratios.setdefault(network, {})[phase] = {
                "p50_ms": times[0.5],
                "p99_ms": times[0.99],
                "p50_ratio": times[0.5] / usual[0.5],
                "p99_ratio": times[0.99] / usual[0.99],
            }
    return {
        "polite": ratios,
        "lost": {phase: phases[phase].lost for phase in _PHASES},
        "rss_mb": {phase: phases[phase].rss_mb for phase in _PHASES},
        "attacker": phases["attack"].attacker,
        "held": all(
            ratios[network]["attack"]["p99_ratio"] <= _MOST_SLOWER and len(phases["attack"].lost) <= _MOST_LOST
            for network in _NETWORKS
        ),
    }


def show(name: str, found: dict[str, Any]) -> str:
    """One line for people."""
    parts = []
    for network in _NETWORKS:
        attack, control = found["polite"][network]["attack"], found["polite"][network]["control"]
        parts.append(
            f"{network} p50 x{attack['p50_ratio']:.2f} p99 x{attack['p99_ratio']:.2f} ({attack['p99_ms']:.0f} ms; "
            f"control x{control['p99_ratio']:.2f})"
        )
    answers: dict[str, int] = {}
    for said in found["attacker"]:
        for status, count in said["counts"].items():
            answers[status] = answers.get(status, 0) + count
    slowest = max((said["answered_ms"]["most"] for said in found["attacker"] if said["answered_ms"]), default=0.0)
    typical = statistics.median([s["answered_ms"]["p50"] for s in found["attacker"] if s["answered_ms"]] or [0.0])
    rss = found["rss_mb"]
    return (
        f"{'held ' if found['held'] else 'BROKE'} {name:12} {'; '.join(parts)}; lost {len(found['lost']['attack'])} "
        f"{sorted(set(found['lost']['attack']))}; RSS {rss['without']:.0f} -> {rss['attack']:.0f} MB; "
        f"attacker {answers}, answered in {typical:.0f} ms, at most {slowest:.0f}"
    )


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fleet", choices=["solo", "local"], default="solo")
    parser.add_argument("--attacks", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each phase")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=20.0, help="the polite client's requests a second")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    options = parser.parse_args(None if arguments is None else list(arguments))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = {"lenet5": load.digit(folder).path, "googlenet": load.photograph(folder).path}
        service = Service("--untrained", "--fleet", str(fleet_of(_NETWORKS, folder, ray=options.fleet == "local")))
        service.start(within_s=600)
        polite = Polite(service.port, options.rate, pictures)
        try:
            time.sleep(5)
            bench = Bench(service, polite, options.seconds)
            for attack in options.attacks:
                results[attack] = result(bench.rounds(attack, options.rounds))
                print(show(attack, results[attack]), flush=True)
        finally:
            polite.stop()
            service.stop()
            if options.json:
                options.json.write_text(json.dumps(results, indent=1) + "\n")
    raise SystemExit(0 if all(found["held"] for found in results.values()) else 1)


if __name__ == "__main__":
    main()
