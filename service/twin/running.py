"""Runs a scenario: builds the simulated service, sends it the pictures, and notes what becomes of each."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.networks.variants import VARIANTS, find_variant
from service.config.settings import Settings
from service.domain.classified import Classified
from service.domain.prediction import Limits
from service.engines import Engine
from service.inference.classifier import Classifier
from service.profiling.profiles import Profile, Profiles, shipped_folder
from service.runtime.placement import LocalPlacement
from service.telemetry.recorder import RequestMetrics
from service.twin.cores import SharedCores
from service.twin.durations import sigma
from service.twin.engine import SimulatedEngine, load
from service.twin.front import SimulatedFront, SimulatedPicture, VirtualDecoders
from service.twin.loop import VirtualLoop
from service.twin.policies import Policy, policy
from service.twin.scenario import Device, Scenario, ScenarioError
from traffic.arrivals import arrivals, rate_profile, read_trace, switching_arrivals

#: A cache without checkpoints: simulated networks have no weights.
NOWHERE = Path("/nonexistent")
#: The quickest, with which a caller who ignores Retry-After tries again, in seconds.
_IGNORING_S = 1.0
#: Pictures of callers who ignore Retry-After are given up after so many tries.
_MOST_TRIES = 10


class Sent(NamedTuple):
    """What became of one picture that was sent."""

    row: int
    """Of the mix."""
    due: float
    """Seconds after the beginning."""
    tries: int
    """1, or more if it was refused before."""
    took_s: float
    reason: str
    """``ok``, or the slug of what went wrong."""
    model: str
    top1: float
    """Of the network that answered; 0 if none did."""
    told_s: float | None
    """Retry-After, as the header has it: whole seconds."""


@dataclass
class Outcome:
    """What happened in a simulation."""

    scenario: Scenario
    sent: list[Sent] = field(default_factory=list)
    """In the order in which they ended."""
    choices: list[list[tuple[int, str]]] = field(default_factory=list)
    """Of each owner: row of the mix and network, in the order of its decisions."""
    decisions_s: list[float] = field(default_factory=list)
    """Real seconds."""
    evictions: int = 0
    loads: int = 0
    busy_s: float = 0.0
    """What all devices have computed."""
    simulated_s: float = 0.0
    """From the first arrival to the last answer."""


def simulate(scenario: Scenario) -> Outcome:
    """Runs a scenario.

    Raises:
        ScenarioError: it names something that does not exist.
    """
    loop = VirtualLoop()
    # Nothing here is in cycles that matter, and looking for them takes a tenth of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return loop.run_until_complete(_Simulation(scenario, loop).run())
    finally:
        loop.close()
        if collecting:
            gc.enable()


class _Counted(SimulatedEngine):
    """An engine whose end is counted."""

    outcome: Outcome

    def close(self) -> None:
        self.outcome.evictions += 1


class _OnFile:
    """The source of profiles of a simulated device, or none: nothing is measured."""

    def __init__(self, profiles: Profiles | None) -> None:
        self._profiles = profiles

    def nearest(self, checkpoint: Checkpoint) -> Profile | None:
        return None if self._profiles is None else self._profiles.nearest(checkpoint)

    def ensure(self, checkpoint: Checkpoint, *, measure: bool = True) -> Profile | None:
        return self.nearest(checkpoint)


class _Owner:
    """One simulated device with its placement, its policy and its classifier: what a device owner's process has."""

    def __init__(self, device: Device, number: int, simulation: _Simulation) -> None:
        scenario, loop = simulation.scenario, simulation.loop
        profiles = device_profiles(device.profile)
        self.largest = device.max_batch_size or profiles.max_batch_size
        names = list(VARIANTS) if "*" in device.variants else [find_variant(name).name for name in device.variants]
        # Only networks with a profile can be simulated.
        every = Catalogue(NOWHERE, untrained=True, variants=names).checkpoints()
        names = [c.model for c in every if profiles.nearest(c) is not None]
        self.catalogue = Catalogue(NOWHERE, untrained=True, variants=names)
        self.profiles = profiles
        self._simulation = simulation
        self._pace = device.pace
        self._device = device
        settings = Settings.model_construct(
            default_latency_ms=scenario.default_latency_ms, labels="imagenet1k", untrained=True
        )
        self.placement = LocalPlacement(
            self._load,
            Limits(self.largest, device.max_queue),
            decoders=VirtualDecoders(loop, 1),
            profiles=_OnFile(profiles if device.measured else None),
            memory_limit_bytes=sys.maxsize if device.memory_mb is None else round(device.memory_mb * 1e6),
            pinned=[find_variant(name).name for name in device.pinned],
            device=f"device {number}",
            clock=loop.time,
        )
        self.policy: Policy = policy(
            scenario.policy, simulation.queries, self.catalogue, self.placement, settings, loop.time
        )
        self.classifier = Classifier(self.policy, self.placement, RequestMetrics(names), loop.time)

    def _load(self, checkpoint: Checkpoint) -> Engine:
        simulation = self._simulation
        profile = self.profiles.nearest(checkpoint)
        assert profile is not None
        load(profile, simulation.loop, simulation.slower(self._device))
        simulation.outcome.loads += 1
        engine = _Counted(
            checkpoint,
            profile,
            simulation.loop,
            simulation.source("device", checkpoint.name),
            self.largest,
            spread=simulation.scenario.spread,
            pace=self._pace.get(checkpoint.model, 1.0),
            slower=lambda: simulation.slower(self._device),
        )
        engine.outcome = simulation.outcome
        return engine

    @property
    def used_s(self) -> float:
        """What the device has computed."""
        return self.placement.survey([], 0).load.used_s[""]


