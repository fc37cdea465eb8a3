"""Graphs on disk: made once, by one process, for exactly the weights that they hold."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from models import graph_cache
from models.checkpoints import Catalogue, Checkpoint, WeightsMissingError, WrongWeightsError
from models.graph_cache import cached_graph, graph_path

LENET = Catalogue().find("lenet5@mnist")


def imported(cache: Path, data: bytes) -> Checkpoint:
    """The box's LeNet-5 in a cache of its own, to be damaged."""
    path = Catalogue(cache).path_for(LENET.variant, "mnist")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return replace(LENET, path=path)


def test_a_graph_is_made_once_and_without_torch(tmp_path: Path) -> None:
    """In a process of its own: this one has imported torch long ago."""
    code = (
        "import sys; from pathlib import Path; from models.checkpoints import Catalogue;"
        "from service.engines.choice import engine_loader;"
        "load = engine_loader(device='cpu', engine=None, precision='float32', threads=1, cache_dir=Path(sys.argv[1]));"
        "engine = load(Catalogue().find('lenet5@mnist')); engine.warm_up(4); print('torch' in sys.modules)"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"
    (path,) = tmp_path.glob("graphs/*.onnx")
    assert path == graph_path(LENET, tmp_path)
    first = path.stat().st_ino
    assert cached_graph(LENET, tmp_path) == path
    assert path.stat().st_ino == first


def test_replicas_that_start_together_export_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def export(_checkpoint: Checkpoint, _cache: Path, path: Path) -> None:
        started.append(path)
        time.sleep(0.1)
        path.write_bytes(b"a graph")

    monkeypatch.setattr(graph_cache, "export_apart", export)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: cached_graph(LENET, tmp_path), range(8)))
    assert len(started) == 1
    assert set(found) == {graph_path(LENET, tmp_path)}


def test_other_weights_cards_and_code_are_other_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LENET.path is not None
    data = LENET.path.read_bytes()
    same = imported(tmp_path, data)
    paths = {graph_path(LENET, tmp_path), graph_path(same, tmp_path)}
    assert len(paths) == 1
    other = imported(tmp_path, data[:-1] + bytes([data[-1] ^ 1]))
    paths.add(graph_path(other, tmp_path))
    paths.add(graph_path(replace(LENET, network={"lrn": {"size": 5}}), tmp_path))
    untrained = Catalogue(untrained=True)
    paths |= {graph_path(untrained.find(name), tmp_path) for name in ("lenet5", "vgg11", "vgg11_lrn")}
    monkeypatch.setattr(graph_cache, "_code", lambda: "tomorrow's")
    paths.add(graph_path(LENET, tmp_path))
    assert len(paths) == 7


def test_graphs_that_nobody_uses_any_more_go_when_a_new_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_cache, "export_apart", lambda _checkpoint, _cache, path: path.write_bytes(b"new"))
    folder = tmp_path / "graphs"
    folder.mkdir()
    for name, hours in (("lenet5@mnist-old", 48), ("lenet5@mnist-new", 1), ("lenet5@cifar10-old", 48)):
        path = folder / f"{name}.onnx"
        path.write_bytes(b"old")
        os.utime(path, (time.time() - 3600 * hours,) * 2)
    cached_graph(LENET, tmp_path)
    left = {path.name for path in folder.glob("*.onnx")}
    assert left == {"lenet5@mnist-new.onnx", "lenet5@cifar10-old.onnx", graph_path(LENET, tmp_path).name}


def test_damaged_weights_are_said_to_be(tmp_path: Path) -> None:
    assert LENET.path is not None
    damaged = imported(tmp_path, LENET.path.read_bytes().replace(b"output.weight", b"output.weigth"))
    with pytest.raises(WrongWeightsError, match=r"output\.weight is missing"):
        cached_graph(damaged, tmp_path)
    assert not list(tmp_path.glob("graphs/*.onnx"))


def test_weights_that_are_not_there_are_said_to_be_missing(tmp_path: Path) -> None:
    for gone in (Catalogue(tmp_path).find("vgg16"), replace(LENET, path=tmp_path / "gone.safetensors")):
        with pytest.raises(WeightsMissingError):
            cached_graph(gone, tmp_path)


def test_an_export_that_fails_for_another_reason_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="exporting lenet5@mnist failed"):
        cached_graph(LENET, tmp_path)


def test_a_cache_that_cannot_be_written_to_does_not_keep_anything_from_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_cache, "export_apart", lambda _checkpoint, _cache, path: path.write_bytes(b"a graph"))
    (tmp_path / "graphs").write_text("a file where the folder should be")
    # A file may be written to; a folder below it cannot be.
    found = cached_graph(LENET, tmp_path / "graphs")
    assert found.read_bytes() == b"a graph"
    assert tmp_path not in found.parents


def test_weights_that_are_replaced_while_they_are_exported_leave_no_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LENET.path is not None
    data = LENET.path.read_bytes()
    checkpoint = imported(tmp_path, data)

    def export(_checkpoint: Checkpoint, _cache: Path, path: Path) -> None:
        imported(tmp_path, data[:-1] + bytes([data[-1] ^ 1]))
        path.write_bytes(b"of which weights?")

    monkeypatch.setattr(graph_cache, "export_apart", export)
    with pytest.raises(RuntimeError, match="were replaced while they were exported"):
        cached_graph(checkpoint, tmp_path)
    assert not list(tmp_path.glob("graphs/*.onnx"))


def test_what_a_killed_export_left_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "export_apart", lambda _checkpoint, _cache, path: path.write_bytes(b"new"))
    left = tmp_path / "graphs" / ".lenet5@mnist-0123456789abcdef.onnx.k1.part"
    left.parent.mkdir()
    left.write_bytes(b"half")
    cached_graph(LENET, tmp_path)
    assert not left.exists()


def test_a_graph_in_a_cache_that_is_read_only_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = graph_path(LENET, tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"a graph")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cached_graph(LENET, tmp_path) == path


def test_an_export_that_takes_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "_EXPORT_WITHIN_S", 0.01)
    with pytest.raises(RuntimeError, match="took more than 0 s"):
        cached_graph(LENET, tmp_path)
