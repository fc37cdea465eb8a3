"""``python -m service.driver``: Ray's driver for one service. Started, fed and ended by ``supervisor.py``.

A process of its own, because Ray takes over what it runs in: it replaces signal handlers, and ends the process when its
own daemons die. Its standard input is the supervisor's hand: a line with the settings to begin with, and the end of
file, sent or left behind by a supervisor that was killed, to stop.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.capacity import Machine, with_device
from service.errors import NotReadyError, failure_of, problem_document
from service.fleet import Fleet, load_fleet
from service.processes import RUN_ID, end_run
from service.settings import Settings
from service.state import read_record

APPLICATION = "topfive"
#: Ray's object store carries no pictures here; 80 MB is about the least that Ray takes.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
#: How long a stop waits for running requests, and for Ray.
_DELETE_WITHIN_S = 6.0
_SHUTDOWN_WITHIN_S = 2.0
_PAGE_WITHIN_S = 5.0


def main() -> None:
    """Starts, waits for the end of standard input, stops."""
    settings = Settings.model_validate_json(sys.stdin.readline())
    folder = Path(sys.argv[1])
    start(settings, with_device(load_fleet(settings.fleet), settings.device, Machine.this()), folder)
    sys.stdin.read()
    stop(folder)


def start(settings: Settings, fleet: Fleet, folder: Path) -> None:
    """Starts Ray, HAProxy and the application; returns when its replicas run."""
    os.environ.update(environment(folder, settings))
    # Once more, as the last: Ray's daemons write their titles over the first kilobyte of their environment.
    os.environ[RUN_ID] = os.environ.pop(RUN_ID)
    # Ray reads its environment when it is imported.
    import ray
    from ray import serve

    from service.app import application

    # Ray warns at every start that its token authentication is on, which is the default and wanted.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=max(1, int(Machine.this().cpus)),
        object_store_memory=_OBJECT_STORE_BYTES,
        logging_level=logging.WARNING,
    )
    _print_replicas_only()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        http_options={"host": settings.host, "port": settings.port},
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    )
    _write_error_page(Path(os.environ["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]).parent)
    serve.run(application(settings, fleet, folder), name=APPLICATION, route_prefix="/")


def stop(folder: Path) -> None:
    """Replicas first, so that running requests are answered while HAProxy still runs, then everything else.

    Each step is bounded: Ray's calls wait for ever on a cluster whose daemons have died.
    """
    import ray
    from ray import serve

    _within(_DELETE_WITHIN_S, lambda: serve.delete(APPLICATION))
    _within(_SHUTDOWN_WITHIN_S, ray.shutdown)
    record = read_record(folder)
    if record is not None:
        end_run(record.run)
    sys.stdout.flush()
    # A call that is still stuck in Ray would keep the process from ending by itself.
    os._exit(0)


def environment(folder: Path, settings: Settings) -> dict[str, str]:
    """What Ray is told before it starts; what the user has set wins."""
    wanted = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # The flag above does not imply these two.
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # Serve's own log goes to files alone; what our replicas log comes to the console (see logs.py).
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # 4 MiB by default, which refuses big pictures; with room for what travels beside them.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(max(32 * 2**20, settings.max_body_bytes + 2**20)),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1" if (os.cpu_count() or 1) < 8 else "2",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        # A HAProxy that died is replaced after three failed checks; the default of 10 makes that half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # Serve's configuration of HAProxy has no place for a line of ours, and takes this value as it is, into the
        # defaults of all its sections: replicas learn where a request comes from (see callers.py).
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure\n    option forwardfor",
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
        # HAProxy's last resort is a proxy of Serve's on a fixed port: another service's, if that came first.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def _within(seconds: float, work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)


def _print_replicas_only() -> None:
    """Prints what our replicas log, and none of the rest of Ray's chatter, which its log files keep."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as streams

    def show(data: dict[str, Any]) -> None:
        if str(data.get("actor_name", "")).startswith("ServeReplica:"):
            print(*data["lines"], sep="\n", file=sys.stderr)  # noqa: T201 - it is a log already

    streams.remove_handler("ray_print_logs")
    streams.add_handler("topfive", show)


def _write_error_page(folder: Path) -> None:
    """What HAProxy answers by itself while no replica is up: Serve's page says 500 in plain text; it is a 503, and a
    problem document like every other. HAProxy reads the file when it loads the routes of the application."""
    document = problem_document(failure_of(NotReadyError("no replica is up; it comes back by itself")))
    body = json.dumps(document)
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/problem+json",
        "Retry-After: 1",
        f"Content-Length: {len(body)}",
    )
    # Serve keeps the page in a folder below, named for the cluster, and writes it when its HAProxy manager starts.
    give_up = time.monotonic() + _PAGE_WITHIN_S
    while not (pages := list(folder.rglob("500.http"))) and time.monotonic() < give_up:
        time.sleep(0.05)
    for page in pages:
        part = page.with_suffix(".part")
        part.write_bytes("\r\n".join((*head, "", body)).encode())
        part.replace(page)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