class _Simulation:
    def __init__(self, scenario: Scenario, loop: VirtualLoop) -> None:
        self.scenario = scenario
        self.loop = loop
        if scenario.shared:
            loop.cores = SharedCores(loop, scenario.cores)
        self.outcome = Outcome(scenario)
        self.queries = [budget.asked for budget in scenario.mix]
        self._outlines = [budget.outline for budget in scenario.mix]
        numbers = itertools.count()
        self._owners = [_Owner(device, next(numbers), self) for device in scenario.device for _ in range(device.count)]
        self._fronts = [self._front(number) for number in range(scenario.fronts)]
        self._turn = itertools.cycle(self._fronts)
        self._began = math.inf
        self._in_flight: set[asyncio.Task[None]] = set()
        self._waiting = dict.fromkeys(self._owners, 0)

    def source(self, *names: object) -> random.Random:
        """Random numbers of their own for each purpose: one more draw for one does not change another."""
        return random.Random(":".join(map(str, (self.scenario.seed, *names))))  # noqa: S311 - no secret

    def slower(self, device: Device) -> float:
        """How many times as long as its profile says a device takes now."""
        over = device.slower_for_s is not None and self.loop.time() >= self._began + device.slower_for_s
        return 1.0 if over else device.slower

    def _front(self, number: int) -> SimulatedFront:
        profile = self._owners[0].profiles.nearest(self._owners[0].catalogue.checkpoints()[-1])
        assert profile is not None
        deviation = 0.0
        if self.scenario.spread and "medium" in profile.decode:
            medium = profile.decode["medium"]
            deviation = sigma(medium.p95_ms / medium.mean_ms)
        rates = {} if profile.decode_rates is None else {"rates": profile.decode_rates}
        return SimulatedFront(
            self.loop,
            self.scenario.cores,
            self.source("front", number),
            deviation=deviation,
            pace=self.scenario.decode_pace,
            slower=lambda: self.slower(self.scenario.device[0]),
            **rates,
        )

    async def run(self) -> Outcome:
        scenario, loop = self.scenario, self.loop
        for owner in self._owners:
            loadable = [c for c in owner.catalogue.checkpoints() if c.state == "loadable"]
            await owner.placement.warm_up(loadable)
            owner.policy.warmed(owner.placement.predictor(checkpoint).forecast for checkpoint in loadable)
        self.outcome.evictions = self.outcome.loads = 0
        used_s = sum(owner.used_s for owner in self._owners)
        self._began = loop.time()
        picks = self.source("mix")
        rows, weights = range(len(scenario.mix)), [budget.weight for budget in scenario.mix]
        callers = self.source("callers")
        for due, known in due_times(scenario):
            wait_s = self._began + due - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            (row,) = picks.choices(rows, weights) if known is None else (known,)
            task = loop.create_task(self._send(row, due, f"caller {callers.randrange(scenario.callers)}"))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)
        if self._in_flight:
            await asyncio.wait(tuple(self._in_flight))
        self.outcome.simulated_s = loop.time() - self._began
        self.outcome.busy_s = sum(owner.used_s for owner in self._owners) - used_s
        number = {id(query): row for row, query in enumerate(self.queries)}
        for owner in self._owners:
            self.outcome.decisions_s += owner.policy.took_s
            self.outcome.choices.append([(number[id(query)], name) for query, name in owner.policy.choices])
        evictions = self.outcome.evictions
        for owner in self._owners:
            await owner.placement.close()
        self.outcome.evictions = evictions
        return self.outcome

    async def _send(self, row: int, due: float, caller: str) -> None:
        """Sends one picture, and again as the scenario says if it is refused."""
        retries = self.scenario.retries
        tries = 1
        while (told_s := await self._once(row, due, tries, caller)) is not None:
            if retries == "never" or tries >= (2 if retries == "once" else _MOST_TRIES):
                return
            await asyncio.sleep(told_s if retries == "once" else _IGNORING_S)
            due, tries = self.loop.time() - self._began, tries + 1

    async def _once(self, row: int, due: float, tries: int, caller: str) -> float | None:
        """Sends one picture once. Returns Retry-After if it is refused for now."""
        arrived = self.loop.time()
        front = next(self._turn)
        owner = min(self._owners, key=self._waiting.__getitem__) if len(self._owners) > 1 else self._owners[0]
        picture = SimulatedPicture(front, self._outlines[row], caller)
        self._waiting[owner] += 1
        try:
            result = await owner.classifier.begin(self.queries[row], arrived, caller).classify(picture)
            if isinstance(result, Classified):
                reason, model, top1, told_s = "ok", result.served.model, result.served.top1 or 0.0, None
            else:
                told_ms = result.extras.get("retry_after_ms")
                told_s = None if told_ms is None else float(max(1, math.ceil(told_ms / 1000)))
                reason, model, top1 = result.slug, result.model or "", 0.0
        finally:
            self._waiting[owner] -= 1
        took_s = self.loop.time() - arrived
        self.outcome.sent.append(Sent(row, due, tries, took_s, reason, model, top1, told_s))
        return told_s


