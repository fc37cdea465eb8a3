"""The CPU engine, against plain torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from models.checkpoints.labels import labels
from models.onnx import graph_cache
from models.onnx.graph_cache import cached_graph, graph_path
from service.domain.prediction import MAX_K
from service.engines import onnx_cpu
from service.engines.onnx_cpu import DamagedGraphError, OnnxCpu
from service.engines.torch_cpu import TorchCpu

LENET = Catalogue().find("lenet5@mnist")
ACTIVATIONS = LENET.costs.activations
GOOGLENET = Catalogue(untrained=True).find("googlenet")


@pytest.mark.parametrize(
    ("checkpoint", "cache"), [(LENET, "box_cache"), (GOOGLENET, "untrained_cache")], ids=["lenet5", "googlenet"]
)
def test_the_graph_answers_like_torch(checkpoint: Checkpoint, cache: str, request: pytest.FixtureRequest) -> None:
    """Every network's graph is compared in tests/models/onnx/test_export.py, this test goes through the cache."""
    preprocess = checkpoint.preprocess
    engine, plain = (
        OnnxCpu(checkpoint, threads=1, cache_dir=request.getfixturevalue(cache)),
        TorchCpu(checkpoint, precision="float32", threads=1),
    )
    for count in (1, 3, 16):
        shape = (count, preprocess.side, preprocess.side, preprocess.channels)
        crops = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
        found, expected = engine.run(crops, True), plain.run(crops, True)
        assert found.probabilities.shape == found.indices.shape == (count, MAX_K)
        assert (found.probabilities.dtype, found.indices.dtype) == (np.float32, np.int64)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=1e-5)
        assert found.distributions is not None
        assert expected.distributions is not None
        assert found.distributions.shape == (count, len(labels(checkpoint.labels)))
        np.testing.assert_allclose(found.distributions, expected.distributions, rtol=0, atol=1e-5)
    assert engine.run(crops).distributions is None


