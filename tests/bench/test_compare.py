"""The comparison with other servers: who is in it, and what becomes of one that does not start."""

from __future__ import annotations

import sys
from pathlib import Path

import compare
import pytest
from load import Workload
from servers import OURS, Server, raw, servers

BROKEN = Server("solo", "Broken", (sys.executable, "-c", "raise SystemExit('ray: no such key')"), "/", raw)


def test_every_way_to_serve_topfive_is_compared_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py"])
    options = compare.arguments()
    assert options.servers == ["limit", *servers()]
    assert {server.key for server in OURS} < set(options.servers)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--quick"])
    assert compare.arguments().servers == ["limit", "topfive", "solo", "mosec-s", "mosec-t"]


def test_a_server_that_does_not_start_has_errors_for_each_workload(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "servers", lambda: {"solo": BROKEN})
    monkeypatch.setattr(compare, "OURS", (BROKEN,))
    todo = [Workload("lenet5", 1, 0.1), Workload("lenet5", 64, 0.1)]
    found = list(compare.figures_of("solo", todo, tmp_path, 1, 0.1))
    assert [workload for workload, _ in found] == todo
    assert all(figures["errors"] and "solo is not ready" in figures["failure"] for _, figures in found)
    assert "ray: no such key" in capsys.readouterr().err


def test_ours_need_no_graph_of_the_peers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exported: list[str] = []
    monkeypatch.setattr(compare, "export", lambda network, _folder: exported.append(network))
    for ours, expected in (((BROKEN,), []), ((), ["lenet5"])):
        monkeypatch.setattr(compare, "servers", lambda: {"solo": BROKEN})
        monkeypatch.setattr(compare, "OURS", ours)
        list(compare.figures_of("solo", [Workload("lenet5", 1, 0.1)], tmp_path, 1, 0.1))
        assert exported == expected
