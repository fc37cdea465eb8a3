"""Which engine runs where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from service.engines import DeviceError
from service.engines.loader import engine_loader, pick_device


def chosen(**options: object) -> object:
    plain = {"device": "cpu", "engine": None, "precision": "float32", "threads": 1, "cache_dir": Path("cache")}
    return engine_loader(**(plain | options)).engine  # type: ignore[arg-type]


def test_a_cpu_runs_the_exported_graph_unless_told_otherwise() -> None:
    assert chosen() == "onnx_cpu"
    assert chosen(engine="torch_cpu") == "torch_cpu"
    assert chosen(precision="bfloat16") == "torch_cpu"
    # Also where there is a GPU: the engine says which device is meant.
    assert chosen(device="auto", engine="onnx_cpu") == "onnx_cpu"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"engine": "torch_cuda"}, "torch_cuda does not run on cpu"),
        ({"engine": "onnx_cpu", "precision": "float16"}, "computes in float32"),
        ({"device": "cuda:99"}, "CUDA devices"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, object], what: str) -> None:
    with pytest.raises(DeviceError, match=what):
        chosen(**options)


def test_a_machine_without_a_driver_is_a_cpu() -> None:
    assert pick_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        assert pick_device("auto") == "cpu"


def test_a_gpu_that_is_hidden_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert pick_device("auto") == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_runs_torch() -> None:
    assert chosen(device="auto") == chosen(device="cuda") == "torch_cuda"
    with pytest.raises(DeviceError, match="onnx_cpu does not run on cuda:0"):
        chosen(device="cuda:0", engine="onnx_cpu")
