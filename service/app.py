"""The wiring: settings and a fleet -> a Ray Serve application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve

from service.fleet import Deployment, Fleet
from service.local import local_app
from service.logs import configure_logging
from service.settings import Settings
from service.state import is_stopping


class TopFive:
    """The ingress of the ``local`` fleet. Ray Serve asks it for the ASGI app in the replica's own process."""

    def __init__(self, settings: Settings, deployment: Deployment, folder: Path) -> None:
        configure_logging()
        self._app = local_app(settings, deployment, stopping=lambda: is_stopping(folder))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app


def application(settings: Settings, fleet: Fleet, folder: Path) -> serve.Application:
    """What ``serve.run`` takes. The folder is the service's own (``state.py``)."""
    (deployment,) = fleet.deployment
    # Ray's decorators return one type or another by how they are called.
    deploy: Any = serve.deployment
    ingress = deploy(
        serve.ingress()(TopFive),
        name="TopFive",
        num_replicas=deployment.replicas,
        ray_actor_options={"num_cpus": deployment.num_cpus, "num_gpus": deployment.num_gpus},
        # Serve's own limit (5 by default) puts requests to sleep unseen; ours refuses them with a time to come back.
        max_ongoing_requests=10_000,
        graceful_shutdown_wait_loop_s=0.05,
        graceful_shutdown_timeout_s=6,
        health_check_period_s=2,
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    bound: serve.Application = ingress.bind(settings, deployment, folder)
    return bound
