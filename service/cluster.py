"""Starting and stopping Ray Serve and its HAProxy for one service on this machine.

Every service has a Ray instance and a HAProxy of its own, with its files in a folder of its own, so that several run
side by side and none attaches to another's.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.fleet import Fleet
from service.settings import Settings

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatus

APPLICATION = "topfive"
#: Ray's object store carries no pictures here; 80 MB is about the least that Ray takes.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024


class PortTakenError(OSError):
    """The port is not free."""


class Cluster:
    """One service's Ray and HAProxy. ``start`` blocks until the replicas run, ``stop`` until all of it is gone."""

    def __init__(self, settings: Settings, fleet: Fleet) -> None:
        self._settings = settings
        self._fleet = fleet
        # Short, since HAProxy's sockets lie in it and a socket's path has 108 bytes at most.
        self._folder = Path(tempfile.mkdtemp(prefix="topfive-"))

    def start(self, after_ray: Callable[[], None]) -> None:
        """Starts Ray, calls ``after_ray`` (Ray has replaced signal handlers by then), starts the application.

        Raises:
            PortTakenError: before anything is started.
        """
        check_port(self._settings.host, self._settings.port)
        os.environ.update(_environment(self._folder))
        # Ray reads its environment when it is imported.
        import ray
        from ray import serve

        from service.app import application

        # Ray warns at every start that its token authentication is on, which is the default and wanted.
        logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            logging_level=logging.WARNING,
        )
        after_ray()
        _print_replicas_only()
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(
            http_options={"host": self._settings.host, "port": self._settings.port},
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        serve.run(application(self._settings, self._fleet), name=APPLICATION, route_prefix="/")

    def status(self) -> ApplicationStatus:
        """Serve's own word for how the application is."""
        from ray import serve

        return serve.status().applications[APPLICATION].status

    def stop(self) -> None:
        """Replicas first, so that requests are answered while HAProxy still runs, then the rest."""
        import ray
        from ray import serve

        if ray.is_initialized():
            serve.delete(APPLICATION)
            serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def _print_replicas_only() -> None:
    """Prints what our replicas log, and none of the rest of Ray's chatter, which its log files keep."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as streams

    def show(data: dict[str, Any]) -> None:
        if str(data.get("actor_name", "")).startswith("ServeReplica:"):
            print(*data["lines"], sep="\n", file=sys.stderr)  # noqa: T201 - it is a log already

    streams.remove_handler("ray_print_logs")
    streams.add_handler("topfive", show)


def check_port(host: str, port: int) -> None:
    """Raises PortTakenError if something listens there already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTakenError(f"{host}:{port} cannot be served on: {error.strerror}") from error


def _environment(folder: Path) -> dict[str, str]:
    """Ray reads these when it starts, on every node; what the user has set wins."""
    wanted = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # The flag above does not imply these two.
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # Serve's own log goes to files alone; what our replicas log comes to the console (see app.py).
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # 4 MiB by default, which refuses big pictures.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(32 * 1024 * 1024),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1" if (os.cpu_count() or 1) < 8 else "2",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        # With the default of 30 no stop takes less.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # With num_gpus unset a replica would see every GPU.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        # Two services on one machine would share these files and ports.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
