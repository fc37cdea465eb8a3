"""``locust -f loadtest/`` as users start it, against a stub. Locust's processes run side by side, a few at a time."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.generating import Done, Locust, stub
from tests.running import free_port

#: Nine requests of a trace, by user.
TRACE = {"classify": 4, "budget": 2, "bulk": 2, "junk": 1}


def headless(url: str, *options: str, results: Path | None = None) -> Locust:
    return Locust("--headless", "--only-summary", "--host", url, "-r", "100", *options, results=results)


def assert_no_trace(done: Done) -> None:
    assert "Traceback" not in done.err + done.out


@pytest.fixture(scope="module")
def failing() -> Iterator[str]:
    """A stub that fails at every third request."""
    with stub("--delay-s", "0.02", "--status", "500", "--every", "3") as url:
        yield url


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory, failing: str) -> Iterator[dict[str, Done]]:
    """All four users; a stub that refuses every second request; one that fails at every third; a trace."""
    folder = tmp_path_factory.mktemp("usual")
    trace = folder / "trace.csv"
    users = [user for user, count in TRACE.items() for _ in range(count)]
    trace.write_text("seconds,user\n" + "".join(f"{n / 10},{user}\n" for n, user in enumerate(users)))
    replay = ("--arrivals", "trace", "--trace", str(trace))
    with ExitStack() as stack:
        # Slow enough for the generator to sleep between requests: other tests run beside this one.
        plain = stack.enter_context(stub("--delay-s", "0.02"))
        refusing = stack.enter_context(stub("--delay-s", "0.02", "--status", "429", "--every", "2"))
        begun = {
            "all": headless(plain, "-u", "8", "-t", "4s", "--warm-up", "1", results=folder / "all.json"),
            "trace": headless(plain, "-u", "8", *replay, results=folder / "trace.json"),
            "refused": headless(refusing, "-u", "4", "-t", "2s", "BudgetUser", results=folder / "refused.json"),
            "failed": headless(failing, "-u", "2", "-t", "2s", "ClassifyUser", results=folder / "failed.json"),
        }
        yield {name: locust.done() for name, locust in begun.items()}


@pytest.fixture(scope="module")
def stalled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Done]]:
    """A stub that answers in 5 ms but stalls once for a second, under an open loop and a closed one.

    Beside them an open loop of two users at twice the rate that their connections can bear.
    """
    folder = tmp_path_factory.mktemp("stalled")
    options = ["--delay-s", "0.005", "--stall-at-s", "1.5", "--stall-s", "1"]
    with stub(*options) as for_open, stub(*options) as for_closed, stub("--delay-s", "0.1") as slow:
        poisson = ("-u", "150", "--arrivals", "poisson", "--rate", "100")
        twice = ("--arrivals", "poisson", "--rate", "40")
        begun = {
            "open": headless(for_open, *poisson, "-t", "4s", "ClassifyUser", results=folder / "open.json"),
            "closed": headless(for_closed, "-u", "4", "-t", "4s", "ClassifyUser", results=folder / "closed.json"),
            "narrow": headless(slow, "-u", "2", *twice, "-t", "3s", "ClassifyUser", results=folder / "narrow.json"),
        }
        yield {name: locust.done() for name, locust in begun.items()}


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Done]]:
    """Runs that end with requests under way: Ctrl-C at full speed, SIGTERM, and a server that never answers."""
    folder = tmp_path_factory.mktemp("cut-off")
    with stub() as fast, stub("--delay-s", "0.02") as slow, stub("--delay-s", "60") as silent:
        bursts = ("--arrivals", "gamma", "--cv", "2", "--rate", "40")
        three = ("-u", "3", "--arrivals", "poisson", "--rate", "40", "-t", "2s", "-s", "1", "ClassifyUser")
        begun = {
            "SIGINT": headless(fast, "-u", "8", "-t", "30s", results=folder / "interrupted.json"),
            "SIGTERM": headless(slow, "-u", "8", "-t", "30s", *bursts, results=folder / "terminated.json"),
            "silent": headless(silent, *three, results=folder / "silent.json"),
        }
        begun["SIGINT"].signal(signal.SIGINT, after_s=1)
        begun["SIGTERM"].signal(signal.SIGTERM, after_s=0)
        yield {name: locust.done() for name, locust in begun.items()}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Done]]:
    """Services that cannot be tested."""
    results = tmp_path_factory.mktemp("refused") / "results.json"
    with stub("--state", "weights missing") as empty, stub() as served:
        begun = {
            "down": headless(f"http://127.0.0.1:{free_port()}", "-t", "2s", results=results),
            "wrong": headless(f"{served}/elsewhere", "-t", "2s", results=results),
            "empty": headless(empty, "-t", "2s", results=results),
            "unknown": headless(served, "-t", "2s", "--model", "vgg61", results=results),
        }
        yield {name: locust.done() for name, locust in begun.items()}


def test_locust_lists_exactly_the_four_users() -> None:
    listed = Locust("--list").done()
    assert listed.out.split() == ["Available", "Users:", "BudgetUser", "BulkUser", "ClassifyUser", "JunkUser"]
    assert listed.code == 0


def test_eight_users_are_of_all_four_kinds_and_all_end_well(usual: dict[str, Done]) -> None:
    done = usual["all"]
    assert done.code == 0, done.err
    assert_no_trace(done)
    assert '{"BudgetUser": 2, "BulkUser": 1, "ClassifyUser": 4, "JunkUser": 1}' in done.err
    results = done.results
    assert not results["partial"]
    assert results["window_s"] == pytest.approx(3, abs=1)
    assert results["asked"]["users"] == 8
    assert results["asked"]["seconds"] == 4
    assert results["sent"] == results["answered"] > 20
    assert (results["failures"], results["refused"], results["unanswered"]) == ({}, {}, 0)
    assert set(results["by_user"]) == {"ClassifyUser", "BudgetUser", "BulkUser", "JunkUser"}
    singles = results["by_user"]["ClassifyUser"]["answered"] + results["by_user"]["BudgetUser"]["answered"]
    assert results["latency_ms"]["count"] == singles
    assert results["pictures"] == singles + 8 * results["by_user"]["BulkUser"]["answered"]
    assert results["by_model"]["googlenet"]["mean_batch_size"] == 3
    assert results["phases_ms"]["forward"]["p50"] == 24
    assert results["statuses"].keys() > {"200"}


def test_bulk_and_junk_users_pause_between_requests(usual: dict[str, Done]) -> None:
    by_user = usual["all"].results["by_user"]
    a_classifier = by_user["ClassifyUser"]["sent"] / 4
    assert 1 <= by_user["JunkUser"]["sent"] <= 8
    assert by_user["BulkUser"]["sent"] < a_classifier / 2


def test_phases_and_models_have_entries_that_are_not_in_locusts_sum(usual: dict[str, Done]) -> None:
    summary = usual["all"].err
    for entry in ("POST +/classify ClassifyUser googlenet", "SERVER +decode", "SERVER +queue", "SERVER +forward"):
        assert re.search(rf"^{entry} +\d", summary, re.MULTILINE), entry
    assert re.search(r"^MODEL +googlenet +\d", summary, re.MULTILINE)
    requests = sum(int(n) for n in re.findall(r"^POST +/classify \S+ \S+ +(\d+) +\d+\(", summary, re.MULTILINE))
    (aggregated,) = re.findall(r"^ +Aggregated +(\d+) +\d+\(", summary, re.MULTILINE)
    assert int(aggregated) == requests > 0


def test_the_console_has_a_table_of_the_results(usual: dict[str, Done]) -> None:
    results, shown = usual["all"].results, usual["all"].out
    assert f"{results['sent']} sent, {results['answered']} answered, 0 refused, 0 failed" in shown
    assert f"p99 {results['latency_ms']['p99']:.1f} ms of {results['latency_ms']['count']}" in shown


def test_refusals_are_counted_apart_and_do_not_fail_the_run(usual: dict[str, Done]) -> None:
    done = usual["refused"]
    assert done.code == 0, done.err
    results = done.results
    assert results["by_user"].keys() == {"BudgetUser"}
    refused = results["refused"]["/problems/overloaded"]
    assert refused == results["statuses"]["429"] == results["by_user"]["BudgetUser"]["refused"] > 0
    assert abs(refused - results["answered"]) <= 4
    assert results["failures"] == {}
    assert results["latency_ms"]["count"] == results["answered"]
    assert sum(budget["refused"] for budget in results["by_budget"].values()) == refused
    assert re.search(r"^REFUSED +/problems/overloaded +\d", done.err, re.MULTILINE)


def test_failures_fail_the_run_and_say_which(usual: dict[str, Done]) -> None:
    done = usual["failed"]
    assert done.code == 1
    results = done.results
    assert results["failures"] == {"500 /problems/internal": results["by_user"]["ClassifyUser"]["failed"]}
    assert results["failures"]["500 /problems/internal"] == results["statuses"]["500"] > 0
    assert results["answered"] + results["statuses"]["500"] == results["sent"]
    assert_no_trace(done)


def test_each_user_keeps_its_connection_whatever_is_answered(usual: dict[str, Done], failing: str) -> None:
    assert usual["failed"].results["sent"] > 20
    # One each; others waited for the stub, asked for its models, and ask now.
    assert httpx.get(f"{failing}/connections", trust_env=False).json() == 2 + 3


def test_a_trace_is_replayed_request_by_request_and_ends_the_run(usual: dict[str, Done]) -> None:
    done = usual["trace"]
    assert done.code == 0, done.err
    results = done.results
    assert {user: tally["sent"] for user, tally in results["by_user"].items()} == {
        f"{kind.capitalize()}User": count for kind, count in TRACE.items()
    }
    assert results["answered"] == results["lag_ms"]["count"] == 9
    assert results["window_s"] == pytest.approx(0.8)
    assert not results["partial"]


def test_an_open_loop_shows_a_stall_that_a_closed_one_hides(stalled: dict[str, Done]) -> None:
    assert [done.code for done in stalled.values()] == [0, 0, 0]
    open_loop, closed = stalled["open"].results, stalled["closed"].results
    # A second of silence: a quarter of the requests of four seconds, the last of which waited next to nothing.
    assert 800 < open_loop["latency_ms"]["p99"] < 3000
    assert open_loop["latency_ms"]["p90"] > 300
    assert closed["latency_ms"]["p99"] < open_loop["latency_ms"]["p99"] / 3
    # It is there, once for each of the four users.
    assert closed["latency_ms"]["max"] > 800


def test_an_open_loop_sends_at_its_rate_whatever_is_answered(stalled: dict[str, Done]) -> None:
    results = stalled["open"].results
    assert results["sent"] + results["unsent"] == pytest.approx(100 * results["window_s"], rel=0.25)
    assert results["unsent"] == results["unanswered"] == 0
    assert results["lag_ms"]["p50"] < 100
    assert re.search(r"^GENERATOR +lag +\d", stalled["open"].err, re.MULTILINE)


def test_latency_counts_from_when_a_request_was_due(stalled: dict[str, Done]) -> None:
    """A request that no user was free to send in time has waited already."""
    results = stalled["narrow"].results
    assert results["lag_ms"]["p50"] > 100
    assert results["latency_ms"]["p50"] > results["lag_ms"]["p50"]
    assert results["latency_ms"]["max"] > results["lag_ms"]["max"]


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_run_and_results_are_written(cut_off: dict[str, Done], number: str) -> None:
    done = cut_off[number]
    assert done.code == 0, done.err
    assert_no_trace(done)
    assert done.results["partial"]
    assert done.results["window_s"] < 20
    assert done.results["sent"] == done.results["answered"] > 0
    assert "then interrupted" in done.out


def test_requests_without_an_answer_and_without_a_user_are_counted(cut_off: dict[str, Done]) -> None:
    results = cut_off["silent"].results
    assert (results["sent"], results["answered"], results["unanswered"]) == (3, 0, 3)
    assert results["unsent"] == pytest.approx(40 * results["window_s"] - 3, abs=30)
    assert results["unsent"] > 20


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("down", "does not answer: Connection refused"),
        ("wrong", "is not TopFive: GET /models answers 404"),
        ("empty", "has no model with weights"),
        ("unknown", "--model vgg61: http://127.0.0.1:"),
    ],
)
def test_a_service_that_cannot_be_tested_ends_the_command_with_one_line(
    refused: dict[str, Done], case: str, says: str
) -> None:
    done = refused[case]
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if "Starting Locust" not in line]
    assert says in line
    assert done.results is None
