"""What an open loop sends and when, and which of it lies in the window."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from statistics import pstdev
from typing import Any

import pytest

from loadtest._catalogue import Choice
from loadtest._options import Options
from loadtest._outcomes import Outcome
from loadtest._requests import KINDS, Kind, requests_of
from loadtest._run import Run, due_requests, write_results
from tests.generating import ROOT
from traffic.arrivals import Recorded

OPTIONS = Options(
    model=None,
    labels=None,
    pictures=None,
    shares={},
    arrivals="poisson",
    rate=100.0,
    cv=None,
    trace=None,
    rate_profile="constant",
    rate_to=None,
    rate_from_s=10.0,
    rate_for_s=10.0,
    seed=8,
    warm_up=0.0,
    results=None,
)


def run(shares: dict[Kind, int] | None = None, trace: list[Recorded] | None = None, **options: Any) -> Run:
    requests = {kind: requests_of(kind, [b"picture"], "googlenet", None, 8) for kind in KINDS}
    choice = Choice("googlenet", None, "digits")
    return Run(replace(OPTIONS, **options), "http://here", choice, shares or {"classify": 1}, requests, trace or [])


def test_a_trace_is_sent_at_its_own_times_and_by_its_own_users() -> None:
    trace = [Recorded(0.5, "junk"), Recorded(0.5, None), Recorded(2.25, "bulk")]
    found = list(due_requests(run(trace=trace, arrivals="trace")))
    assert [(seconds, request.kind) for seconds, request in found] == [(0.5, "junk"), (0.5, "classify"), (2.25, "bulk")]


def test_requests_are_of_the_kinds_that_the_shares_say() -> None:
    shares: dict[Kind, int] = {"classify": 6, "budget": 3, "junk": 1}
    kinds = Counter(request.kind for _, request in islice(due_requests(run(shares)), 5000))
    assert kinds.keys() == shares.keys()
    for kind, share in shares.items():
        assert kinds[kind] / 5000 == pytest.approx(share / 10, abs=0.03)


def test_the_same_seed_sends_the_same_requests_at_the_same_times() -> None:
    shares: dict[Kind, int] = {"classify": 1, "budget": 1, "bulk": 1}
    first, again = (list(islice(due_requests(run(shares)), 500)) for _ in range(2))
    assert first == again
    assert first != list(islice(due_requests(run(shares, seed=9)), 500))


def test_requests_due_in_the_warm_up_are_not_measured_however_late_their_answers() -> None:
    load = run(warm_up=5.0)
    load.begin()
    request = next(load.requests["classify"])
    for due in (load.began + 4.9, load.began + 5.1):
        load.sent(request, due, 0.001)
        load.ended(request, due, Outcome("answered", 200), 9000.0)
        load.unsent(due)
    load.end(load.began + 12.0)
    load.end(load.began + 13.0)
    results = load.results({"users": 3, "seconds": 12}, {}, partial=False)
    assert (results["sent"], results["answered"], results["unsent"]) == (1, 1, 1)
    assert results["lag_ms"]["max"] == 1.0
    assert results["window_s"] == 7.0
    assert results["asked"] == {
        "users": 3,
        "seconds": 12,
        "warm_up_s": 5.0,
        "model": "googlenet",
        "arrivals": "poisson",
        "rate": 100.0,
        "rate_profile": "constant",
        "cv": None,
        "seed": 8,
        "shares": {"classify": 1},
    }


def test_a_run_that_ended_in_its_warm_up_measured_nothing() -> None:
    load = run(warm_up=5.0)
    load.begin()
    load.end(load.began + 3.0)
    results = load.results({}, {}, partial=True)
    assert (results["window_s"], results["sent"], results["pictures_per_second"]) == (0.0, 0, 0.0)


def test_results_replace_those_of_an_earlier_run_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text("earlier")
    write_results(file, {"format": 1})
    assert json.loads(file.read_text()) == {"format": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_the_modules_without_users_do_not_import_gevent() -> None:
    pure = ("catalogue", "cpu", "measured", "options", "outcomes", "pictures", "requests", "run", "summary")
    imports = "import traffic.arrivals\n" + "".join(f"import loadtest._{name}\n" for name in pure)
    check = f"import sys\n{imports}assert not {{'gevent', 'locust', 'service', 'models'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, timeout=60)


def test_a_request_due_as_the_window_begins_is_measured() -> None:
    load = run(warm_up=5.0)
    load.begin()
    assert load.window_from == load.began + 5.0
    request = next(load.requests["classify"])
    load.sent(request, load.window_from, 0.0)
    load.unsent(load.window_from)
    assert load.in_flight == 1
    load.ended(request, load.window_from, Outcome("answered", 200), 1.0)
    assert load.in_flight == 0
    results = load.results({}, {}, partial=False)
    assert (results["sent"], results["answered"], results["unsent"]) == (1, 1, 1)


def test_a_gamma_process_gets_its_own_variation() -> None:
    bursts, even = (
        [seconds for seconds, _ in islice(due_requests(run(arrivals="gamma", cv=cv)), 1000)] for cv in (3.0, 0.3)
    )
    spread = [pstdev(later - earlier for earlier, later in pairwise(times)) for times in (bursts, even)]
    # At 100 a second gaps are 10 ms on average.
    assert spread == pytest.approx([0.03, 0.003], rel=0.05)


def test_a_write_that_fails_leaves_the_earlier_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.json"
    file.write_text("earlier")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_results(file, {"format": 1})
    assert file.read_text() == "earlier"


def test_requests_of_a_trace_without_a_user_are_of_the_kinds_that_the_shares_say() -> None:
    trace = [Recorded(float(number), None) for number in range(400)]
    shares: dict[Kind, int] = {"classify": 3, "budget": 1}
    kinds = Counter(request.kind for _, request in due_requests(run(shares, trace, arrivals="trace")))
    assert kinds.total() == 400
    assert kinds["budget"] == pytest.approx(100, abs=40)
