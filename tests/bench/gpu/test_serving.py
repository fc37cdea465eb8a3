"""The service as it is started, its end, and when its GPU does not decode. Its device is pretended."""

from __future__ import annotations

import signal
import socket
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from bench.gpu import serving as module
from bench.gpu.callers import Load, Seen
from bench.gpu.pictures import photograph
from bench.gpu.serving import Cell, StartError, command, measured, serving
from service.config.fleet import load_fleet


def test_the_command_is_one_that_the_service_takes(tmp_path: Path) -> None:
    words = command(Cell("gpu", 3), 8123, ["googlenet", "vgg16"], tmp_path, pretend=False)
    assert words[1:4] == ["-m", "service.commands", "serve"]
    options = dict(zip(words[4::2], words[5::2], strict=False))
    assert (options["--port"], words[-2:]) == ("8123", ["--decode", "gpu"])
    assert "--untrained" in words
    fleet = load_fleet(options["--fleet"])
    assert (fleet.ray, fleet.fronts, fleet.deployment[0].variants) == (False, 3, ["googlenet", "vgg16"])
    assert fleet.deployment[0].engine == "auto"
    command(Cell("gpu", 3), 8123, ["googlenet"], tmp_path, pretend=True)
    assert load_fleet(options["--fleet"]).deployment[0].engine == "pretend"


def test_a_service_is_up_in_the_block_and_gone_after_it(tmp_path: Path) -> None:
    with serving(Cell("cpu", 2), ["googlenet"], tmp_path, 60, pretend=True) as port:
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200
        (process,) = [child for child in psutil.Process().children() if str(port) in child.cmdline()]
        processes = [process, *process.children(recursive=True)]
        # The supervisor, the owner of the device and two fronts.
        assert len(processes) >= 4
        row = measured(port, "googlenet", photograph(), connections=4, processes=1, seconds=0.5, warm_s=0.2)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert row["errors"] == row["at_70"]["errors"] == 0
    assert row["per_second"] > 0
    assert 1 <= row["mean_batch"] <= 4
    assert row["at_70"]["rate"] == pytest.approx(0.7 * row["per_second"])
    assert 0 < row["at_70"]["p50_ms"] <= row["at_70"]["p99_ms"]


@pytest.mark.parametrize(
    ("program", "why"),
    [("print('no port'); raise SystemExit(3)", "ended with 3\nno port"), ("import time; time.sleep(60)", "not ready")],
)
def test_a_service_that_does_not_start_is_told_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    monkeypatch.setattr(module, "command", lambda *_args, **_options: [sys.executable, "-c", program])
    with pytest.raises(StartError, match=why), serving(Cell("cpu", 1), ["googlenet"], tmp_path, 1, pretend=False):
        raise AssertionError
    assert not [child for child in psutil.Process().children() if program in child.cmdline()]


def test_a_service_that_ignores_its_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STOP_WITHIN_S", 0.2)
    monkeypatch.setattr(module, "_wait", lambda process, *_: process.stdout)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    program = f"{deaf}; print('ready', flush=True); time.sleep(60)"
    monkeypatch.setattr(module, "command", lambda *_args, **_options: [sys.executable, "-c", program])
    with serving(Cell("cpu", 1), ["googlenet"], tmp_path, 1, pretend=False):
        (child,) = [child for child in psutil.Process().children() if program in child.cmdline()]
        while "ready" not in (tmp_path / "service.log").read_text():
            pass
    assert not child.is_running()
    assert signal.getsignal(signal.SIGTERM) is not None


FINE = """INFO x: googlenet@untrained: the GPU decodes its pictures: 98 %
INFO x: vgg16@untrained: the GPU decodes its pictures: 97 %"""


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (FINE.replace("vgg16", "vgg19"), "the log does not say why"),
        (
            "WARNING x: TOPFIVE_DECODE=gpu has no effect, the CPU decodes all pictures: no torchcodec",
            "has no effect, the CPU decodes all pictures: no torchcodec",
        ),
        ("", "the log does not say why"),
    ],
)
def test_a_service_whose_gpu_does_not_decode_is_not_measured_as_if_it_did(log: str, why: str) -> None:
    with pytest.raises(StartError, match=f"the GPU does not decode: .*{why}"):
        module._check_gpu_decodes(["googlenet", "vgg16"], log)
    module._check_gpu_decodes(["googlenet", "vgg16"], FINE)


def test_without_an_answer_there_is_no_open_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Load] = []

    def unanswered(given: Load, processes: int) -> Seen:
        loads.append(given)
        return Seen()

    monkeypatch.setattr(module, "load", unanswered)
    row = measured(1, "googlenet", b"", connections=4, processes=8, seconds=1, warm_s=1)
    assert len(loads) == 1
    assert (row["per_second"], row["mean_batch"], "at_70" in row) == (0, None, False)
