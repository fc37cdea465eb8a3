"""Rounds: everybody is measured in each, and ratios are taken within one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import load
import psutil
import pytest
from rounds import Contender, Ratio, compared, counted, label, measured, medians, quiet, ratio, show
from servers import ROOT, Server, raw

STUB = Server(
    "stub", "Stub", (sys.executable, "-m", "loadtest._stub", "--port", "{port}"), "/classify?model={network}", raw
)
OTHER = """
import http.server, json, sys
answer = json.dumps([dict(label="b")]).encode()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def figures(per_second: float, cpu_s: float, others_cores: float = 0.0) -> dict[str, Any]:
    return {
        "errors": 0,
        "per_second": per_second,
        "cpu_s_per_picture": cpu_s,
        "p50_ms": 1.0,
        "rss_mb": 1.0,
        "processes": 1,
        "others_cores": others_cores,
    }


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    rounds = [
        {"app": figures(100, 2), "bare": figures(200, 1)},
        {"app": figures(10, 9), "bare": figures(40, 3)},
        {"app": figures(90, 3), "bare": figures(30, 2)},
    ]
    # 0.5, 0.25 and 3; 2, 3 and 1.5. The medians themselves are 90 and 40.
    assert ratio(rounds, "app", "bare") == Ratio("app", "bare", rate=0.5, cpu=2.0)
    assert ratio(rounds, "bare", "app") == Ratio("bare", "app", rate=2.0, cpu=0.5)
    assert medians(rounds)["app"]["per_second"] == 90
    assert medians(rounds)["bare"]["cpu_s_per_picture"] == 2


def test_the_order_turns_from_round_to_round() -> None:
    order: list[str] = []

    def measure(name: str) -> dict[str, Any]:
        order.append(name)
        return figures(len(order), 1)

    rounds = measured(["a", "b", "c"], 3, measure)
    assert order == ["a", "b", "c", "c", "b", "a", "a", "b", "c"]
    assert [round_["a"]["per_second"] for round_ in rounds] == [1, 6, 7]


def test_a_round_that_others_disturb_is_measured_again_and_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    others = iter([2.5, 2.5, 2.6, 0, 0, 2.6, 0, 0])
    rounds = measured(["a", "b"], 2, lambda _name: figures(1, 1, next(others)))
    assert [quiet(round_) for round_ in rounds] == [True, False, False, True]
    assert counted(rounds) == [rounds[0], rounds[3]]
    # Not for ever; and where there was no quiet round, all are looked at.
    rounds = measured(["a"], 2, lambda _name: figures(1, 1, 2.6))
    assert len(rounds) == 4
    assert counted(rounds) == rounds


def test_one_core_may_be_used_by_others_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda: 1)
    assert quiet({"a": figures(1, 1, 0.2)})
    assert not quiet({"a": figures(1, 1, 0.3)})


def test_what_is_shown_says_whether_it_counts(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = [{"app": figures(100, 0.002), "bare": figures(200, 0.001)}]
    show(rounds, [ratio(rounds, "app", "bare")])
    shown = capsys.readouterr().out.splitlines()
    assert "100 requests/s, 2.000 ms CPU each (0.2 cores)" in shown[0]
    assert shown[-1] == "app to bare: 0.500 times the requests a second, 2.000 times the CPU time"
    show([{"app": figures(100, 0.002, 99.0)}], [])
    assert "these figures say little" in capsys.readouterr().out


def test_an_answer_that_is_an_error_ends_the_run() -> None:
    with pytest.raises(SystemExit, match=r"b did not answer everything with 200: .*'429': 3"):
        measured(["a", "b"], 1, lambda name: {"errors": 3, "statuses": {"429": 3}} if name == "b" else figures(1, 1))


def test_the_first_label_is_found_in_both_forms_of_an_answer() -> None:
    assert label({"model": "lenet5", "top5": [{"label": "7"}, {"label": "1"}]}) == "7"
    assert label([{"label": "3", "probability": 0.5}]) == "3"


def _compared(folder: Path, *contenders: Contender) -> Any:
    workload = load.Workload("googlenet", 2, 0.3)
    picture = load.digit(folder)
    options: dict[str, Any] = {"threads": 1, "rounds": 2, "warm_up_s": 0.1, "generate": load.python_loop}
    return compared(contenders, workload, picture, folder, **options)


def test_contenders_are_served_at_once_and_measured_in_each_round(tmp_path: Path) -> None:
    rounds = _compared(tmp_path, Contender("one", STUB), Contender("two", STUB))
    assert len(rounds) >= 2
    assert all(list(round_) in (["one", "two"], ["two", "one"]) for round_ in rounds)
    for round_ in rounds:
        for found in round_.values():
            assert found["requests"] > 2
            assert found["per_second"] == pytest.approx(found["requests"] / 0.3, rel=0.5)
            assert 0 <= found["cpu_s_per_picture"] < 1


def test_contenders_that_compute_different_things_are_not_compared(tmp_path: Path) -> None:
    other = Server("other", "Other", (sys.executable, "-c", OTHER, "{port}"), "/", raw)
    with pytest.raises(SystemExit, match=r"different things: \{'one': 'a', 'two': 'b'\}"):
        _compared(tmp_path, Contender("one", STUB), Contender("two", other))


def test_a_contender_that_does_not_start_ends_the_run_with_its_log(tmp_path: Path) -> None:
    broken = Server("broken", "Broken", (sys.executable, "-c", "raise SystemExit('out of luck')"), "/", raw)
    with pytest.raises(SystemExit, match="out of luck"):
        _compared(tmp_path, Contender("one", STUB), Contender("two", broken, ROOT))
