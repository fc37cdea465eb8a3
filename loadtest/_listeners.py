"""What happens at Locust's events: the service is asked for its models, arrivals start and end, results are written."""

from __future__ import annotations

import logging
import math
import signal
import sys
from time import perf_counter, process_time
from typing import Any

import gevent
from locust import events
from locust.env import Environment

from loadtest._cpu import EVERY_S, LIMIT, CpuShare
from loadtest._options import add_options, read_options
from loadtest._pool import Pool
from loadtest._run import Run, due_requests, prepare, write_results
from loadtest._summary import table
from loadtest._users import USER_CLASSES, TopFiveUser

_log = logging.getLogger(__name__)
_BAD_INPUT = 2
#: Locust takes a moment to announce its stop, and sends nothing in that time: arrivals end so much earlier.
_STOPPING_S = 0.1


class Session:
    """One Locust process: a single run from the command line, or several from the web page."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._run: Run | None = None
        self._pool: Pool | None = None
        self._cpu = CpuShare()
        self._watch: Any = None
        self._interrupted = False
        self._results: dict[str, Any] | None = None
        options: Any = environment.parsed_options
        self._at_once = bool(options.headless or options.autostart)

    def listen(self) -> None:
        """Subscribes to Locust's events; without a web page, asks the service for its models at once.

        Raises:
            SystemExit: the service cannot be tested.
        """
        here: Any = self._environment.events
        here.test_start.add_listener(self._on_test_start)
        here.spawning_complete.add_listener(self._on_spawning_complete)
        here.test_stopping.add_listener(self._on_test_stopping)
        here.test_stop.add_listener(self._on_test_stop)
        here.quitting.add_listener(self._on_quitting)
        here.quit.add_listener(self._on_quit)
        if self._at_once:
            try:
                self._run = self._prepare()
            except ValueError as error:
                sys.stderr.write(f"error: {error}\n")
                sys.exit(_BAD_INPUT)
            except KeyboardInterrupt:
                sys.exit(128 + signal.SIGINT)
        # Python's own handler would interrupt whichever user is running, with a stack trace.
        gevent.signal_handler(signal.SIGINT, self._on_interrupt)

    @property
    def _options(self) -> Any:
        return self._environment.parsed_options

    def _prepare(self) -> Run:
        environment = self._environment
        options = read_options(self._options)
        run = prepare(options, environment.host, [user.__name__ for user in environment.user_classes])
        # Drawing pictures takes a while that gevent's clock has not seen, which would shorten --run-time.
        gevent.get_hub().loop.update_now()
        if options.open_loop:
            # The pool must be complete at the beginning; Locust warns of spawn rates above 100.
            self._options.spawn_rate = self._options.spawn_rate or min(100, self._options.num_users or 1)
        else:
            for kind, user_class in USER_CLASSES.items():
                user_class.weight = run.shares.get(kind, 0)
        return run

    def _on_test_start(self, **_: object) -> None:
        run_time = self._options.run_time
        until = math.inf if run_time is None else perf_counter() + run_time - _STOPPING_S
        try:
            run = self._run or self._prepare()
        except ValueError as error:
            # Ends Locust's greenlet before users are spawned; StopTest would do so with a stack trace.
            _log.error("%s", error)
            raise gevent.GreenletExit from None
        self._run, self._results, self._cpu = run, None, CpuShare()
        self._pool = Pool(run, due_requests(run), until, self._end) if run.options.open_loop else None
        TopFiveUser.load, TopFiveUser.pool = run, self._pool
        if self._pool is None:
            run.begin()
            self._watch = gevent.spawn_later(run.options.warm_up, self._watch_cpu)

    def _on_spawning_complete(self, **_: object) -> None:
        if self._pool is not None and self._run is not None and not self._pool.opened:
            self._pool.open()
            self._watch = gevent.spawn_later(self._run.options.warm_up, self._watch_cpu)

    def _watch_cpu(self) -> None:
        while True:
            if self._cpu.sample(perf_counter(), process_time()):
                _log.warning(
                    "the load generator takes over %.0f %% of its core: it, not the service, limits this run; "
                    "ask for less, or give it a core of its own",
                    100 * LIMIT,
                )
            gevent.sleep(EVERY_S)

    def _end(self) -> None:
        """Ends the run when the arrivals have ended."""
        runner = self._environment.runner
        assert runner is not None
        gevent.spawn(runner.quit if self._options.headless else runner.stop)

    def _on_interrupt(self) -> None:
        """Ends the run at Ctrl-C as at the end of its time; a second Ctrl-C does not wait for answers."""
        runner = self._environment.runner
        assert runner is not None
        if self._interrupted:
            runner.user_greenlets.kill(block=False)
            return
        self._interrupted = True
        self._close()
        if self._run is not None:
            _log.info("interrupted: waiting for answers; press Ctrl-C again not to wait")
        gevent.spawn(self._quit)

    def _quit(self) -> None:
        environment: Any = self._environment
        environment.runner.quit()
        if environment.web_ui is not None:
            environment.web_ui.stop()

    def _on_test_stopping(self, **_: object) -> None:
        self._close()

    def _close(self) -> None:
        """Ends sending; Locust waits for requests in flight."""
        if self._watch is not None:
            self._watch.kill()
            self._watch = None
        if self._pool is not None:
            self._pool.close()
        if self._run is not None:
            self._run.end(perf_counter())

    def _on_test_stop(self, **_: object) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        asked = {"users": self._options.num_users, "seconds": self._options.run_time}
        self._results = run.results(asked, self._cpu.results(), partial=self._interrupted)
        if run.options.results is not None:
            try:
                write_results(run.options.results, self._results)
            except OSError as error:
                self._environment.process_exit_code = _BAD_INPUT
                _log.error("--results %s: %s", run.options.results, error.strerror)
        if not self._options.headless:
            print(table(self._results))  # noqa: T201 - a command's output

    def _on_quitting(self, **_: object) -> None:
        """Marks a run that has not ended as interrupted: only a signal makes Locust quit during a run."""
        if self._run is not None:
            self._interrupted = True
            self._close()

    def _on_quit(self, **_: object) -> None:
        if self._results is not None and self._options.headless:
            print(table(self._results))  # noqa: T201 - a command's output


def listen() -> None:
    """Subscribes to the events of Locust's start; called while Locust reads the locustfile."""
    here: Any = events
    here.init_command_line_parser.add_listener(lambda parser, **_: add_options(parser))
    here.init.add_listener(lambda environment, **_: Session(environment).listen())
