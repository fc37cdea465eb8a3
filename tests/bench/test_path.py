"""The ratchet: what it compares and when it fails; and, among the slow tests, a short run of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import path
import pytest
from path import CANNOT_TELL, LIMITS, Limit, check, contenders, missed, pairs
from rounds import Ratio
from servers import ROOT

LIMIT = Limit("app", "starlette", rate=0.5, cpu=2.0)


def test_everybody_is_compared_with_the_bare_handler_and_the_app_with_its_neighbours() -> None:
    assert pairs(["app", "starlette"]) == [("app", "starlette")]
    assert pairs(["65d7757", "app", "starlette", "local"]) == [
        ("65d7757", "starlette"),
        ("app", "starlette"),
        ("local", "starlette"),
        ("local", "app"),
        ("app", "65d7757"),
    ]


@pytest.mark.parametrize(("rate", "cpu"), [(0.49, 1.0), (1.0, 2.01), (0.1, 9.0)])
def test_what_is_beyond_a_limit_is_told_with_both_figures_and_what_is_due(rate: float, cpu: float) -> None:
    (text,) = missed([LIMIT], [Ratio("app", "starlette", rate, cpu)])
    assert f"{rate:.3f} times the requests a second, {cpu:.3f} times the CPU time" in text
    assert text.endswith("at least 0.5 and at most 2 are due")


def test_at_a_limit_nothing_is_missed_and_others_have_none() -> None:
    assert missed([LIMIT], [Ratio("app", "starlette", 0.5, 2.0), Ratio("local", "starlette", 0.1, 9.0)]) == []


def test_local_is_left_out_without_ray() -> None:
    for ray, names in ((True, ["app", "starlette", "local"]), (False, ["app", "starlette"])):
        with contenders(None, ray=ray) as found:
            assert [contender.name for contender in found] == names
            assert {contender.checkout for contender in found} == {ROOT}


def test_another_commit_is_checked_out_for_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        (tmp_path / "code.py").write_text("first")
        subprocess.run([*git, *words], check=True)
    (tmp_path / "code.py").write_text("second")
    monkeypatch.setattr(path, "ROOT", tmp_path)
    with contenders("HEAD", ray=False) as found:
        assert [contender.name for contender in found] == ["HEAD", "app", "starlette"]
        assert found[0].server == found[1].server
        assert (found[0].checkout / "code.py").read_text() == "first"
        assert found[1].checkout == ROOT
    assert not found[0].checkout.exists()
    listed = subprocess.check_output([*git, "worktree", "list"], text=True)
    assert len(listed.splitlines()) == 1


@pytest.mark.parametrize("options", [["--network", "googlenet"], ["--connections", "1"]])
def test_limits_are_not_checked_for_another_load(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["path.py", "--check", *options])
    with pytest.raises(SystemExit) as error:
        path.arguments()
    assert error.value.code == 2


@pytest.mark.parametrize(("quiet_rounds", "rate", "status"), [(3, 9.0, None), (3, 0.1, 1), (2, 0.1, CANNOT_TELL)])
def test_a_check_fails_beyond_a_limit_unless_others_used_the_machine(
    quiet_rounds: int, rate: float, status: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = [{"app": {"others_cores": 0.0 if number < quiet_rounds else 99.0}} for number in range(6)]
    ratios = [Ratio(limit.of, limit.to, rate, limit.cpu) for limit in LIMITS]
    if status is None:
        check(rounds, ratios)
        return
    with pytest.raises(SystemExit) as error:
        check(rounds, ratios)
    if status == 1:
        assert f"{rate:.3f} times the requests a second" in str(error.value.code)
    else:
        assert error.value.code == status
        assert "only 2 of 6 rounds" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_app_holds_its_ratio_to_a_bare_handler(tmp_path: Path) -> None:
    """A short form of the ratchet. Where this fails, the path of a request has become slower."""
    file = tmp_path / "path.json"
    command = [sys.executable, str(ROOT / "bench" / "path.py"), "--check", "--no-ray", "--json", str(file)]
    run = subprocess.run([*command, "--rounds", "5", "--seconds", "2"], capture_output=True, text=True, check=False)
    if run.returncode == CANNOT_TELL:
        pytest.skip(run.stderr.strip())
    assert run.returncode == 0, f"{run.stderr}\n{run.stdout}"
    # The limits were applied to something.
    found = {(ratio["of"], ratio["to"]) for ratio in json.loads(file.read_text())["ratios"]}
    assert found >= {(limit.of, limit.to) for limit in LIMITS}
