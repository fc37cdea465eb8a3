"""What the path of a request costs, against another commit: ``python bench/path.py --against COMMIT`` (needs hey).

Serves the app of this checkout and that of the commit (in a git worktree that is removed afterwards) under bare
uvicorn, without Ray and HAProxy, and puts one after the other under the same closed loop. Prints requests a second and
CPU time a request of each round, the medians, and the ratio of this checkout to the commit.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from load import digit, photograph

ROOT = Path(__file__).parents[1]
#: The whole app of a checkout, on a port. Commits from before the packages had rooms have their modules elsewhere.
_APP = """
import sys, uvicorn
try:
    from service.assembly.local import local_app
    from service.config.fleet import Deployment
    from service.config.settings import Settings
except ImportError:
    from service.fleet import Deployment
    from service.local import local_app
    from service.settings import Settings
app = local_app(Settings(untrained=sys.argv[2] == "untrained"), Deployment(variants=[sys.argv[3]]))
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""


@dataclass(slots=True)
class App:
    """A running app and what was measured of it."""

    name: str
    url: str
    process: psutil.Process
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def measure(self, picture: Path, content_type: str, connections: int, seconds: float) -> None:
        """One round of the closed loop."""
        before, started = sum(self.process.cpu_times()[:2]), time.monotonic()
        command = ["hey", "-z", f"{seconds}s", "-c", str(connections), "-m", "POST", "-T", content_type]
        command += ["-D", str(picture), self.url]
        report = subprocess.check_output(command, text=True, timeout=seconds + 60)  # noqa: S603 - to loopback
        took = time.monotonic() - started
        answered = [int(line.split()[1]) for line in report.splitlines() if line.strip().startswith("[200]")]
        if not answered or "Error distribution" in report or report.count("responses") != 1:
            raise SystemExit(f"{self.name} did not answer everything with 200:\n{report}")
        self.rates.append(answered[0] / took)
        self.cpu_ms.append(1000 * (sum(self.process.cpu_times()[:2]) - before) / answered[0])
        print(f"  {self.name}: {self.rates[-1]:.0f} requests/s, {self.cpu_ms[-1]:.3f} ms CPU each", flush=True)


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A checkout of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkout"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(path), commit], check=True)  # noqa: S603
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)  # noqa: S603


@contextmanager
def serving(name: str, checkout: Path, network: str, *, untrained: bool) -> Iterator[App]:
    """The app of a checkout under uvicorn, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", _APP, str(port), "untrained" if untrained else "", network]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    process = subprocess.Popen(command, cwd=checkout, env=environment)  # noqa: S603 - our own
    try:
        url = f"http://127.0.0.1:{port}"
        give_up = time.monotonic() + 240
        while time.monotonic() < give_up and process.poll() is None:
            try:
                if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        yield App(name, f"{url}/classify?model={network}", psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", required=True, metavar="COMMIT")
    parser.add_argument("--network", default="lenet5", help="lenet5 is asked for a digit, all others for a photograph")
    parser.add_argument("--untrained", action="store_true")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each round")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        picture = (digit if options.network == "lenet5" else photograph)(folder)
        checkouts = {"this checkout": ROOT, options.against: stack.enter_context(worktree(options.against))}
        apps = [
            stack.enter_context(serving(name, checkout, options.network, untrained=options.untrained))
            for name, checkout in checkouts.items()
        ]
        for number in range(options.rounds + 1):
            print("warm-up:" if not number else f"round {number}:")
            # The order changes, so that neither has the quieter half of each round.
            for app in apps if number % 2 else reversed(apps):
                app.measure(picture.path, picture.content_type, options.connections, options.seconds)
    this, other = apps
    for app in apps:
        rate, cpu_ms = statistics.median(app.rates[1:]), statistics.median(app.cpu_ms[1:])
        print(f"{app.name}: {rate:.0f} requests/s, {cpu_ms:.3f} ms CPU each (medians)")
    faster = statistics.median(a / b for a, b in zip(this.rates[1:], other.rates[1:], strict=True))
    dearer = statistics.median(a / b for a, b in zip(this.cpu_ms[1:], other.cpu_ms[1:], strict=True))
    print(f"{faster:.3f} times the requests a second, {dearer:.3f} times the CPU time (medians of the rounds' ratios)")


if __name__ == "__main__":
    main()
