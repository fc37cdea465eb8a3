"""The router: from a query to a decision.

It finds the candidates, asks the placement for their snapshots, has ``choose.py`` pick one, tells refused callers when
to come back, and learns from each answer how far its predictions can be trusted.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.images.outline import glance
from service.config.settings import Settings
from service.domain.decision import LEAST_SAFETY, Budget, Decision
from service.domain.ensemble import Ensemble, members_of
from service.domain.errors import DeadlineMissedError, NoModelFitsError, OverloadedError
from service.domain.picture import Picture
from service.domain.placement import Placement
from service.domain.query import Query
from service.domain.quiet import Quiet
from service.domain.snapshot import Candidate, DeviceLoad, Snapshot
from service.routing.admission import AdmittedPictures
from service.routing.choose import choose, default_label_set
from service.routing.ensembles import device_times, joined, measured, with_ensembles
from service.routing.last_choices import LastChoices
from service.routing.lookup import find
from service.routing.pressure import Pressure
from service.routing.retry_after import RetryQueue
from service.routing.safety import Safety

#: The time that counts as left when a budget is used up.
_NOTHING_S = 1e-6


class Router:
    """Decides for each picture which checkpoint answers it. Not thread-safe: use it from one event loop.

    Args:
        catalogue: the checkpoints of this machine.
        placement: where they are served.
        settings: the default latency and the default label set are read from them.
        clock: seconds, monotonic, as deadlines are.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        placement: Placement,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogue = catalogue
        self._placement = placement
        self._settings = settings
        self._clock = clock
        self._retries: dict[str, RetryQueue] = {}
        self._admitted: dict[str, AdmittedPictures] = {}
        self._loading: set[asyncio.Future[Any]] = set()
        self._safety: dict[str, tuple[Checkpoint, Safety]] = {}
        self._last = LastChoices(clock)
        self._pressure: dict[str, Pressure] = {}
        # One for all ensembles: callers may name any combination.
        self._ensembles = Safety(clock)

    def allowed_s(self, query: Query) -> float:
        """Seconds from the end of the body until the answer is due: the caller's ``latency_ms`` where it binds, else
        the service's default."""
        return query.allowed_s(self._settings.default_latency_ms)

    def decide(
        self,
        query: Query,
        candidates: Sequence[Checkpoint | Ensemble],
        arrived: float,
        encoded_bytes: int,
        caller: str = "",
        *,
        picture: bytes | Picture | None = None,
        supposing: bool = False,
    ) -> Decision:
        """Decides which checkpoint answers a picture.

        Args:
            query: the caller's request.
            candidates: the result of ``self.candidates``.
            arrived: when the picture's last byte arrived, on the clock.
            encoded_bytes: the size of the picture's file.
            caller: who asks.
            picture: the picture, whose header tells what decoding it takes; None: a photograph is assumed.
            supposing: whether there is no picture, so that nothing is booked, counted or loaded.

        Raises:
            WeightsMissingError: the weights of all candidates are missing.
            NoModelFitsError: no candidate fits the budget, even with empty queues.
            OverloadedError: a candidate could fit, but not now.
            DeadlineMissedError: the picture waited too long for this decision.
        """
        deadline = arrived + self.allowed_s(query)
        if query.model is not None and not query.has_budget and not supposing:
            # Whether it can be answered in time is beyond doubt, mostly. Nothing else depends on a decision.
            (named,) = candidates
            served = None if isinstance(named, Ensemble) else self._placement.at_once(named, deadline - self._clock())
            if served is not None:
                return Decision(served)
        found, load = self._survey(candidates, encoded_bytes, deadline, caller, picture)
        if query.model is not None and found[0].snapshot is None:
            # Nothing is known of the named model: its predictor will say why.
            return Decision(found[0].checkpoint)
        left_s = max(_NOTHING_S, deadline - self._clock())
        try:
            decision = self._choose(query, found, load, left_s, supposing=supposing)
        except OverloadedError as error:
            self._check_late(error, found, query, left_s)
            if not supposing:
                self._book(error, found, left_s, caller, load)
                self._press(found, caller)
            raise
        chosen = next(candidate for candidate in found if candidate.checkpoint is decision.checkpoint)
        if not supposing:
            for device, per_picture_s in device_times(chosen):
                self._retries_of(device).admitted(per_picture_s, caller, load.used_s.get(device))
                if device in self._pressure:
                    self._pressure[device].admitted(spares=decision.spares)
        return decision._replace(snapshot=chosen.snapshot, safety=chosen.safety, members=chosen.members)

    def _check_late(self, error: OverloadedError, candidates: Sequence[Candidate], query: Query, left_s: float) -> None:
        """Raises DeadlineMissedError if too little of the budget is left, even with empty queues."""
        names = {entry.model for entry in error.considered if entry.rejected == "overloaded"}
        snapshots = [c.snapshot for c in candidates if c.checkpoint.model in names]
        if left_s <= _NOTHING_S or all(s is not None and s.alone_s * LEAST_SAFETY > left_s for s in snapshots):
            allowed_ms = self.allowed_s(query) * 1000
            raise DeadlineMissedError(
                f"{allowed_ms - left_s * 1000:.0f} of {allowed_ms:g} ms had passed before the picture's turn, and no "
                "network answers within the rest"
            )

    def admit(self, decision: Decision, deadline: float, caller: str = "") -> AbstractContextManager[object]:
        """Admits a picture until the block ends: later pictures may not use up its slack, and its checkpoints are in
        use."""
        checkpoint, snapshot, predicted_s = decision.checkpoint, decision.snapshot, decision.predicted_s
        if snapshot is None or predicted_s is None:
            return nullcontext()
        slack_s = (deadline - self._clock()) / decision.safety - predicted_s
        return self._admission(
            decision.members or ((cast("Checkpoint", checkpoint), snapshot),), deadline, slack_s, caller
        )

    @contextmanager
    def _admission(
        self, parts: Sequence[tuple[Checkpoint, Snapshot]], deadline: float, slack_s: float, caller: str
    ) -> Iterator[None]:
        """The time between a picture's admission and its answer: each part is a checkpoint that computes it."""
        admitted = []
        for checkpoint, part in parts:
            quiet, device = self.safety(checkpoint).quiet, self._admitted.setdefault(part.device, AdmittedPictures())
            quiet.begin()
            admitted.append((quiet, device, device.add(deadline, slack_s, part.takes_s, caller)))
        try:
            yield
        finally:
            for quiet, device, picture in admitted:
                device.remove(picture)
                quiet.end()

    def learn(self, decision: Decision, took_s: float, *, missed: bool = False) -> None:
        """Notes how an answer went.

        Args:
            decision: that it rests on.
            took_s: from the decision to the answer.
            missed: whether it was given up, since it could not be in time any more.
        """
        assert decision.predicted_s is not None
        checkpoint = decision.checkpoint
        safety = self._ensembles if isinstance(checkpoint, Ensemble) else self.safety(checkpoint)
        late = missed or (decision.within_s is not None and took_s > decision.within_s)
        safety.learn(decision.predicted_s, took_s, late=late, trial=decision.trial)

    def safety(self, checkpoint: Checkpoint) -> Safety:
        """How far the predictions for a checkpoint can be trusted. Another file of the same name starts again."""
        known = self._safety.get(checkpoint.name)
        # It is usually the same object, which is faster to see than equality.
        if known is not None and known[0] is checkpoint:
            return known[1]
        same = known is not None and known[0].same_weights(checkpoint)
        safety = known[1] if known is not None and same else Safety(self._clock, Quiet(self._clock))
        self._safety[checkpoint.name] = checkpoint, safety
        return safety

    def candidates(self, query: Query) -> Sequence[Checkpoint | Ensemble]:
        """Finds the checkpoint or the ensemble that the query names; or all checkpoints of its label set, and after
        them the ensembles of these whose accuracy was measured here.

        Raises:
            UnknownModelError, WeightsMissingError, BadParameterError: the query names a model that cannot be found.
            NoModelFitsError: there is no checkpoint of the label set.
            LoadFailedError: there are checkpoints of the label set, and none could be loaded.
        """
        if query.model is not None:
            return (find(self._catalogue, query.model, query.labels, self._placement.serves),)
        rows = self._catalogue.checkpoints()
        # A checkpoint whose load failed, or that nothing hosts, is no candidate. One without weights is, so that the
        # answer lists it.
        served = [r for r in rows if r.state != "loadable" or self._placement.serves(r)]
        labels = query.labels or self._settings.labels or default_label_set(served)
        found = [r for r in served if r.labels == labels]
        if len(served) < len(rows) and all(r.state != "loadable" for r in found):
            self._check_not_failing(r for r in rows if r.labels == labels and r.state == "loadable")
        if not found:
            raise NoModelFitsError(f"there is no checkpoint for {labels}; GET /models lists what there is")
        return [*found, *measured(self._catalogue, found)]

    def _check_not_failing(self, checkpoints: Iterable[Checkpoint]) -> None:
        """If a load of one of the checkpoints failed, raises the LoadFailedError with the earliest next attempt."""
        failures = [error for error in map(self._placement.failure, checkpoints) if error is not None]
        if failures:
            raise min(failures, key=lambda e: math.inf if e.retry_after_s is None else e.retry_after_s)

    def _survey(
        self,
        candidates: Sequence[Checkpoint | Ensemble],
        encoded_bytes: int,
        deadline: float,
        caller: str,
        picture: bytes | Picture | None,
    ) -> tuple[list[Candidate], DeviceLoad]:
        """Asks the placement for snapshots, and adds the router's own data: how far predictions can be trusted,
        and how long admitted pictures may be delayed."""
        ensembles = isinstance(candidates[-1], Ensemble)
        checkpoints = _all_members(candidates) if ensembles else cast("Sequence[Checkpoint]", candidates)
        outline = None if picture is None else glance(picture) if isinstance(picture, bytes) else picture.outline
        snapshots, load = self._placement.survey(checkpoints, encoded_bytes, deadline, caller, outline)
        if self._admitted:
            load = load._replace(
                slack_s={name: device.slack_s(deadline, caller) for name, device in self._admitted.items()}
            )
        if not ensembles:
            return [self._candidate(*pair) for pair in snapshots], load
        served = {checkpoint.name: pair for checkpoint, pair in zip(checkpoints, snapshots, strict=True)}
        return self._with_ensembles(candidates, served, load)

    def _candidate(self, checkpoint: Checkpoint, snapshot: Snapshot | None) -> Candidate:
        if snapshot is None:
            return Candidate(checkpoint, None)
        safety = self.safety(checkpoint)
        return Candidate(checkpoint, snapshot, safety.factor, safety.trial)

    def _with_ensembles(
        self,
        candidates: Sequence[Checkpoint | Ensemble],
        served: Mapping[str, tuple[Checkpoint, Snapshot | None]],
        load: DeviceLoad,
    ) -> tuple[list[Candidate], DeviceLoad]:
        """The same where ensembles are among the candidates: each is on a device of its own, which the load has too."""
        found = []
        for candidate in candidates:
            if isinstance(candidate, Ensemble):
                members = [served[member.name] for member in candidate.members]
                safeties = [self._ensembles, *(self.safety(member) for member, _ in members)]
                whole, load = joined(candidate, members, load, safeties)
                found.append(whole)
            else:
                found.append(self._candidate(*served[candidate.name]))
        return found, load

    def _choose(
        self, query: Query, candidates: Sequence[Candidate], load: DeviceLoad, left_s: float, *, supposing: bool
    ) -> Decision:
        memory_bytes = None if query.memory_mb is None else query.memory_mb * 1e6
        budget = Budget(left_s, memory_bytes, query.min_top1, self.allowed_s(query))
        if query.model is None:
            asked = query.labels, query.latency_ms, query.memory_mb, query.min_top1
            price = {device: price for device, p in self._pressure.items() if (price := p.price)}
            load = load._replace(last=self._last.get(asked), price=with_ensembles(price, candidates))
            decision = choose(candidates, budget, load)
            return decision if supposing else self._last.note(asked, decision)
        if not query.has_budget:
            decision = choose(candidates, budget, load, named=True)
            return Decision(decision.checkpoint, None, decision.predicted_s)
        if query.strict:
            return choose(candidates, budget, load, named=True)
        allowed = Budget(left_s, stated_s=self.allowed_s(query))
        decision = choose(candidates, allowed, load, named=True)
        wanted = Budget((query.latency_ms or self._settings.default_latency_ms) / 1000, memory_bytes, query.min_top1)
        try:
            return choose(candidates, wanted, load, named=True)
        except (NoModelFitsError, OverloadedError) as error:
            assert decision.routing is not None
            decision.routing.reason = f"named, and not held to the budget (strict=false): {error}"
            return decision

    def _book(
        self, error: OverloadedError, candidates: Sequence[Candidate], left_s: float, caller: str, load: DeviceLoad
    ) -> None:
        """Gives a refused caller a time to come back, and begins to load a checkpoint that would fit if it were in
        memory."""
        names = {entry.model for entry in error.considered if entry.rejected == "overloaded"}
        late = [(c, c.snapshot) for c in candidates if c.snapshot is not None and c.checkpoint.model in names]
        absent = [c.checkpoint for c, s in late if s.load_s and s.alone_s * c.safety <= left_s]
        if absent:
            self._load_soon(max(absent, key=lambda checkpoint: checkpoint.top1 or 0.0))
        if late:
            # The refusal saves the device the cheapest of the answers that were refused.
            cheapest, _ = min(late, key=lambda pair: pair[1].per_picture_s)
            for name, per_picture_s in device_times(cheapest):
                error.retry_after_s = self._retries_of(name).book(
                    error.retry_after_s, per_picture_s, caller, load.used_s.get(name)
                )

    def _load_soon(self, checkpoint: Checkpoint | Ensemble) -> None:
        if not self._loading:
            loads = asyncio.gather(*(self._placement.load(member) for member in members_of(checkpoint)))
            self._loading.add(loads)
            loads.add_done_callback(self._loading.discard)

    def _press(self, candidates: Sequence[Candidate], caller: str) -> None:
        """Raises the price of the devices that a refused picture could have had, if only they had been free."""
        here = [c for c in candidates if c.snapshot is not None and not c.snapshot.load_s]
        for device in {device for candidate in here for device, _ in device_times(candidate)}:
            pressure = self._pressure.get(device)
            if pressure is None:
                pressure = self._pressure[device] = Pressure(self._clock)
            pressure.refused(caller)

    def _retries_of(self, device: str) -> RetryQueue:
        found = self._retries.get(device)
        if found is None:
            found = self._retries[device] = RetryQueue(self._clock)
        return found


def _all_members(candidates: Iterable[Checkpoint | Ensemble]) -> list[Checkpoint]:
    """The checkpoints that have to be asked, each once."""
    return list({member.name: member for candidate in candidates for member in members_of(candidate)}.values())
