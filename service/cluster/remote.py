"""Predictors in Serve deployments of their own, as the ingress sees them. ``replica.py`` is the other side.

A request carries the encoded picture, the checkpoint's name, the time that is left, its span if it is traced, and
whether the probabilities of all classes are wanted. A ``Prediction`` or a ``Failure`` comes back. Both cross over
Serve's gRPC handles. Errors are values: an exception means that the connection to the replica broke. Once a second the
ingress asks each deployment for a report of its checkpoints, and adds the pictures that it has sent since.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from models.checkpoints.catalogue import Checkpoint
from models.images.cost import price
from models.images.outline import Outline
from service.cluster.replica import Report
from service.domain.errors import Failure, LoadFailedError, NotReadyError, failure_of, of_a_load
from service.domain.picture import Picture
from service.domain.placement import Memory, Survey
from service.domain.prediction import Prediction
from service.domain.snapshot import DeviceLoad, Snapshot
from service.profiling.profiles import size_class
from service.telemetry.gauges import Reading, watch
from service.telemetry.tracing import traceparent

log = logging.getLogger(__name__)

#: How often the ingress asks each deployment for a report, and how long it waits for one.
_ASK_EVERY_S = 1.0
_ASK_WITHIN_S = 2.0
#: A deployment is down after this many missing reports in a row. One may be slow under load, and a replica that died is
#: usually back before the third.
_MISSING_REPORTS = 3
#: The Retry-After while a replica restarts: about the time that a start takes.
_BACK_WITHIN_MS = 5000.0


class RemotePredictor:
    """One checkpoint that a deployment serves, on the ingress's side.

    Args:
        checkpoint: the checkpoint to serve.
        handle: the Serve handle of its deployment.
        clock: seconds, monotonic, as deadlines are.
    """

    def __init__(self, checkpoint: Checkpoint, handle: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.checkpoint = checkpoint
        self._name = checkpoint.name
        self._handle = handle
        self.sent: list[float] = []
        """The deadlines of the pictures that were sent and not answered yet."""
        self.others = 0
        """Pictures of other ingress replicas in the deployment's queue, by the last report."""
        self.failed: Failure | None = None
        """Why a load failed, if one did since the last report."""

    async def predict(
        self, image: bytes | Picture, deadline: float, whole: bool = False, caller: str = ""
    ) -> Prediction | Failure:
        """Classifies one picture, as ``Predicts`` says.

        While the deployment has no replica, Serve holds the request back until one has started, but not beyond the
        deadline.
        """
        assert isinstance(image, bytes)  # only a device owner has pictures whose bytes are elsewhere
        remaining_s, span = deadline - self._clock(), traceparent()
        # Replicas of the version before this one know fewer arguments.
        rest = (span, whole, caller) if caller else (span, True) if whole else () if span is None else (span,)
        self.sent.append(deadline)
        try:
            async with asyncio.timeout(max(remaining_s, 0.001)):
                outcome: Prediction | Failure = await self._handle.predict.remote(image, self._name, remaining_s, *rest)
                if of_a_load(outcome):
                    assert isinstance(outcome, Failure)
                    self.failed = outcome
                return outcome
        except TimeoutError:
            return Failure("deadline-missed", f"{self._name} did not answer within {remaining_s * 1000:.0f} ms")
        except Exception as error:
            return broken(self._name, error)
        finally:
            self.sent.remove(deadline)


def broken(name: str, error: Exception) -> Failure:
    """The failure that a client sees when the connection to a replica breaks. It leaves out the error's text, since
    those of Ray and gRPC contain addresses and stack traces."""
    log.warning("%s: the connection to its replica broke: %s", name, type(error).__name__)
    return Failure(
        "not-ready", f"{name} lost its replica; it comes back by itself", {"retry_after_ms": _BACK_WITHIN_MS}
    )


def _raised(failure: Failure) -> LoadFailedError:
    """The failure of a load as the error that the replica raised."""
    retry_after_ms = failure.extras.get("retry_after_ms")
    return LoadFailedError(failure.detail, None if retry_after_ms is None else retry_after_ms / 1000, failure.slug)


