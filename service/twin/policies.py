"""Ways to choose the network for a picture: the service's own router, and the baselines that it is compared with.

Each answers the interface of the router, so that everything behind the choice (queues, batches, deadlines, memory) is
the same. A caller who names a network gets that network, whatever the policy. No policy gives an answer that the caller
has ruled out: below ``min_top1``, or above ``memory_mb``.

    router            the service's own
    constant:NAME     always that network, and whoever asks is let in
    guarded:NAME      the same behind the router's admission: whoever could not be answered in time is refused
    infaas            the cheapest network that fits by its profile, blind to queues (Romero et al., 2021)
    classes:A,B,...   a constant network for each row of the mix, in their order; ``-`` where the row names one
    without:A,B,...   the service's own without these corrections of its predictions (``without.py``)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.networks.variants import UnknownModelError, find_variant
from service.config.settings import Settings
from service.domain.decision import Decision
from service.domain.ensemble import Ensemble
from service.domain.errors import NoModelFitsError
from service.domain.picture import Picture
from service.domain.placement import Placement
from service.domain.query import Query
from service.domain.snapshot import Snapshot
from service.profiling.forecast import Forecast
from service.routing.router import Router
from service.twin.scenario import ScenarioError


class Policy(Router):
    """The router, with a note of each of its decisions.

    Args:
        catalogue, placement, settings, clock: as for ``Router``.
    """

    def __init__(
        self, catalogue: Catalogue, placement: Placement, settings: Settings, clock: Callable[[], float]
    ) -> None:
        super().__init__(catalogue, placement, settings, clock)
        self._surveyed = placement
        self._default_ms = settings.default_latency_ms
        self.choices: list[tuple[Query, str]] = []
        """Which query was answered with which network, in the order of the decisions."""
        self.took_s: list[float] = []
        """Real seconds of each decision."""

    def warmed(self, forecasts: Iterable[Forecast]) -> None:
        """Is told the forecasts of all networks, once these are in memory."""

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
        began = time.perf_counter()
        try:
            decision = self._pick(query, candidates, arrived, encoded_bytes, caller, picture)
        finally:
            self.took_s.append(time.perf_counter() - began)
        self.choices.append((query, decision.checkpoint.model))
        return decision

    def _pick(
        self,
        query: Query,
        candidates: Sequence[Checkpoint | Ensemble],
        arrived: float,
        encoded_bytes: int,
        caller: str,
        picture: bytes | Picture | None,
    ) -> Decision:
        return super().decide(query, candidates, arrived, encoded_bytes, caller, picture=picture)

    def _allowed(
        self, query: Query, candidates: Sequence[Checkpoint], encoded_bytes: int, picture: bytes | Picture | None
    ) -> list[tuple[Checkpoint, Snapshot]]:
        """The candidates that the caller has not ruled out, with their snapshots."""
        outline = None if picture is None or isinstance(picture, bytes) else picture.outline
        found = self._surveyed.survey(candidates, encoded_bytes, outline=outline).snapshots
        return [(c, s) for c, s in found if s is not None and s.fits and _allows(query, c, s)]


class Constant(Policy):
    """Answers each query with the network that a function names."""

    def __init__(
        self,
        network: Callable[[Query], str],
        catalogue: Catalogue,
        placement: Placement,
        settings: Settings,
        clock: Callable[[], float],
        *,
        guarded: bool = False,
    ) -> None:
        super().__init__(catalogue, placement, settings, clock)
        self._network = network
        self._guarded = guarded

    def _pick(
        self,
        query: Query,
        candidates: Sequence[Checkpoint | Ensemble],
        arrived: float,
        encoded_bytes: int,
        caller: str,
        picture: bytes | Picture | None,
    ) -> Decision:
        if query.model is not None:
            return _named(self, query, candidates, arrived, encoded_bytes, caller, picture, guarded=self._guarded)
        name = self._network(query)
        mine = [c for c in _alone(candidates) if c.model == name]
        if self._guarded:
            return super()._pick(query, mine, arrived, encoded_bytes, caller, picture)
        allowed = self._allowed(query, mine, encoded_bytes, picture)
        if not allowed:
            raise NoModelFitsError(f"{name} is not what the caller allows", [])
        return Decision(allowed[0][0])


class Cheapest(Policy):
    """The network that takes the least device time of those whose profiled time is within the budget."""

    def _pick(
        self,
        query: Query,
        candidates: Sequence[Checkpoint | Ensemble],
        arrived: float,
        encoded_bytes: int,
        caller: str,
        picture: bytes | Picture | None,
    ) -> Decision:
        if query.model is not None:
            return _named(self, query, candidates, arrived, encoded_bytes, caller, picture)
        allowed = self._allowed(query, _alone(candidates), encoded_bytes, picture)
        within_s = query.allowed_s(self._default_ms)
        fitting = [(c, s) for c, s in allowed if s.alone_s <= within_s]
        if not fitting:
            raise NoModelFitsError("none fits by its profile", [])
        # By the profile alone: neither queues nor what was learned count.
        return Decision(min(fitting, key=lambda pair: (pair[1].profiled_forward_s, pair[0].name))[0])


def _named(
    policy: Policy,
    query: Query,
    candidates: Sequence[Checkpoint | Ensemble],
    arrived: float,
    encoded_bytes: int,
    caller: str,
    picture: bytes | Picture | None,
    *,
    guarded: bool = False,
) -> Decision:
    if guarded or isinstance(candidates[0], Ensemble):
        return Policy._pick(policy, query, candidates, arrived, encoded_bytes, caller, picture)
    return Decision(candidates[0])


def _alone(candidates: Sequence[Checkpoint | Ensemble]) -> list[Checkpoint]:
    """The candidates that are one network."""
    return [candidate for candidate in candidates if isinstance(candidate, Checkpoint)]


def _allows(query: Query, checkpoint: Checkpoint, snapshot: Snapshot) -> bool:
    if query.memory_mb is not None and snapshot.footprint_bytes > query.memory_mb * 1e6:
        return False
    # As the router: a network whose accuracy nobody knows is never chosen.
    return checkpoint.top1 is not None and (query.min_top1 is None or checkpoint.top1 >= query.min_top1)


def policy(
    name: str,
    queries: Sequence[Query],
    catalogue: Catalogue,
    placement: Placement,
    settings: Settings,
    clock: Callable[[], float],
) -> Policy:
    """The policy of a name.

    Args:
        name: as in the table above.
        queries: those of the mix, in its order.
        catalogue, placement, settings, clock: as for ``Router``.

    Raises:
        ScenarioError: there is no such policy.
    """
    kind, _, rest = name.partition(":")
    try:
        match kind:
            case "router" if not rest:
                return Policy(catalogue, placement, settings, clock)
            case "infaas" if not rest:
                return Cheapest(catalogue, placement, settings, clock)
            case "without":
                # It is built on this file.
                from service.twin.without import Without

                return Without(rest.split(","), catalogue, placement, settings, clock)
            case "constant" | "guarded":
                only = find_variant(rest).name
                return Constant(lambda _: only, catalogue, placement, settings, clock, guarded=kind == "guarded")
            case "classes" | "guarded-classes":
                by_query = _by_query(rest, queries)
                return Constant(
                    lambda query: by_query[id(query)],
                    catalogue,
                    placement,
                    settings,
                    clock,
                    guarded=kind == "guarded-classes",
                )
    except UnknownModelError as error:
        raise ScenarioError(f"policy {name}: {error}") from error
    raise ScenarioError(
        f"unknown policy {name!r}; known: router, infaas, constant:NAME, guarded:NAME, classes:NAME,..., "
        "without:CORRECTION,..."
    )


def _by_query(names: str, queries: Sequence[Query]) -> dict[int, str]:
    listed = names.split(",")
    if len(listed) != len(queries):
        raise ScenarioError(f"{len(listed)} networks for {len(queries)} rows of the mix")
    # Two rows may have equal queries, with other pictures.
    return {
        id(query): "" if name == "-" else find_variant(name).name for query, name in zip(queries, listed, strict=True)
    }
