"""Options are read from the command line and the environment, and contradictions are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import configargparse
import pytest

from loadtest._options import Options, add_options, read_options, users_of

ALL = ["BudgetUser", "BulkUser", "ClassifyUser", "JunkUser"]
OPEN = ["--arrivals", "poisson", "--rate", "20"]


def parse(*arguments: str) -> Any:
    # Locust's parser is this one; Locust itself would put gevent's sockets into the test's process.
    parser = configargparse.ArgumentParser()
    parser.add_argument("--processes", type=int)
    add_options(parser)
    return parser.parse_args(list(arguments))


def read(*arguments: str) -> Options:
    return read_options(parse(*arguments))


def test_the_defaults_are_a_closed_loop_of_all_four() -> None:
    options = read()
    assert (options.arrivals, options.open_loop, options.seed, options.warm_up) == ("closed", False, 8, 0.0)
    assert options.shares == {"classify": 4, "budget": 2, "bulk": 1, "junk": 1}
    assert parse().stop_timeout == "10"


def test_the_command_line_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_LOADTEST_WARM_UP", "3")
    monkeypatch.setenv("TOPFIVE_LOADTEST_MODEL", "vgg16")
    options = read("--model", "alexnet")
    assert (options.warm_up, options.model) == (3.0, "alexnet")


def test_shares_change_what_they_name() -> None:
    assert read("--shares", "junk=0, classify=9").shares == {"classify": 9, "budget": 2, "bulk": 1, "junk": 0}


def test_only_users_that_locust_starts_have_shares() -> None:
    shares = read("--shares", "junk=0").shares
    assert users_of(shares, ALL) == {"classify": 4, "budget": 2, "bulk": 1}
    assert users_of(shares, ["BudgetUser", "JunkUser"]) == {"budget": 2}
    with pytest.raises(ValueError, match="leaves no requests for JunkUser"):
        users_of(shares, ["JunkUser"])


def test_a_rate_profile_is_built_of_its_options() -> None:
    options = read(*OPEN, "--rate-profile", "spike", "--rate-to", "50", "--rate-from-s", "2", "--rate-for-s", "1")
    # 40 arrivals in the first two seconds, 50 in the third, and 20 a second again.
    assert [options.profile.due(count) for count in (40, 65, 90, 110)] == [2.0, 2.5, 3.0, 4.0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--arrivals", "sometimes"], "'sometimes' is not one of closed, poisson, gamma, trace"),
        (["--arrivals", "poisson"], "needs --rate"),
        (["--arrivals", "gamma", "--rate", "5"], "needs --cv"),
        (["--arrivals", "trace"], "needs --trace FILE"),
        ([*OPEN, "--rate-profile", "ramp"], "needs --rate-to"),
        ([*OPEN, "--rate-to", "9"], "--rate-to has no effect"),
        ([*OPEN, "--cv", "2"], "--cv has no effect"),
        (["--rate", "5"], "--rate has no effect with --arrivals closed"),
        (["--rate-profile", "ramp"], "--rate-profile ramp has no effect with --arrivals closed"),
        (
            ["--arrivals", "trace", "--trace", "t.csv", "--rate-profile", "step"],
            "step has no effect with --arrivals trace",
        ),
        (["--rate", "fast"], "'fast' is not a number above 0"),
        (["--rate", "0"], "'0' is not a number above 0"),
        (["--rate", "inf"], "'inf' is not a number above 0"),
        (["--warm-up", "-1"], "'-1' is not a number of at least 0"),
        (["--seed", "1.5"], "'1.5' is not a whole number"),
        (["--shares", "classify"], "'classify' is not KIND=N"),
        (["--shares", "nobody=1"], "'nobody=1' is not KIND=N"),
        (["--shares", "classify=-1"], "is not KIND=N"),
        (["--shares", "classify=0,budget=0,bulk=0,junk=0"], "all shares are 0"),
        (["--results", "/nowhere/results.json"], "there is no folder /nowhere"),
        (["--processes", "2"], "one process must hold all arrivals"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_a_bad_value_in_the_environment_is_refused_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOPFIVE_LOADTEST_RATE", "fast")
    with pytest.raises(SystemExit, match="2"):
        parse()
    assert "'fast' is not a number" in capsys.readouterr().err


def test_texts_of_the_web_page_are_read_like_those_of_the_command_line() -> None:
    parsed = parse()
    parsed.rate, parsed.arrivals, parsed.results, parsed.model = "20", "poisson", "", ""
    options = read_options(parsed)
    assert (options.rate, options.results, options.model) == (20.0, None, None)
    parsed.rate = ""
    with pytest.raises(ValueError, match="needs --rate"):
        read_options(parsed)


def test_all_options_have_help_with_their_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("--help-loadtest")
    shown = capsys.readouterr().out
    for name in Options.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}  [TOPFIVE_LOADTEST_{name.upper()}]" in shown


def test_results_may_be_written_beside_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read("--results", "results.json").results == Path("results.json")
