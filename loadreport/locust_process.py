"""One run of Locust as a process of its own: bounded, told of Ctrl-C, its results read."""

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

#: What is started; tests put something quicker here.
COMMAND = (sys.executable, "-m", "locust")
_FOLDER = Path(__file__).parents[1] / "loadtest"
#: For starting, for what runs at the end (``--stop-timeout``), for writing.
_BEYOND_S = 60.0
#: Between Ctrl-C and the results.
_STOP_S = 20.0


class LocustError(Exception):
    """Locust is missing, or a run of it came to nothing."""


class InterruptedRunError(Exception):
    """Ctrl-C during a run; what it had measured, if it could still say."""

    def __init__(self, results: Results | None) -> None:
        super().__init__("interrupted")
        self.results = results


@dataclass(frozen=True)
class Run:
    """What to run: users that send at once (closed loop), or requests that are due at a rate (``rate``: open loop)."""

    user: str
    users: int
    """At once; in open loop the most that can be on the way."""
    seconds: float
    """Beyond the warm-up."""
    warm_up_s: float
    seed: int
    rate: float | None = None
    """Requests a second, Poisson; None: closed loop."""
    model: str | None = None
    pictures: str | None = None

    def options(self) -> list[str]:
        """As ``locust -f loadtest/`` takes them."""
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
    """Whether there is a Locust.

    Raises:
        LocustError: there is none.
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
    """Runs it to its end.

    Raises:
        LocustError: it gave no results, or not in time.
        InterruptedRunError: Ctrl-C meanwhile; the process has ended.
    """
    with tempfile.TemporaryDirectory(prefix="topfive-loadtest-") as folder:
        path, log = Path(folder) / "results.json", Path(folder) / "locust.log"
        command = [*COMMAND, "-f", str(_FOLDER), "--headless", "--host", host, "--results", str(path), *run.options()]
        with log.open("wb") as output:
            # A session of its own: Ctrl-C on a terminal reaches it once, from here.
            process = subprocess.Popen(  # noqa: S603 - our own
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
            raise InterruptedRunError(_told_to_stop(process, path)) from None
        finally:
            _end(process)
        return _results(path, code, log)


def _environment() -> dict[str, str]:
    """Without what would change Locust's options behind our back."""
    ours = ("LOCUST_", "TOPFIVE_LOADTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _results(path: Path, code: int, log: Path) -> Results:
    """The results of a run that ended: Locust's status is 0, or 1 where requests failed."""
    if code not in (0, 1):
        raise LocustError(f"Locust ended with status {code}: {_last_line(log)}")
    try:
        results = read_results(path)
    except ResultsError as error:
        raise LocustError(f"{error}: {_last_line(log)}") from error
    if results.partial:
        raise LocustError("Locust was stopped before the end of a run by somebody else")
    return results


def _told_to_stop(process: subprocess.Popen[bytes], path: Path) -> Results | None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_S)
        return read_results(path)
    except (subprocess.TimeoutExpired, ResultsError, KeyboardInterrupt):
        # A second Ctrl-C: at once, without the results.
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def _last_line(log: Path) -> str:
    lines: Sequence[str] = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
