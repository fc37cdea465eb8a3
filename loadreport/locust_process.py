"""One run of Locust in a process of its own: started, interrupted by Ctrl-C, ended in time, and its results read."""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from loadreport.results import Results, ResultsError, read_results

#: The command that is started; tests put a quicker one in its place.
COMMAND = (sys.executable, "-m", "locust")
#: What Locust executes: the package beside this one.
_FOLDER = Path(__file__).parents[1] / "loadtest"
#: What a run may take beside its own time: for starting, for requests in flight at the end (``--stop-timeout``) and
#: for writing the results.
_BEYOND_S = 60.0
#: How long Locust may take to write its results after Ctrl-C.
_STOP_S = 20.0


class LocustError(Exception):
    """Locust is missing, or a run of it gave no results."""


class InterruptedRunError(Exception):
    """Ctrl-C during a run.

    Attributes:
        results: what had been measured until then, or None if Locust could not write it.
    """

    def __init__(self, results: Results | None) -> None:
        super().__init__("interrupted")
        self.results = results


@dataclass(frozen=True)
class Run:
    """What to run: a closed loop of users, or an open loop of requests that are due at a rate."""

    user: str
    """The class of Locust users."""
    users: int
    """How many users; in an open loop the most requests that can be in flight."""
    seconds: float
    """After the warm-up."""
    warm_up_s: float
    seed: int
    rate: float | None = None
    """Poisson arrivals a second; None for a closed loop."""
    model: str | None = None
    pictures: str | None = None

    def options(self) -> list[str]:
        """The options of ``locust -f loadtest/``."""
        options = {
            "--users": self.users,
            "--spawn-rate": self.users,
            "--run-time": f"{self.warm_up_s + self.seconds:.0f}s",
            "--warm-up": f"{self.warm_up_s:g}",
            "--seed": self.seed,
            "--arrivals": "closed" if self.rate is None else "poisson",
            "--rate": None if self.rate is None else f"{self.rate:.6g}",
            "--model": self.model,
            "--pictures": self.pictures,
        }
        found = [text for name, value in options.items() if value is not None for text in (name, str(value))]
        return [*found, self.user]


def check_installed() -> None:
    """Checks that Locust can be started.

    Raises:
        LocustError: it is not installed.
    """
    if COMMAND[1:] == ("-m", "locust") and importlib.util.find_spec("locust") is None:
        raise LocustError("Locust is not installed: pip install -e '.[loadtest]'")


def generator() -> dict[str, str]:
    """What generates the load: versions that matter and the number of cores, without this machine's name."""
    try:
        locust = version("locust")
    except PackageNotFoundError:
        locust = "none"
    return {"locust": locust, "python": platform.python_version(), "cores": str(len(os.sched_getaffinity(0)))}


def run_locust(host: str, run: Run) -> Results:
    """Runs Locust to its end and returns what it measured.

    Raises:
        LocustError: it gave no results, or did not end in time.
        InterruptedRunError: at Ctrl-C, after the process has ended.
    """
    with tempfile.TemporaryDirectory(prefix="topfive-loadtest-") as folder:
        path, log = Path(folder) / "results.json", Path(folder) / "locust.log"
        command = [*COMMAND, "-f", str(_FOLDER), "--headless", "--host", host, "--results", str(path), *run.options()]
        with log.open("wb") as output:
            # In a session of its own, a Ctrl-C on the terminal reaches Locust only through this process, and once.
            process = subprocess.Popen(  # noqa: S603 - the command is our own
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=_environment(),
            )
        try:
            code = process.wait(run.warm_up_s + run.seconds + _BEYOND_S)
        except subprocess.TimeoutExpired:
            raise LocustError("Locust did not end in time, and was ended") from None
        except KeyboardInterrupt:
            raise InterruptedRunError(_interrupt(process, path)) from None
        finally:
            _end(process)
        return _results(path, code, log)


def _environment() -> dict[str, str]:
    """This process's environment without the variables that would change Locust's options."""
    ours = ("LOCUST_", "TOPFIVE_LOADTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _results(path: Path, code: int, log: Path) -> Results:
    """The results of a run that ended with status 0, or with 1 as Locust does if requests failed."""
    if code not in (0, 1):
        raise LocustError(f"Locust ended with status {code}: {_last_line(log)}")
    try:
        results = read_results(path)
    except ResultsError as error:
        raise LocustError(f"{error}: {_last_line(log)}") from error
    if results.partial:
        raise LocustError("another process stopped Locust before the end of a run")
    return results


def _interrupt(process: subprocess.Popen[bytes], path: Path) -> Results | None:
    """Ends a run as Ctrl-C does and returns what it had measured; None if it does not say so in time."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_S)
        return read_results(path)
    except (subprocess.TimeoutExpired, ResultsError, KeyboardInterrupt):
        # A second Ctrl-C ends the process at once, without results.
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def _last_line(log: Path) -> str:
    lines: Sequence[str] = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