@pytest.mark.parametrize(
    ("least_bytes", "sizes"), [(8 * 4 * ACTIVATIONS, [8, 4]), (8 * 4 * ACTIVATIONS - 1, [7, 5]), (1, [6, 6])]
)
def test_a_large_batch_is_computed_in_parts_that_fit_the_memory_bound(
    least_bytes: int, sizes: list[int], box_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights' bytes are always allowed: 60,850 parameters, and 6 pictures of 9,118 activations each."""
    assert (LENET.costs.params, ACTIVATIONS) == (60_850, 9_118)
    crops = np.random.default_rng(7).integers(0, 256, (12, 32, 32, 1), dtype=np.uint8)
    whole = OnnxCpu(LENET, threads=1, cache_dir=box_cache).run(crops, True)
    monkeypatch.setattr(onnx_cpu, "_LEAST_BYTES", least_bytes)
    engine = OnnxCpu(LENET, threads=1, cache_dir=box_cache)
    session, parts = engine._session, list[int]()
    assert session is not None
    run = session.run

    def counting(wanted: list[str], inputs: dict[str, Any]) -> Any:
        parts.append(len(inputs["crops"]))
        return run(wanted, inputs)

    engine._session = SimpleNamespace(run=counting)
    found = engine.run(crops, True)
    assert parts == sizes
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    parts.clear()
    engine.warm_up(12)
    assert parts == [1]


@pytest.mark.parametrize(("multiply_adds", "threads"), [(300_000, 1), (9_999_999, 1), (10_000_000, 3)])
def test_a_network_with_little_to_compute_does_it_in_one_thread(
    multiply_adds: int, threads: int, box_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    options_of = onnx_cpu.session_options

    def options(threads: int) -> onnxruntime.SessionOptions:
        used.append(threads)
        return options_of(threads)

    monkeypatch.setattr(onnx_cpu, "session_options", options)
    checkpoint = replace(LENET, own_costs=replace(LENET.costs, multiply_adds=multiply_adds))
    OnnxCpu(checkpoint, threads=3, cache_dir=box_cache)
    assert used == [threads]


def test_session_options_set_threads_and_turn_spinning_and_memory_patterns_off() -> None:
    options = onnx_cpu.session_options(3)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert not options.enable_mem_pattern


def test_a_clear_digit_is_known(box_cache: Path) -> None:
    crop = np.zeros((1, 32, 32, 1), np.uint8)
    crop[0, 6:26, 15:18] = 255  # a one
    top = OnnxCpu(LENET, threads=1, cache_dir=box_cache).run(crop)
    assert top.indices[0, 0] == 1
    assert top.probabilities[0, 0] > 0.9
    assert (np.diff(top.probabilities[0]) <= 0).all()


def test_the_engine_holds_its_weights_until_it_is_closed(box_cache: Path) -> None:
    engine = OnnxCpu(LENET, threads=1, cache_dir=box_cache)
    assert 60_850 * 4 <= engine.bytes_held < 60_850 * 4 * 1.3
    engine.close()
    with pytest.raises(AssertionError):
        engine.warm_up(1)


def test_a_truncated_graph_is_exported_again(box_cache: Path, tmp_path: Path) -> None:
    path = graph_path(LENET, tmp_path)
    path.parent.mkdir()
    path.write_bytes(cached_graph(LENET, box_cache).read_bytes()[:1000])
    engine = OnnxCpu(LENET, threads=1, cache_dir=tmp_path)
    engine.warm_up(1)
    assert path.stat().st_size > 60_850 * 4


def fail_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[Path]:
    """Makes the next session fail. Returns the files that sessions were, or were to be, made of."""
    tried: list[Path] = []
    real = onnxruntime.InferenceSession

    def session(path: str, *arguments: Any, **options: Any) -> Any:
        tried.append(Path(path))
        if len(tried) == 1:
            raise error
        return real(path, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return tried


def status(name: str, text: str) -> Exception:
    error: Exception = getattr(onnxruntime.capi.onnxruntime_pybind11_state, name)(f"[ONNXRuntimeError] : {text}")
    return error


#: Texts as ONNX Runtime 1.x has them, taken from processes with limits on memory, files and threads.
NO_DAMAGE = {
    "memory for the file": ("Fail", "1 : FAIL : Load model from /x failed:std::bad_alloc", MemoryError),
    "memory for the weights": ("RuntimeException", "6 : RUNTIME_EXCEPTION : Exception: std::bad_alloc", MemoryError),
    "open files": ("Fail", "1 : FAIL : Load model from /x failed:system error number 24", OSError),
    "permission": ("Fail", "1 : FAIL : Load model from /x failed:system error number 13", PermissionError),
    "anything else": ("EPFail", "11 : EP_FAIL : what", Exception),
}


@pytest.mark.parametrize("name", NO_DAMAGE)
def test_an_error_that_is_not_the_graphs_fault_does_not_replace_it(
    name: str, box_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, text, raised = NO_DAMAGE[name]
    path = graph_path(LENET, tmp_path)
    path.parent.mkdir()
    path.write_bytes(cached_graph(LENET, box_cache).read_bytes())
    inode = path.stat().st_ino
    tried = fail_once(monkeypatch, status(kind, text))
    with pytest.raises(raised):
        OnnxCpu(LENET, threads=1, cache_dir=tmp_path)
    assert (tried, path.stat().st_ino) == ([path], inode)


def test_a_lack_of_threads_does_not_replace_the_graph(box_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = fail_once(
        monkeypatch, RuntimeError("PosixThread pthread_create failed, error code: 11 error msg: Resource")
    )
    with pytest.raises(BlockingIOError):
        OnnxCpu(LENET, threads=1, cache_dir=box_cache)
    assert len(tried) == 1


@pytest.mark.parametrize("damage", ["empty", "text", "zeros", "half", "one byte less", "zeros at its end"])
def test_a_damaged_graph_is_exported_again_once(
    damage: str, box_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cached_graph(LENET, box_cache).read_bytes()
    half = len(whole) // 2
    path = graph_path(LENET, tmp_path)
    path.parent.mkdir()
    path.write_bytes(
        {
            "empty": b"",
            "text": b"no graph",
            "zeros": bytes(len(whole)),
            "half": whole[:half],
            "one byte less": whole[:-1],
            "zeros at its end": whole[:half] + bytes(half),
        }[damage]
    )
    exported: list[Path] = []

    def export(_checkpoint: Checkpoint, _cache: Path, to: Path) -> None:
        exported.append(to)
        part = to.with_suffix(".part")
        part.write_bytes(whole)
        part.replace(to)

    monkeypatch.setattr(graph_cache, "export_apart", export)
    OnnxCpu(LENET, threads=1, cache_dir=tmp_path).warm_up(1)
    assert exported == [path]
    whole = b"damaged again"
    path.write_bytes(whole)
    with pytest.raises(DamagedGraphError):
        OnnxCpu(LENET, threads=1, cache_dir=tmp_path)
    assert exported == [path, path]
