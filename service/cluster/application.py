"""Builds the Ray Serve application from the settings and a fleet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from starlette.types import ASGIApp

from models.checkpoints.catalogue import LOOK_EVERY_S, Catalogue
from service.assembly.front import front_app
from service.cluster.direct import direct
from service.cluster.loopback import listen_here_alone
from service.cluster.metrics_targets import RayTargets, expose
from service.cluster.remote import RemotePlacement
from service.cluster.replica import Replica
from service.config.capacity import FRONT_CPUS, Machine, fronts_of, hosted
from service.config.fleet import Deployment, Fleet
from service.config.settings import Settings
from service.http.access import metrics_reader
from service.http.app import create_app
from service.lifecycle.record import is_stopping
from service.link.sockets import FOLDER
from service.telemetry.logs import configure_logging, log_left_out
from service.telemetry.tracing import start_tracing

#: Options of every deployment. Requests above Serve's own limit (5 by default) would wait out of sight; ours
#: refuses them with a Retry-After, so Serve's limit is out of reach. A stop, and noticing that a replica has died,
#: takes seconds instead of half a minute.
_COMMON: dict[str, Any] = {
    "max_ongoing_requests": 10_000,
    "graceful_shutdown_wait_loop_s": 0.05,
    "graceful_shutdown_timeout_s": 6,
    "health_check_period_s": 1,
    "logging_config": {"log_level": "WARNING", "enable_access_log": False},
}


class Local:
    """The deployment of a fleet without ingress and fronts, which does HTTP and inference. Ray Serve asks for the ASGI
    app in the replica's process."""

    def __init__(self, settings: Settings, deployment: Deployment, folder: Path) -> None:
        # Imported here: the driver imports this file too, and does not need torch, which takes 300 MB.
        from service.assembly.local import local_app

        configure_logging(settings.log_format)
        app = local_app(settings, deployment, lambda: is_stopping(folder), _exposed(settings))
        self._app = direct(app, folder)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app


class Front:
    """A front: it does HTTP and decoding, and asks the device owners of this machine.

    Args:
        settings: of the service.
        folder: the service's.
        fronts: how many there are.
        _owner: the handle of the owners' deployment; a parameter, so that Serve deploys them with the fronts.
    """

    def __init__(self, settings: Settings, folder: Path, fronts: int, _owner: object) -> None:
        configure_logging(settings.log_format)
        _exposed(settings)
        self._app = direct(front_app(settings, folder / FOLDER, fronts), folder)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app


class Owner:
    """A device owner: it decides, queues and computes for the fronts, which connect to its socket."""

    def __init__(self, settings: Settings, deployment: Deployment, folder: Path) -> None:
        # Imported here, as above.
        from service.assembly.local import owner

        configure_logging(settings.log_format)
        sockets = folder / FOLDER
        sockets.mkdir(exist_ok=True)
        path = sockets / f"{serve.get_replica_context().replica_tag}.sock"
        targets = _exposed(settings)
        self._stop = asyncio.Event()
        self._owning = asyncio.get_running_loop().create_task(
            self._own(owner(settings, deployment, path, lambda: is_stopping(folder), targets))
        )

    async def _own(self, owning: AbstractAsyncContextManager[None]) -> None:
        async with owning:
            await self._stop.wait()

    def check_health(self) -> None:
        """Serve asks once a second, and replaces the replica if this raises."""
        if self._owning.done():
            self._owning.result()
            raise RuntimeError("the device owner has ended")

    async def __del__(self) -> None:
        """Serve awaits this before it ends the replica's process."""
        self._stop.set()
        await self._owning


class Gateway:
    """The ingress of other fleets: it does HTTP and asks the deployments of the networks by Serve handles."""

    def __init__(self, settings: Settings, fleet: Fleet, folder: Path, handles: dict[str, Any]) -> None:
        stop_tracing = start_tracing(settings)
        configure_logging(settings.log_format)
        catalogue = Catalogue(
            settings.cache_dir,
            untrained=settings.untrained,
            variants=fleet.names(),
            left_out=log_left_out,
            look_every_s=LOOK_EVERY_S,
        )
        replicas = {name: d.replicas for d in fleet.deployment for name in d.names()}
        placement = RemotePlacement(handles, stopping=lambda: is_stopping(folder), replicas=replicas)

        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
            watching = asyncio.create_task(placement.watch())
            yield
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await asyncio.to_thread(stop_tracing)

        assert fleet.ingress is not None
        shares = fleet.ingress.replicas
        app = create_app(catalogue, placement, settings, lifespan, _exposed(settings), shares)
        self._app = direct(app, folder)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app


def application(settings: Settings, fleet: Fleet, folder: Path) -> serve.Application:
    """The application for ``serve.run``. The folder is the service's (``lifecycle/record.py``)."""
    # The type that Ray's decorators return depends on how they are called.
    deploy: Any = serve.deployment
    fronts = fronts_of(fleet, Machine.this())
    if fleet.ingress is None and fronts:
        (everything,) = fleet.deployment
        owner = deploy(Owner, **_options("owner", everything)).bind(settings, everything, folder)
        front = deploy(
            serve.ingress()(Front),
            name="ingress",
            num_replicas=fronts,
            ray_actor_options={"num_cpus": FRONT_CPUS},
            **_COMMON,
        )
        bound = front.bind(settings, folder, fronts, owner)
    elif fleet.ingress is None:
        (everything,) = fleet.deployment
        bound = deploy(serve.ingress()(Local), **_options("ingress", everything)).bind(settings, everything, folder)
    else:
        loadable = hosted(fleet, Catalogue(settings.cache_dir, untrained=settings.untrained).checkpoints())
        handles: dict[str, Any] = {}
        for deployment in fleet.deployment:
            if deployment.name in loadable:
                host = deploy(Replica, **_options(deployment.name, deployment)).bind(settings, deployment, _exposed)
                handles |= dict.fromkeys(deployment.names(), host)
        gateway = deploy(
            serve.ingress()(Gateway),
            name="ingress",
            num_replicas=fleet.ingress.replicas,
            ray_actor_options={"num_cpus": fleet.ingress.num_cpus},
            **_COMMON,
        )
        bound = gateway.bind(settings, fleet, folder, handles)
    application: serve.Application = bound
    return application


def _exposed(settings: Settings) -> RayTargets:
    """Opens the ports of the replica that this process is: serves its metrics, as the settings say, and keeps Ray
    Serve's port to this machine, if the service is."""
    listen_here_alone()
    return expose(settings.host, metrics_reader(settings))


def _options(name: str, deployment: Deployment) -> dict[str, Any]:
    return {
        "name": name,
        "num_replicas": deployment.replicas,
        "ray_actor_options": {"num_cpus": deployment.num_cpus, "num_gpus": deployment.num_gpus},
        **_COMMON,
    }