class RemotePlacement:
    """A placement of predictors in Serve deployments. Not thread-safe: use it from one event loop.

    Args:
        handles: a Serve handle for each hosted variant.
        stopping: whether the service is stopping.
        replicas: how many replicas the deployment of each variant has; one by default.
        clock: seconds, monotonic, as deadlines are.
    """

    def __init__(
        self,
        handles: Mapping[str, Any],
        stopping: Callable[[], bool],
        replicas: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._handles = handles
        self._stopping = stopping
        self._replicas = replicas or {}
        self._reports: dict[str, Report | None] = dict.fromkeys(handles)
        self._known: dict[str, frozenset[str]] = {}
        """The checkpoints in each deployment's last report, which are kept while it is down."""
        self._predictors: dict[str, RemotePredictor] = {}
        self._missing_reports = dict.fromkeys(handles, 0)
        self._was_ready = False
        watch(self)

    def predictor(self, checkpoint: Checkpoint) -> RemotePredictor:
        """The predictor of a checkpoint.

        Raises:
            NotReadyError: no deployment of this fleet hosts the checkpoint.
        """
        found = self._predictors.get(checkpoint.name)
        if found is None:
            variant = checkpoint.variant.name
            if variant not in self._handles:
                raise NotReadyError(f"no deployment hosts {checkpoint.name}: restart the service to serve it")
            found = RemotePredictor(checkpoint, self._handles[variant], self._clock)
            self._predictors[checkpoint.name] = found
        return found

    def at_once(self, checkpoint: Checkpoint, within_s: float) -> Checkpoint | None:
        # A snapshot costs little beside the call to the replica.
        return None

    def resident(self, checkpoint: Checkpoint) -> bool:
        report = self._reports.get(checkpoint.variant.name)
        return report is not None and checkpoint.name in report.loaded

    def serves(self, checkpoint: Checkpoint) -> bool:
        variant = checkpoint.variant.name
        predictor = self._predictors.get(checkpoint.name)
        if variant not in self._handles or (predictor is not None and predictor.failed is not None):
            return False
        # Weights that were installed after the start are served once a report has them.
        known = self._known.get(variant)
        return known is None or checkpoint.name in known

    def failure(self, checkpoint: Checkpoint) -> LoadFailedError | None:
        predictor = self._predictors.get(checkpoint.name)
        failure = None if predictor is None else predictor.failed
        report = self._reports.get(checkpoint.variant.name)
        if failure is None and report is not None:
            failure = report.failures.get(checkpoint.name)
        return None if failure is None else _raised(failure)

    def check_ready(self) -> None:
        if self._stopping():
            raise NotReadyError("the service is stopping")
        reports = self._reports.values()
        missing, ready = self._missing(), any(report is not None and report.ready for report in reports)
        # Once everything was ready, the service stays ready while a replica restarts, if another is up.
        if missing and not (self._was_ready and ready):
            raise NotReadyError(f"waiting for {', '.join(missing)}")
        nothing = [report.nothing for report in reports if report is not None and report.nothing is not None]
        if nothing and not ready:
            # Each deployment reports its own failure; one is enough.
            raise _raised(nothing[0])
        self._was_ready = True

    def _missing(self) -> list[str]:
        """The variants whose deployments are starting or down. One that can load nothing is neither: it will not become
        ready by waiting."""
        return [
            variant
            for variant, report in self._reports.items()
            if report is None or (not report.ready and report.nothing is None)
        ]

    def survey(
        self,
        checkpoints: Sequence[Checkpoint],
        encoded_bytes: int,
        deadline: float = math.inf,
        _caller: str = "",
        outline: Outline | None = None,
    ) -> Survey:
        """Takes snapshots from the last reports. Each deployment is a device of its own; its queue is the pictures that
        were sent and are not answered."""
        kind = size_class(encoded_bytes)
        snapshots = [(c, self._snapshot(c, kind, deadline, outline)) for c in checkpoints]
        # Queues of other checkpoints on the same deployment delay the candidates too.
        asked = {c.name for c in checkpoints}
        waiting = [snapshot for _, snapshot in snapshots if snapshot is not None and snapshot.queued]
        for name, predictor in self._predictors.items():
            snapshot = (
                self._snapshot(predictor.checkpoint, kind, deadline, outline)
                if predictor.sent and name not in asked
                else None
            )
            if snapshot is not None:
                waiting.append(snapshot)
        return Survey(snapshots, DeviceLoad({}, waiting))

    def _snapshot(self, checkpoint: Checkpoint, kind: str, deadline: float, outline: Outline | None) -> Snapshot | None:
        report = self._reports.get(checkpoint.variant.name)
        snapshot = None if report is None else report.snapshots.get(checkpoint.name)
        if report is None or snapshot is None:
            return None
        predictor = self.predictor(checkpoint)
        replicas = self._replicas.get(checkpoint.variant.name, 1)
        # The replica has measured photographs; what is unlike one takes its price.
        priced_s = 0.0
        if outline is not None and outline.kind != "jpeg":
            priced_s = price(outline, checkpoint.preprocess).seconds
        profiled_s = report.profiled_decode_s[checkpoint.name][kind]
        return snapshot._replace(
            device=report.memory.device,
            decode_s=max(priced_s, report.decode_s[checkpoint.name][kind]),
            profiled_decode_s=max(priced_s, profiled_s) if profiled_s else 0.0,
            ahead=-(-(sum(sent <= deadline for sent in predictor.sent) + predictor.others) // replicas),
            queued=-(-(len(predictor.sent) + predictor.others) // replicas),
        )

    def readings(self) -> Iterator[Reading]:
        """Whether the service is ready, for Prometheus. The replicas expose all other gauges."""
        ready = sum(report is not None and report.ready for report in list(self._reports.values()))
        up = ready > 0 if self._was_ready else not self._missing() and (ready > 0 or not self._reports)
        yield Reading("topfive_ready", float(up and not self._stopping()))

    def memory(self) -> list[Memory]:
        return list({r.memory.device: r.memory for r in self._reports.values() if r is not None}.values())

    async def load(self, checkpoint: Checkpoint) -> Failure | None:
        return await self._ask_for(checkpoint, "load")

    async def unload(self, checkpoint: Checkpoint, *, wait: bool) -> Failure | None:
        return await self._ask_for(checkpoint, "unload", wait)

    async def _ask_for(self, checkpoint: Checkpoint, what: str, *arguments: object) -> Failure | None:
        variant = checkpoint.variant.name
        if variant not in self._handles:
            return failure_of(NotReadyError(f"no deployment of this service hosts {checkpoint.name}"))
        try:
            failure: Failure | None = await getattr(self._handles[variant], what).remote(checkpoint.name, *arguments)
        except Exception as error:
            return broken(checkpoint.name, error)
        await self._ask(variant, self._handles[variant])
        return failure

    async def watch(self) -> None:
        """Asks every deployment for its report, again and again. Runs until it is cancelled."""
        while True:
            await asyncio.gather(*(self._ask(variant, handle) for variant, handle in self._handles.items()))
            await asyncio.sleep(_ASK_EVERY_S if self._was_ready else _ASK_EVERY_S / 5)

    async def _ask(self, variant: str, handle: Any) -> None:
        try:
            async with asyncio.timeout(_ASK_WITHIN_S):
                report: Report = await handle.report.remote()
            self._reports[variant] = report
            self._known[variant] = frozenset(report.snapshots)
            self._missing_reports[variant] = 0
        except Exception:
            # A timeout, or one of many errors of Ray and gRPC for a replica that died.
            self._missing_reports[variant] += 1
            if self._missing_reports[variant] >= _MISSING_REPORTS:
                self._reports[variant] = None
            return
        for predictor in self._predictors.values():
            if predictor.checkpoint.variant.name == variant:
                predictor.failed = None
        for name, snapshot in report.snapshots.items():
            if name in self._predictors:
                predictor = self._predictors[name]
                predictor.others = max(0, snapshot.queued - len(predictor.sent))
