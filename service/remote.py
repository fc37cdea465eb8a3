"""Predictors in Serve deployments of their own: both ends of the hop.

What crosses is the encoded picture, the checkpoint's name and the time that is left, and a ``Prediction`` or a
``Failure`` back, over Serve's gRPC handles. Errors are values: an exception here means that the hop itself broke.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from models.checkpoints import Catalogue, Checkpoint
from service.errors import Failure, NotReadyError, failure_of
from service.fleet import Deployment
from service.logs import configure_logging
from service.predictor import Prediction
from service.settings import Settings

log = logging.getLogger(__name__)

#: How often the ingress asks every deployment what it has loaded, and how long it waits for the answer.
_ASK_EVERY_S = 1.0
_ASK_WITHIN_S = 2.0
#: Questions in a row that a deployment may leave unanswered before it counts as down: under load it may be slow to
#: answer, and a replica that died is back within as many.
_SILENCES = 3
#: Advice to a client while a replica comes back: about what starting one takes.
_BACK_WITHIN_MS = 5000.0


class Host:
    """The far end: a Serve deployment that hosts the variants of one ``[[deployment]]``."""

    def __init__(self, settings: Settings, deployment: Deployment) -> None:
        # Here and not above: the driver and the ingress need neither torch nor its 300 MB.
        from service.local import local_placement

        configure_logging()
        self._catalogue = Catalogue(settings.cache_dir, untrained=settings.untrained, variants=deployment.names())
        self._placement = local_placement(settings, deployment)
        self._warming = asyncio.get_running_loop().create_task(
            self._placement.warm_up([c for c in self._catalogue.checkpoints() if c.state == "loadable"])
        )

    async def predict(self, image: bytes, checkpoint: str, remaining_s: float) -> Prediction | Failure:
        """Classifies one encoded picture with a checkpoint of this deployment, named as ``googlenet@imagenet1k``."""
        deadline = time.monotonic() + remaining_s
        try:
            found = self._catalogue.find(checkpoint)
        except Exception as error:
            return failure_of(error)
        return await self._placement.predictor(found).predict(image, deadline)

    async def loaded(self) -> list[str] | None:
        """Names of the checkpoints that are loaded and warm; None until all that are to be served are."""
        try:
            self._placement.check_ready()
        except NotReadyError:
            return None
        return [c.name for c in self._catalogue.checkpoints() if self._placement.resident(c)]


class RemotePredictor:
    """The near end of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, handle: Any) -> None:
        self._name = checkpoint.name
        self._handle = handle

    async def predict(self, image: bytes, deadline: float) -> Prediction | Failure:
        """As ``Predictor.predict``, from the ingress.

        While the deployment has no replica, Serve holds the request back until one is there again, at most until the
        deadline.
        """
        remaining_s = deadline - time.monotonic()
        try:
            async with asyncio.timeout(max(remaining_s, 0.001)):
                outcome: Prediction | Failure = await self._handle.predict.remote(image, self._name, remaining_s)
                return outcome
        except TimeoutError:
            return Failure("deadline-missed", f"{self._name} did not answer within {remaining_s * 1000:.0f} ms")
        except Exception as error:
            # Ray's and gRPC's errors for a replica that died; their texts hold addresses and traces.
            log.warning("%s: the hop broke: %s", self._name, type(error).__name__)
            return Failure(
                "not-ready",
                f"{self._name} lost its replica; it comes back by itself",
                {"retry_after_ms": _BACK_WITHIN_MS},
            )


class RemotePlacement:
    """Predictors by the handles of their deployments. Lives on one event loop.

    Args:
        handles: a Serve handle for each hosted variant.
        stopping: whether the service is on its way down.
    """

    def __init__(self, handles: Mapping[str, Any], stopping: Callable[[], bool]) -> None:
        self._handles = handles
        self._stopping = stopping
        self._loaded: dict[str, frozenset[str] | None] = dict.fromkeys(handles)
        self._predictors: dict[str, RemotePredictor] = {}
        self._silences = dict.fromkeys(handles, 0)
        self._was_ready = False

    def predictor(self, checkpoint: Checkpoint) -> RemotePredictor:
        """Raises NotReadyError if no deployment of this fleet hosts the checkpoint."""
        found = self._predictors.get(checkpoint.name)
        if found is None:
            variant = checkpoint.variant.name
            if variant not in self._handles:
                raise NotReadyError(f"{checkpoint.name} came after the service was started; restart it to serve it")
            found = RemotePredictor(checkpoint, self._handles[variant])
            self._predictors[checkpoint.name] = found
        return found

    def resident(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.name in (self._loaded.get(checkpoint.variant.name) or ())

    def serves(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.variant.name in self._handles

    def check_ready(self) -> None:
        if self._stopping():
            raise NotReadyError("the service is stopping")
        missing = [variant for variant, loaded in self._loaded.items() if loaded is None]
        # Once everything has been up, one network that comes back is no reason to send nobody here any more.
        if missing and not (self._was_ready and len(missing) < len(self._loaded)):
            raise NotReadyError(f"waiting for {', '.join(missing)}")
        self._was_ready = True

    async def watch(self) -> None:
        """Keeps asking the deployments what they have loaded. Runs until it is cancelled."""
        while True:
            await asyncio.gather(*(self._ask(variant, handle) for variant, handle in self._handles.items()))
            await asyncio.sleep(_ASK_EVERY_S if self._was_ready else _ASK_EVERY_S / 5)

    async def _ask(self, variant: str, handle: Any) -> None:
        try:
            async with asyncio.timeout(_ASK_WITHIN_S):
                loaded = await handle.loaded.remote()
            self._silences[variant] = 0
            self._loaded[variant] = None if loaded is None else frozenset(loaded)
        except Exception:
            # A timeout, or Ray's and gRPC's errors for a replica that died.
            self._silences[variant] += 1
            if self._silences[variant] >= _SILENCES:
                self._loaded[variant] = None