def device_profiles(name: str) -> Profiles:
    """The profiles of a simulated device.

    Args:
        name: a shipped profile's, or the path of a file.

    Raises:
        ScenarioError: there is no such file, or nothing in it can be used.
    """
    path = Path(name)
    if path.suffix != ".json":
        path = shipped_folder() / f"{name}.json"
    found = Profiles.of_file(path)
    if not found.max_batch_size:
        shipped = ", ".join(sorted(file.stem for file in shipped_folder().glob("*.json")))
        raise ScenarioError(f"{path} has no profiles; shipped are {shipped}")
    return found


def due_times(scenario: Scenario) -> Iterator[tuple[float, int | None]]:
    """When pictures are due, in seconds after the beginning, and the row of the mix where a trace names it.

    Raises:
        ScenarioError: the trace cannot be used.
    """
    if scenario.arrivals == "trace":
        assert scenario.trace is not None
        try:
            labels = [budget.label for budget in scenario.mix]
            trace = read_trace(scenario.trace, labels)
        except ValueError as error:
            raise ScenarioError(str(error)) from error
        rows = ((r.seconds, None if r.user is None else labels.index(r.user)) for r in trace)
        return itertools.takewhile(lambda due: due[0] < scenario.seconds, rows)
    return ((at, None) for at in itertools.takewhile(lambda at: at < scenario.seconds, _endless(scenario)))


def _endless(scenario: Scenario) -> Iterator[float]:
    """The same of an arrival process, without an end."""
    rate, other = scenario.rate, scenario.rate * scenario.times
    if scenario.arrivals == "markov":
        return switching_arrivals(rate, scenario.times, scenario.from_s, scenario.for_s, scenario.seed)
    shape = scenario.arrivals if scenario.arrivals in ("step", "spike") else "constant"
    profile = rate_profile(shape, rate, other, scenario.from_s, scenario.for_s)
    return arrivals(profile, scenario.cv if scenario.arrivals == "gamma" else 1.0, scenario.seed)
