"""The replica of a Serve deployment that hosts predictors. ``remote.py`` calls it from the ingress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError
from service.config.fleet import Deployment
from service.config.settings import Settings
from service.domain.errors import DEADLINE_MISSED, Failure, LoadFailedError, NotReadyError, failure_of
from service.domain.placement import Memory
from service.domain.prediction import Prediction
from service.domain.snapshot import Snapshot
from service.profiling.profiles import SIZE_CLASSES
from service.telemetry.logs import configure_logging
from service.telemetry.tracing import continued, start_tracing


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a replica, for the ingress. Plain data that crosses processes."""

    ready: bool
    loaded: frozenset[str]
    """Names of the checkpoints that are in memory and warm."""
    snapshots: dict[str, Snapshot]
    """By checkpoint. Decoding times depend on the picture's size; those of ``decode_s`` replace them."""
    decode_s: dict[str, dict[str, float]]
    """Seconds by checkpoint and size class of the picture."""
    profiled_decode_s: dict[str, dict[str, float]]
    """The same by the profile alone."""
    memory: Memory
    failures: dict[str, Failure] = field(default_factory=dict)
    """Why the last load of a checkpoint failed, by checkpoint. One without a snapshot must not be tried again yet."""
    nothing: Failure | None = None
    """Why nothing is served here, if no hosted checkpoint could be loaded."""


class Replica:
    """A replica of the Serve deployment that hosts the variants of one ``[[deployment]]``.

    Args:
        settings: of the service.
        deployment: its ``[[deployment]]`` in the fleet.
        expose: called with the settings, in the replica's process, to serve its metrics.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: Settings,
        deployment: Deployment,
        expose: Callable[[Settings], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._stop_tracing = start_tracing(settings)
        self._unload_within_s = settings.default_latency_ms / 1000
        # Imported here, so that the driver and the ingress do not load torch, which takes 300 MB.
        from service.assembly.local import local_placement, serve

        configure_logging(settings.log_format)
        expose(settings)
        self._catalogue = Catalogue(settings.cache_dir, untrained=settings.untrained, variants=deployment.names())
        self._placement = local_placement(settings, deployment)
        self._warming = asyncio.get_running_loop().create_task(
            serve(self._placement, [c for c in self._catalogue.checkpoints() if c.state == "loadable"])
        )

    async def predict(
        self,
        image: bytes,
        checkpoint: str,
        remaining_s: float,
        traceparent: str | None = None,
        whole: bool = False,
        caller: str = "",
    ) -> Prediction | Failure:
        """Classifies one picture.

        Args:
            image: the bytes of an encoded picture.
            checkpoint: the name of a checkpoint of this deployment, such as ``googlenet@imagenet1k``.
            remaining_s: until the answer is due. Clocks of two processes may differ, so no deadline crosses.
            traceparent: the span of the ingress that this belongs to, if it is traced.
            whole: as for ``Predicts.predict``.
            caller: who asks the ingress.
        """
        deadline = self._clock() + remaining_s
        try:
            found = self._loadable(checkpoint)
        except Exception as error:
            return failure_of(error)
        with continued(traceparent):
            return await self._placement.predictor(found).predict(image, deadline, whole, caller)

    def __del__(self) -> None:
        """Sends the last spans. Serve calls this before it ends the replica's process, where Python does not clean
        up."""
        self._stop_tracing()

    async def load(self, checkpoint: str) -> Failure | None:
        """Loads a checkpoint, as ``Placement.load`` says."""
        try:
            return await self._placement.load(self._loadable(checkpoint))
        except Exception as error:
            return failure_of(error)

    async def unload(self, checkpoint: str, wait: bool) -> Failure | None:
        """Frees a checkpoint's memory, as ``Placement.unload`` says. The call goes on if the ingress stops waiting, so
        the wait is bounded here too."""
        try:
            async with asyncio.timeout(self._unload_within_s):
                return await self._placement.unload(self._loadable(checkpoint), wait=wait)
        except TimeoutError:
            return Failure(DEADLINE_MISSED, f"{checkpoint} is still in use, and stays in memory")
        except Exception as error:
            return failure_of(error)

    async def report(self) -> Report:
        """The state of this deployment's checkpoints now."""
        ready, nothing = False, None
        try:
            self._placement.check_ready()
            ready = True
        except NotReadyError:
            pass
        except LoadFailedError as error:
            nothing = failure_of(error)
        # A checkpoint that must not be tried again yet has no snapshot.
        checkpoints = [c for c in self._catalogue.checkpoints() if c.state == "loadable"]
        failed = [(c.name, self._placement.failure(c)) for c in checkpoints]
        snapshots = {c.name: s for c, s in self._placement.survey(checkpoints, 0).snapshots if s is not None}
        forecasts = {c.name: self._placement.predictor(c).forecast for c in checkpoints if c.name in snapshots}
        return Report(
            ready=ready,
            loaded=frozenset(c.name for c in checkpoints if self._placement.resident(c)),
            snapshots=snapshots,
            decode_s={
                name: {kind: forecast.decode_s(most)[0] for kind, most in SIZE_CLASSES.items()}
                for name, forecast in forecasts.items()
            },
            profiled_decode_s={
                name: {kind: forecast.decode_s(most)[1] for kind, most in SIZE_CLASSES.items()}
                for name, forecast in forecasts.items()
            },
            memory=self._placement.memory()[0],
            failures={name: failure_of(error) for name, error in failed if error is not None},
            nothing=nothing,
        )

    def _loadable(self, name: str) -> Checkpoint:
        """The checkpoint of that name.

        Raises:
            UnknownModelError, WeightsMissingError: its file was removed after the ingress had decided on it.
        """
        found = self._catalogue.find(name)
        if found.state != "loadable":
            raise WeightsMissingError(found)
        return found
