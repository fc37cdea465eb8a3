"""The router without some of the corrections that it lays over its predictions: each has a stand-in that corrects
nothing, so that the simulation shows what the correction is worth."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.config.settings import Settings
from service.domain.decision import LEAST_SAFETY
from service.domain.ensemble import Ensemble
from service.domain.picture import Picture
from service.domain.placement import Placement
from service.domain.quiet import Quiet
from service.domain.snapshot import Candidate, DeviceLoad, LastChoice
from service.profiling.forecast import Forecast
from service.routing.last_choices import LastChoices
from service.routing.safety import Safety
from service.twin.policies import Policy
from service.twin.scenario import ScenarioError

#: The corrections, and what stands where one is switched off.
CORRECTIONS: Mapping[str, str] = {
    "spread": "an answer's own pass takes its mean, not its 95th percentile",
    "passes": "forward passes take what the profile says, whatever they took",
    "decodes": "decoding takes what the profile says, whatever it took",
    "safety": "late answers do not raise the safety factor above its minimum",
    "promises": "a picture may make others late that were let in before it",
    "trials": "nobody is let in to test a prediction",
    "last choice": "each choice begins anew",
    "price": "device time costs nothing",
    "fading": "what was learned counts however long a network is not used",
}


class Without(Policy):
    """The router without some corrections.

    Args:
        names: of the corrections that are switched off; ``all`` stands for every one.
        catalogue, placement, settings, clock: as for ``Router``.

    Raises:
        ScenarioError: there is no such correction.
    """

    def __init__(
        self,
        names: Iterable[str],
        catalogue: Catalogue,
        placement: Placement,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(catalogue, placement, settings, clock)
        self._off = frozenset(one for name in names for one in (CORRECTIONS if name == "all" else (name,)))
        for name in self._off - CORRECTIONS.keys():
            raise ScenarioError(f"there is no correction {name!r}; known: {', '.join(CORRECTIONS)}, all")
        self._stand_ins: dict[str, Safety] = {}
        if "last choice" in self._off:
            self._last = _NoLastChoices(clock)

    def warmed(self, forecasts: Iterable[Forecast]) -> None:
        for forecast in forecasts:
            if "spread" in self._off:
                forecast.profiled_forward_s /= forecast.spread
                forecast.spread = 1.0
            if "passes" in self._off:
                forecast.learn = _learn_nothing  # type: ignore[method-assign]
            if "decodes" in self._off:
                forecast.learn_decode = _learn_nothing  # type: ignore[method-assign]
            if "fading" in self._off:
                forecast._quiet = _NeverQuiet(self._clock)
            forecast._draw()

    def safety(self, checkpoint: Checkpoint) -> Safety:
        if self._off.isdisjoint(("safety", "trials", "fading")):
            return super().safety(checkpoint)
        known = self._stand_ins.get(checkpoint.name)
        if known is None:
            quiet = _NeverQuiet(self._clock) if "fading" in self._off else Quiet(self._clock)
            known = self._stand_ins[checkpoint.name] = _Safety(self._off, self._clock, quiet)
        return known

    def _survey(
        self,
        candidates: Sequence[Checkpoint | Ensemble],
        encoded_bytes: int,
        deadline: float,
        caller: str,
        picture: bytes | Picture | None,
    ) -> tuple[list[Candidate], DeviceLoad]:
        found, load = super()._survey(candidates, encoded_bytes, deadline, caller, picture)
        return found, load._replace(slack_s={}) if "promises" in self._off else load

    def _press(self, candidates: Sequence[Candidate], caller: str) -> None:
        if "price" not in self._off:
            super()._press(candidates, caller)


class _NoLastChoices(LastChoices):
    def get(self, budget: Hashable) -> LastChoice | None:
        return None


class _NeverQuiet(Quiet):
    def kept(self, seconds: float) -> float:
        return 1.0


class _Safety(Safety):
    def __init__(self, off: frozenset[str], clock: Callable[[], float], quiet: Quiet) -> None:
        super().__init__(clock, quiet)
        self._off = off

    @property
    def factor(self) -> float:
        return LEAST_SAFETY if "safety" in self._off else super().factor

    @property
    def trial(self) -> bool:
        return "trials" not in self._off and super().trial


def _learn_nothing(*_measured: object, **_more: object) -> None:
    pass
