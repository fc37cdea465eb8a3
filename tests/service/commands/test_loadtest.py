"""``topfive loadtest`` from the command line, against a pretended service and a pretended Locust."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loadreport import pages, target
from service.commands.main import app
from tests import reports
from tests.pretended_locust import COMMAND, pretend
from tests.pretended_service import PretendedService, pretended_service, row
from tests.running import free_port

#: So that alexnet holds many, vgg16 few, and googlenet is the better per GiB.
SERVICE_S = {"alexnet@untrained": 0.02, "googlenet@untrained": 0.025, "vgg16@untrained": 0.2}
FOOTPRINTS = {"googlenet@untrained": 215.0, "vgg16@untrained": 1530.0}


@pytest.fixture
def service() -> Iterator[PretendedService]:
    with pretended_service() as running:
        yield running


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that are not about plots, which take longest."""
    monkeypatch.setattr(pages, "plots", lambda report: {})


def run(service: str, out: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["loadtest", "--host", service, "--out", str(out), *options])


def document(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def one_line(result: Result) -> str:
    """Of a command that was refused."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_a_whole_load_test(service: PretendedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = pretend(tmp_path, monkeypatch, service_s=SERVICE_S, refused=12)
    profiles = tmp_path / "profiles.json"
    entries = {name: {"footprint_bytes": mb * 1e6} for name, mb in FOOTPRINTS.items()}
    profiles.write_text(json.dumps({"profiles": entries}))
    out = tmp_path / "out"
    result = run(
        service.url, out, "--models", "googlenet, vgg16", "--profiles", str(profiles), "--fail-on-gates", "--seed", "5"
    )
    assert result.exit_code == 0, result.output
    assert "googlenet gives" in result.stdout
    report = document(out)
    figures = {network["name"]: network for network in report["networks"]}
    assert list(figures) == ["googlenet@untrained", "vgg16@untrained"]
    for name, network in figures.items():
        capacity = 1 / SERVICE_S[name]
        assert 0.5 * capacity < network["knee"]["pictures_per_second"] <= 1.05 * capacity
        assert network["knee"]["p99_ms"] <= 1000
        assert network["footprint_mb"] == FOOTPRINTS[name]
        assert network["steps"][-1]["confirmation"]
        assert network["alone_p50_ms"] == pytest.approx(1000 * SERVICE_S[name])
    assert {gate["verdict"] for gate in report["gates"]} == {"passed"}
    assert report["partial"] is None
    assert (report["seed"], report["device"], report["same_machine"]) == (5, "2 cores", True)
    # Loaded before they are measured; the mix last, at half of what the median network held.
    assert [ask for ask in service.asked if "load" in ask] == [
        "POST /models/googlenet@untrained/load",
        "POST /models/vgg16@untrained/load",
    ]
    runs = [json.loads(line) for line in log.read_text().splitlines()]
    assert [asked["user"] for asked in runs].index("BudgetUser") == len(runs) - 1
    median = sum(network["knee"]["rate"] for network in figures.values()) / 2
    assert runs[-1]["rate"] == pytest.approx(median / 2, rel=1e-4)
    assert {path.name for path in out.iterdir()} == {
        *("report.json", "report.md", "report.html", "networks.svg", "networks.png")
    }


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("gates", "told"),
    [
        ("[footprint]\nwithin = 0.1\n", "failed"),
        # A gate that cannot be judged is no pass.
        ("[per_gib.networks]\nalexnet = 1\n", "vgg16 was not measured"),
        ("[errors]\nshare = 0.5\n", None),
    ],
)
def test_gates_set_the_status(
    service: PretendedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gates: str, told: str | None
) -> None:
    pretend(tmp_path, monkeypatch, service_s=SERVICE_S)
    (tmp_path / "gates.toml").write_text(gates)
    (tmp_path / "profiles.json").write_text('{"profiles": {"alexnet@untrained": {"footprint_bytes": 1e6}}}')
    files = ("--gates", str(tmp_path / "gates.toml"), "--profiles", str(tmp_path / "profiles.json"))
    result = run(service.url, tmp_path / "out", *files, "--models", "alexnet", "--no-budgets", "--fail-on-gates")
    assert result.exit_code == (0 if told is None else 1), result.output
    assert told is None or told in result.stdout


@pytest.mark.usefixtures("undrawn")
def test_against_a_previous_report_and_as_json(
    service: PretendedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, service_s=SERVICE_S)
    previous = tmp_path / "previous.json"
    faster = reports.network("alexnet@untrained", knee=reports.knee(70.0))
    previous.write_text(reports.report(faster).model_dump_json())
    options = ("--models", "alexnet", "--no-budgets", "--previous", str(previous), "--json")
    result = run(service.url, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == document(tmp_path / "out")
    (change,) = report["comparison"]["changes"]
    assert change["verdict"] == "worse"
    assert (
        "Worse than the previous report beyond the noise: alexnet@untrained."
        in (tmp_path / "out" / "report.md").read_text()
    )


@pytest.mark.usefixtures("undrawn")
def test_a_network_that_cannot_be_loaded_does_not_stop_the_others(
    service: PretendedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, service_s=SERVICE_S)
    service.load_statuses["vgg16@untrained"] = [503]
    result = run(service.url, tmp_path / "out", "--models", "vgg16,alexnet", "--no-budgets")
    assert result.exit_code == 0, result.output
    report = document(tmp_path / "out")
    vgg, alexnet = report["networks"]
    # Gates that nobody asked to fail on do not.
    assert {gate["verdict"] for gate in report["gates"]} == {"passed", "not judged"}
    assert vgg["problem"] == "vgg16@untrained cannot be loaded: vgg16@untrained does not fit"
    assert alexnet["knee"] is not None


@pytest.mark.usefixtures("undrawn")
def test_a_service_that_dies_leaves_what_was_measured(
    service: PretendedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "BACK_WITHIN_S", -1.0)
    log = pretend(tmp_path, monkeypatch, service_s=SERVICE_S, trouble={"12": "failing"})

    class DiesWithTheTwelfth(list[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            if len(log.read_text().splitlines()) >= 12:
                raise ConnectionError
            return super().__iter__()

    service.rows = DiesWithTheTwelfth(service.rows)
    result = run(service.url, tmp_path / "out", "--models", "alexnet,vgg16")
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last == f"error: partial: nothing answers at {service.url}: is the service running there?"
    report = document(tmp_path / "out")
    assert report["partial"].startswith("nothing answers")
    alexnet, vgg = report["networks"]
    assert alexnet["knee"] is not None
    assert vgg["knee"] is None
    assert vgg["problem"].startswith("not finished: nothing answers")


@pytest.mark.usefixtures("undrawn")
def test_a_locust_that_breaks_leaves_what_was_measured(
    service: PretendedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, service_s=SERVICE_S, trouble={"4": "crash"})
    result = run(service.url, tmp_path / "out", "--models", "alexnet")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("Locust ended with status 3: ValueError: no such thing")
    assert "Traceback" not in result.output
    (alexnet,) = document(tmp_path / "out")["networks"]
    assert len(alexnet["steps"]) == 1


def test_ctrl_c_leaves_what_was_measured(
    service: PretendedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = pretend(tmp_path, monkeypatch, service_s=SERVICE_S, trouble={"4": "hang"})
    code = f"from loadreport import locust_process as p; p.COMMAND = {COMMAND!r}; "
    code += "from service.commands.main import main; main()"
    options = ("loadtest", "--host", service.url, "--out", str(tmp_path / "out"), "--models", "alexnet")
    # As a shell without job control starts what runs in the background.
    process = subprocess.Popen(
        [sys.executable, "-c", code, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    wait_until_it_hangs(log)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert output.splitlines()[-1] == "error: partial: interrupted"
    assert "Traceback" not in output
    report = document(tmp_path / "out")
    assert report["partial"] == "interrupted"
    (alexnet,) = report["networks"]
    # The look that had ended, and what the one that was cut off had measured until then.
    assert [step["why_not"] for step in alexnet["steps"]] == [None, "interrupted"]
    assert alexnet["problem"] == "not finished: interrupted"
    assert "PARTIAL" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.with_suffix(".hanging").read_text()), 0)


@pytest.mark.usefixtures("undrawn")
def test_sigterm_is_as_good(service: PretendedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = pretend(tmp_path, monkeypatch, service_s=SERVICE_S, trouble={"3": "hang"})
    before = signal.getsignal(signal.SIGTERM)

    def end() -> None:
        wait_until_it_hangs(log)
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end)
    ending.start()
    result = run(service.url, tmp_path / "out", "--models", "alexnet")
    ending.join()
    assert result.exit_code == 130, result.output
    assert document(tmp_path / "out")["partial"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == before


def wait_until_it_hangs(log: Path) -> None:
    give_up = time.monotonic() + 60
    while not log.with_suffix(".hanging").exists() and time.monotonic() < give_up:
        time.sleep(0.02)


def test_what_cannot_be_tested_is_one_line(service: PretendedService, tmp_path: Path) -> None:
    out, nowhere = tmp_path / "out", f"http://127.0.0.1:{free_port()}"
    assert one_line(run(nowhere, out)) == f"nothing answers at {nowhere}: is the service running there?"
    assert one_line(run("localhost:8000", out)).startswith("--host localhost:8000: give a URL")
    assert "knows no network 'resnet'; known: alexnet, googlenet," in one_line(
        run(service.url, out, "--models", "resnet")
    )
    service.rows = [row("vgg16@imagenet1k", "weights missing")]
    assert "topfive pull vgg16@imagenet1k" in one_line(run(service.url, out, "--models", "vgg16"))
    assert "weights for no network" in one_line(run(service.url, out))
    service.listing = (404, b"<html>")
    assert "is not a TopFive service" in one_line(run(service.url, out))
    assert "--pictures cats: give photographs or digits" in one_line(run(service.url, out, "--pictures", "cats"))
    # Nothing was begun.
    assert not out.exists()


@pytest.mark.parametrize("option", ["--gates", "--profiles", "--previous"])
def test_files_that_cannot_be_read_are_one_line(service: PretendedService, tmp_path: Path, option: str) -> None:
    assert "No such file" in one_line(run(service.url, tmp_path / "out", option, str(tmp_path / "absent")))
    (tmp_path / "wrong").write_text("{]")
    assert str(tmp_path / "wrong") in one_line(run(service.url, tmp_path / "out", option, str(tmp_path / "wrong")))


def test_a_folder_that_cannot_be_written_is_found_before_anything_runs(
    service: PretendedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = pretend(tmp_path, monkeypatch)
    (tmp_path / "file").write_text("")
    assert "cannot write to" in one_line(run(service.url, tmp_path / "file"))
    assert log.read_text() == ""
