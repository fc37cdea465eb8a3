"""From a query to a decision: looks up what may answer and how it stands, asks the router, tells the refused when to
come back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.config.settings import Settings
from service.domain.decision import LEAST_SAFETY, Budget, Decision
from service.domain.ensemble import Ensemble, members_of
from service.domain.errors import DeadlineMissedError, NoModelFitsError, OverloadedError
from service.domain.placement import Placement, Survey
from service.domain.query import Query
from service.domain.snapshot import Candidate, Snapshot, combined
from service.routing.admission import Promises
from service.routing.choose import choose, default_label_set
from service.routing.retry_after import Comeback
from service.routing.lookup import find
from service.routing.safety import Safety

#: How long a named checkpoint that can be served is served without a look at the disk: each look gives the
#: interpreter's lock away, and getting it back from busy threads costs more than the look.
_TRUST_S = 1.0
#: What is left of a budget that is used up.
_NOTHING_S = 1e-6


class Router:
    """Decides for each picture which checkpoint answers it. Lives on one event loop."""

    def __init__(self, catalogue: Catalogue, placement: Placement, settings: Settings) -> None:
        self._catalogue = catalogue
        self._placement = placement
        self._settings = settings
        self._named: dict[tuple[str, str | None], Checkpoint | Ensemble] = {}
        self._trusted_until = 0.0
        self._comeback: dict[str, Comeback] = {}
        self._promises: dict[str, Promises] = {}
        self._loading: set[asyncio.Future[Any]] = set()
        # One for all ensembles, whose names are the callers' to make up.
        self._safety = Safety()

    def allowed_s(self, query: Query) -> float:
        """How long the answer may take, from the end of the body on. Without a model that has to keep to it, the
        default."""
        binding = query.strict or query.model is None
        return ((query.latency_ms if binding else None) or self._settings.default_latency_ms) / 1000

    def decide(
        self,
        query: Query,
        candidates: Sequence[Checkpoint] | Ensemble,
        arrived: float,
        encoded_bytes: int,
        *,
        supposing: bool = False,
    ) -> Decision:
        """The checkpoint for a picture of that size.

        Args:
            query: what the caller asks for.
            candidates: as the method of that name gives them.
            arrived: when its last byte came, on ``time.monotonic()``.
            encoded_bytes: of the picture.
            supposing: no picture has come; nothing is booked, counted or loaded.

        Raises:
            WeightsMissingError: nothing of what may answer is there.
            NoModelFitsError: the profiles forbid it even with empty queues.
            OverloadedError: it could, but not now.
            DeadlineMissedError: the picture waited for this decision for too long.
        """
        deadline = arrived + self.allowed_s(query)
        survey = self._survey(candidates, encoded_bytes, deadline)
        slack_s = {device: promises.slack_s(deadline) for device, promises in self._promises.items()}
        survey = survey._replace(load=survey.load._replace(slack_s=slack_s))
        if query.model is not None and survey.candidates[0].snapshot is None:
            # Nobody is there to ask how it stands; the predictor says why.
            return Decision(survey.candidates[0].checkpoint)
        left_s = max(_NOTHING_S, deadline - time.monotonic())
        try:
            decision = self._choose(query, survey, left_s)
        except OverloadedError as error:
            self._check_late(error, survey, query, left_s)
            if not supposing:
                self._refused(error, survey, left_s)
            raise
        (snapshot,) = (s for c, s in survey.candidates if c is decision.checkpoint)
        if snapshot is not None and not supposing:
            for device, per_picture_s in _takers(snapshot):
                self._device(device).let_in(per_picture_s)
        return decision._replace(snapshot=snapshot)

    def _check_late(self, error: OverloadedError, survey: Survey, query: Query, left_s: float) -> None:
        """Raises DeadlineMissedError if so much of the budget has passed that the rest would not do even with empty
        queues."""
        names = {entry.model for entry in error.considered if entry.rejected == "overloaded"}
        snapshots = [s for c, s in survey.candidates if c.model in names]
        if left_s <= _NOTHING_S or all(s is not None and s.alone_s * LEAST_SAFETY > left_s for s in snapshots):
            allowed_ms = self.allowed_s(query) * 1000
            raise DeadlineMissedError(
                f"{allowed_ms - left_s * 1000:.0f} ms of {allowed_ms:g} had passed when it was the picture's turn, and "
                "no network answers within the rest"
            )

    def promise(self, decision: Decision, deadline: float) -> AbstractContextManager[object]:
        """Holds the picture's time on the device against those who come later, until it is answered."""
        snapshot, predicted_s = decision.snapshot, decision.predicted_s
        if snapshot is None or predicted_s is None:
            return nullcontext()
        slack_s = (deadline - time.monotonic()) / snapshot.safety - predicted_s
        if not snapshot.members:
            return self._promise(deadline, slack_s, snapshot)
        promised = ExitStack()
        for member in snapshot.members:
            promised.enter_context(self._promise(deadline, slack_s, member))
        return promised

    def _promise(self, deadline: float, slack_s: float, snapshot: Snapshot) -> AbstractContextManager[None]:
        return self._promises.setdefault(snapshot.device, Promises()).made(deadline, slack_s, snapshot.takes_s)

    def judge(self, decision: Decision, actual_s: float) -> None:
        """Says what became of a prediction."""
        assert decision.predicted_s is not None
        if isinstance(decision.checkpoint, Ensemble):
            self._safety.judge(decision.predicted_s, actual_s, decision.trial_s)
        else:
            self._placement.judge(decision.checkpoint, decision.predicted_s, actual_s, decision.trial_s)

    def candidates(self, query: Query, arrived: float) -> Sequence[Checkpoint] | Ensemble:
        """The checkpoint or the ensemble that is named, or those of the label set that is asked for.

        Raises:
            UnknownModelError, WeightsMissingError, BadParameterError: what is named is not there.
            NoModelFitsError: there is no checkpoint of that label set.
            LoadFailedError: there is, and none could be loaded.
        """
        if query.model is not None:
            named = self._find(query.model, query.labels, arrived)
            return named if isinstance(named, Ensemble) else [named]
        rows = self._catalogue.checkpoints()
        # What cannot be loaded, or has no place, is no choice; what lacks weights is one that is missed.
        served = [r for r in rows if r.state != "loadable" or self._placement.serves(r)]
        labels = query.labels or self._settings.labels or default_label_set(served)
        found = [r for r in served if r.labels == labels]
        if len(served) < len(rows) and all(r.state != "loadable" for r in found):
            self._check_not_failing(r for r in rows if r.labels == labels and r.state == "loadable")
        if not found:
            raise NoModelFitsError(f"there is no checkpoint for {labels}; GET /models lists what there is")
        return found

    def _check_not_failing(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Raises LoadFailedError if one of these, of which none is served, could not be loaded: what is tried again
        first."""
        failures = [error for error in map(self._placement.failure, checkpoints) if error is not None]
        if failures:
            raise min(failures, key=lambda e: math.inf if e.retry_after_s is None else e.retry_after_s)

    def _survey(self, candidates: Sequence[Checkpoint] | Ensemble, encoded_bytes: int, deadline: float) -> Survey:
        """How they stand."""
        if not isinstance(candidates, Ensemble):
            return self._placement.survey(candidates, encoded_bytes, deadline)
        survey = self._placement.survey(candidates.members, encoded_bytes, deadline)
        snapshots = [snapshot for _, snapshot in survey.candidates if snapshot is not None]
        known = len(snapshots) == len(candidates.members)
        snapshot = combined(snapshots, self._safety.factor, self._safety.trial) if known else None
        members = tuple(c.checkpoint for c in survey.candidates if isinstance(c.checkpoint, Checkpoint))
        ensemble = candidates if members == candidates.members else Ensemble(members)
        return survey._replace(candidates=[Candidate(ensemble, snapshot)])

    def _choose(self, query: Query, survey: Survey, left_s: float) -> Decision:
        memory_bytes = None if query.memory_mb is None else query.memory_mb * 1e6
        budget = Budget(left_s, memory_bytes, query.min_top1, self.allowed_s(query))
        if query.model is None:
            return choose(survey.candidates, budget, survey.load)
        if not query.has_budget:
            decision = choose(survey.candidates, budget, survey.load, named=True)
            return Decision(decision.checkpoint, None, decision.predicted_s)
        if query.strict:
            return choose(survey.candidates, budget, survey.load, named=True)
        allowed = Budget(left_s, stated_s=self.allowed_s(query))
        decision = choose(survey.candidates, allowed, survey.load, named=True)
        wanted = Budget((query.latency_ms or self._settings.default_latency_ms) / 1000, memory_bytes, query.min_top1)
        try:
            return choose(survey.candidates, wanted, survey.load, named=True)
        except (NoModelFitsError, OverloadedError) as error:
            assert decision.routing is not None
            decision.routing.reason = f"named, and not held to the budget (strict=false): {error}"
            return decision

    def _find(self, model: str, labels: str | None, arrived: float) -> Checkpoint | Ensemble:
        if arrived > self._trusted_until:
            self._named.clear()
            self._trusted_until = arrived + _TRUST_S
        found = self._named.get((model, labels))
        if found is None or not self._serves(found):
            found = self._named[model, labels] = find(self._catalogue, model, labels, self._placement.serves)
        return found

    def _serves(self, found: Checkpoint | Ensemble) -> bool:
        if isinstance(found, Ensemble):
            return all(map(self._placement.serves, found.members))
        return self._placement.serves(found)

    def _refused(self, error: OverloadedError, survey: Survey, left_s: float) -> None:
        """Puts off a caller who is refused, and begins to load what is only not in memory."""
        names = {entry.model for entry in error.considered if entry.rejected == "overloaded"}
        late = [(c, s) for c, s in survey.candidates if s is not None and c.model in names]
        absent = [c for c, s in late if s.load_s and s.alone_s * s.safety <= left_s]
        if absent:
            self._load_soon(max(absent, key=lambda c: c.top1 or 0.0))
        if late:
            # What would have answered most cheaply is what the refusal saves the device from.
            snapshot = min((s for _, s in late), key=lambda s: s.per_picture_s)
            for name, per_picture_s in _takers(snapshot):
                device = self._device(name)
                device.arrived(per_picture_s)
                error.retry_after_s = device.book(error.retry_after_s, per_picture_s)

    def _load_soon(self, checkpoint: Checkpoint | Ensemble) -> None:
        if not self._loading:
            loads = asyncio.gather(*(self._placement.load(member) for member in members_of(checkpoint)))
            self._loading.add(loads)
            loads.add_done_callback(self._loading.discard)

    def _device(self, device: str) -> Comeback:
        return self._comeback.setdefault(device, Comeback())


def _takers(snapshot: Snapshot) -> Sequence[tuple[str, float]]:
    """The devices that a picture takes time of, and how much in the largest batches."""
    if not snapshot.members:
        return ((snapshot.device, snapshot.per_picture_s),)
    return [(device, sum(s.per_picture_s for s in some)) for device, some in snapshot.by_device.items()]
