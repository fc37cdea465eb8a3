"""From a query to a decision: looks up what may answer and how it stands, asks the router, tells the refused when to
come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from models.checkpoints import Catalogue, Checkpoint, WeightsMissingError
from service.comeback import Comeback
from service.errors import NoModelFitsError, OverloadedError
from service.placement import Placement, Survey
from service.promises import Promises
from service.router import choose, default_label_set
from service.schemas import ClassifyQuery
from service.settings import Settings
from service.standing import Budget, Decision

#: How long a named checkpoint that can be served is served without a look at the disk: each look gives the
#: interpreter's lock away, and getting it back from busy threads costs more than the look.
_TRUST_S = 1.0


class Decider:
    """Decides for each picture which checkpoint answers it. Lives on one event loop."""

    def __init__(self, catalogue: Catalogue, placement: Placement, settings: Settings) -> None:
        self._catalogue = catalogue
        self._placement = placement
        self._settings = settings
        self._named: dict[tuple[str, str | None], Checkpoint] = {}
        self._trusted_until = 0.0
        self._comeback: dict[str, Comeback] = {}
        self._promises: dict[str, Promises] = {}
        self._loading: set[asyncio.Task[object]] = set()

    def allowed_s(self, query: ClassifyQuery) -> float:
        """How long the answer may take, from the arrival on. Without a model that has to keep to it, the default."""
        binding = query.strict or query.model is None
        return ((query.latency_ms if binding else None) or self._settings.default_latency_ms) / 1000

    def decide(
        self,
        query: ClassifyQuery,
        checkpoints: Sequence[Checkpoint],
        arrived: float,
        encoded_bytes: int,
        *,
        supposing: bool = False,
    ) -> Decision:
        """The checkpoint for a picture of that size.

        Args:
            query: what the caller asks for.
            checkpoints: its ``candidates``.
            arrived: when, on ``time.monotonic()``.
            encoded_bytes: of the picture.
            supposing: no picture has come; nothing is booked, counted or loaded.

        Raises:
            WeightsMissingError: nothing of what may answer is there.
            NoModelFitsError: the budget could not be met with empty queues either.
            OverloadedError: it could, but not now.
        """
        deadline = arrived + self.allowed_s(query)
        survey = self._placement.survey(checkpoints, encoded_bytes, deadline)
        slack_s = {device: promises.slack_s(deadline) for device, promises in self._promises.items()}
        survey = survey._replace(load=survey.load._replace(slack_s=slack_s))
        if query.model is not None and survey.candidates[0].standing is None:
            # Nobody is there to ask how it stands; the predictor says why.
            return Decision(checkpoints[0])
        elapsed_s = time.monotonic() - arrived
        left_s = max(1e-6, self.allowed_s(query) - elapsed_s)
        try:
            decision = self._choose(query, survey, left_s)
        except OverloadedError as error:
            if not supposing:
                self._refused(error, survey, left_s)
            raise
        (standing,) = (s for c, s in survey.candidates if c is decision.checkpoint)
        if standing is not None and not supposing:
            self._device(standing.device).let_in(standing.per_picture_s)
        if decision.routing is not None and decision.predicted_s is not None:
            decision.routing.predicted_ms = round((elapsed_s + decision.predicted_s) * 1000, 3)
        return decision._replace(standing=standing)

    def promise(self, decision: Decision, deadline: float) -> AbstractContextManager[None]:
        """Holds the picture's time on the device against those who come later, until it is answered."""
        standing, predicted_s = decision.standing, decision.predicted_s
        if standing is None or predicted_s is None:
            return nullcontext()
        slack_s = (deadline - time.monotonic()) / standing.safety - predicted_s
        return self._promises.setdefault(standing.device, Promises()).made(deadline, slack_s, standing.takes_s)

    def candidates(self, query: ClassifyQuery, arrived: float) -> Sequence[Checkpoint]:
        """The checkpoint that is named, or those of the label set that is asked for.

        Raises:
            UnknownModelError, WeightsMissingError: what is named is not there.
            NoModelFitsError: there is no checkpoint of that label set.
        """
        if query.model is not None:
            return [self._find(query.model, query.labels, arrived)]
        rows = self._catalogue.checkpoints()
        labels = query.labels or self._settings.labels or default_label_set(rows)
        # What is known to be damaged, or has no place, is no choice; what lacks weights is one that is missed.
        found = [r for r in rows if r.labels == labels and (r.state != "loadable" or self._placement.serves(r))]
        if not found:
            raise NoModelFitsError(f"there is no checkpoint for {labels}; GET /models lists what there is")
        return found

    def _choose(self, query: ClassifyQuery, survey: Survey, left_s: float) -> Decision:
        memory_bytes = None if query.memory_mb is None else query.memory_mb * 1e6
        budget = Budget(left_s, memory_bytes, query.min_top1, self.allowed_s(query))
        if query.model is None:
            return choose(survey.candidates, budget, survey.load)
        if not query.has_budget:
            decision = choose(survey.candidates, budget, survey.load, named=True)
            return Decision(decision.checkpoint, None, decision.predicted_s)
        if query.strict:
            return choose(survey.candidates, budget, survey.load, named=True)
        decision = choose(survey.candidates, Budget(left_s), survey.load, named=True)
        wanted = Budget((query.latency_ms or self._settings.default_latency_ms) / 1000, memory_bytes, query.min_top1)
        try:
            return choose(survey.candidates, wanted, survey.load, named=True)
        except (NoModelFitsError, OverloadedError) as error:
            assert decision.routing is not None
            decision.routing.reason = f"named, and not held to the budget (strict=false): {error}"
            return decision

    def _find(self, model: str, labels: str | None, arrived: float) -> Checkpoint:
        if arrived > self._trusted_until:
            self._named.clear()
            self._trusted_until = arrived + _TRUST_S
        checkpoint = self._named.get((model, labels))
        if checkpoint is None:
            checkpoint = self._catalogue.find(model, labels)
            if checkpoint.state != "loadable":
                raise WeightsMissingError(checkpoint)
            self._named[model, labels] = checkpoint
        return checkpoint

    def _refused(self, error: OverloadedError, survey: Survey, left_s: float) -> None:
        """Puts off a caller who is refused, and begins to load what is only not in memory."""
        names = {entry.model for entry in error.considered if entry.rejected == "overloaded"}
        late = [(c, s) for c, s in survey.candidates if s is not None and c.variant.name in names]
        absent = [c for c, s in late if s.load_s and s.alone_s * s.safety <= left_s]
        if absent:
            self._load_soon(max(absent, key=lambda c: c.top1 or 0.0))
        if late:
            # What would have answered most cheaply is what the refusal saves the device from.
            standing = min((s for _, s in late), key=lambda s: s.per_picture_s)
            device = self._device(standing.device)
            device.arrived(standing.per_picture_s)
            error.retry_after_s = device.book(error.retry_after_s, standing.per_picture_s)

    def _load_soon(self, checkpoint: Checkpoint) -> None:
        if not self._loading:
            task: asyncio.Task[object] = asyncio.get_running_loop().create_task(self._placement.load(checkpoint))
            self._loading.add(task)
            task.add_done_callback(self._loading.discard)

    def _device(self, device: str) -> Comeback:
        return self._comeback.setdefault(device, Comeback())
