"""The table of engines: which one runs where, and what it loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from models.checkpoints.catalogue import Catalogue, WrongWeightsError
from models.onnx.graph_cache import graph_path
from service.config.fleet import Deployment
from service.engines import DeviceError, loader
from service.engines.loader import ENGINES, Loader, device_name, device_slug, engine_loader, pick_device
from service.engines.onnx_cpu import OnnxCpu
from service.engines.torch_cpu import TorchCpu
from tests.cards import put

LENET = Catalogue().find("lenet5@mnist")


def chosen(**options: object) -> Loader:
    plain = {"device": "cpu", "engine": None, "precision": "float32", "threads": 1, "cache_dir": Path("cache")}
    return engine_loader(**(plain | options))  # type: ignore[arg-type]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, as far as choosing goes."""
    monkeypatch.setattr(loader, "_has_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_a_cpu_runs_the_exported_graph_by_default() -> None:
    assert chosen().engine == "onnx_cpu"
    assert chosen(engine="torch_cpu").engine == "torch_cpu"
    assert chosen(precision="bfloat16").engine == "torch_cpu"


@pytest.mark.parametrize("engine", ["onnx_cpu", "torch_cpu", "pretend"])
@pytest.mark.usefixtures("two_gpus")
def test_an_engine_that_runs_on_cpus_alone_implies_the_device(engine: str) -> None:
    found = chosen(device="auto", engine=engine)
    assert (found.engine, found.device) == (engine, "cpu")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_runs_torch_in_any_precision() -> None:
    for precision in ("float32", "bfloat16", "float16"):
        for device in ("auto", "cuda", "cuda:0"):
            found = chosen(device=device, precision=precision)
            assert (found.engine, found.device, found.precision) == ("torch_cuda", "cuda:0", precision)
    assert chosen(device="auto", engine="torch_cuda").device == "cuda:0"
    with pytest.raises(DeviceError, match="onnx_cpu does not run on cuda:0; engine torch_cuda does"):
        chosen(device="cuda:0", engine="onnx_cpu")


@pytest.mark.usefixtures("two_gpus")
def test_a_precision_is_left_to_be_chosen_on_a_gpu_alone() -> None:
    assert chosen(device="cuda:1", precision="auto").precision == "auto"
    for options in ({"device": "cpu"}, {"device": "auto", "engine": "torch_cpu"}):
        assert chosen(**options, precision="auto") == chosen(**options, precision="float32")
    assert chosen(device="auto", engine="onnx_cpu", precision="auto").engine == "onnx_cpu"


@pytest.mark.usefixtures("two_gpus")
def test_batches_are_larger_on_a_gpu_unless_somebody_says() -> None:
    assert [chosen(device=device).max_batch_size for device in ("cpu", "cuda:0")] == [16, 128]
    assert [chosen(device=device, max_batch_size=5).max_batch_size for device in ("cpu", "cuda:0")] == [5, 5]


@pytest.mark.usefixtures("two_gpus")
def test_a_pretend_device_is_nobodys_default() -> None:
    for device in ("auto", "cpu", "cuda:1"):
        for precision in ("float32", "bfloat16", "float16"):
            assert chosen(device=device, precision=precision).engine != "pretend"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"engine": "torch_cuda"}, "torch_cuda does not run on cpu; engine onnx_cpu does"),
        ({"engine": "onnx_cpu", "precision": "float16"}, "computes in float32 only; engine torch_cpu computes in flo"),
        ({"device": "cuda:99"}, "CUDA devices"),
        ({"engine": "tpu"}, "there is no engine 'tpu'; known: onnx_cpu, torch_cpu, torch_cuda, pretend"),
        ({"precision": "int8"}, "no engine computes in int8 on cpu"),
    ],
)
def test_a_device_or_engine_that_cannot_be_used_is_refused(options: dict[str, object], what: str) -> None:
    with pytest.raises(DeviceError, match=what):
        chosen(**options)


def test_a_fleet_may_name_every_engine() -> None:
    assert set(get_args(Deployment.model_fields["engine"].annotation)) == {"auto", *ENGINES}


def test_the_loader_has_everything_that_was_chosen() -> None:
    found = chosen(threads=3, cache_dir=Path("graphs"), max_batch_size=5)
    assert found == Loader("onnx_cpu", "cpu", "float32", 3, Path("graphs"), 5)


def test_a_machine_without_a_driver_is_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == "cpu"
    monkeypatch.setattr(loader, "_has_driver", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("torch is asked for a GPU"))
    assert pick_device("auto") == "cpu"


def test_a_driver_without_a_gpu_that_works_is_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_has_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    with pytest.raises(DeviceError, match="device cuda is not here: this machine has 0 CUDA devices"):
        pick_device("cuda")


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_counted_from_zero() -> None:
    assert [pick_device(name) for name in ("auto", "cuda", "cuda:0", "cuda:1")] == [
        "cuda:0",
        "cuda:0",
        "cuda:0",
        "cuda:1",
    ]
    with pytest.raises(DeviceError, match="device cuda:2 is not here: this machine has 2 CUDA devices"):
        pick_device("cuda:2")


def test_a_hidden_gpu_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is torch asked for it. The driver lists its GPUs in files."""
    monkeypatch.setattr(Path, "glob", lambda _self, _pattern: iter([Path("0000:01:00.0")]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("torch is asked for a GPU"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert pick_device("auto") == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert loader._has_driver()
    monkeypatch.setattr(Path, "glob", lambda _self, _pattern: iter([]))
    assert not loader._has_driver()


def test_a_device_has_a_name_and_a_file_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda _pid: {3, 4, 7})
    device_name.cache_clear()
    assert re.fullmatch(r"\S.*, 3 cores", device_name("cpu"))
    assert device_slug("cpu") == "cpu-3-cores"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA H100 80GB (HBM3)")
    assert (device_name("cuda:0"), device_slug("cuda:0")) == ("NVIDIA H100 80GB (HBM3)", "nvidia-h100-80gb-hbm3")
    device_name.cache_clear()


def test_a_loader_makes_the_engine_that_it_names(box_cache: Path) -> None:
    onnx = Loader("onnx_cpu", "cpu", "float32", 1, box_cache, 4)(LENET)
    assert isinstance(onnx, OnnxCpu)
    half = Loader("torch_cpu", "cpu", "bfloat16", 1, box_cache, 4)(LENET)
    assert isinstance(half, TorchCpu)
    assert half.bytes_held == 2 * 60_850
    for engine in (onnx, half):
        engine.close()


def test_the_gpu_engine_gets_device_precision_and_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr("service.engines.torch_cuda.TorchCuda", lambda _checkpoint, **options: told.update(options))
    Loader("torch_cuda", "cuda:1", "float16", 1, Path("cache"), 12)(LENET)
    assert told == {"device": "cuda:1", "precision": "float16", "max_batch_size": 12}
    # As long as none is chosen, what needs no choice.
    Loader("torch_cuda", "cuda:1", "auto", 1, Path("cache"), 12)(LENET)
    assert told["precision"] == "float32"


def test_preparing_exports_the_graph(tmp_path: Path) -> None:
    Loader("onnx_cpu", "cpu", "float32", 1, tmp_path, 4).prepare(LENET)
    assert graph_path(LENET, tmp_path).is_file()


@pytest.mark.parametrize(("engine", "device"), [("torch_cpu", "cpu"), ("torch_cuda", "cuda:0")])
def test_preparing_for_torch_checks_the_weights(engine: str, device: str, tmp_path: Path) -> None:
    prepare = Loader(engine, device, "float32", 1, tmp_path, 4).prepare
    prepare(LENET)
    prepare(Catalogue(untrained=True).find("lenet5"))  # has no file
    put(tmp_path, "lenet5", "cifar10")  # of one tensor that no network has
    with pytest.raises(WrongWeightsError):
        prepare(Catalogue(tmp_path).find("lenet5@cifar10"))


def test_a_fingerprint_says_how_the_checkpoint_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "device_name", {"cpu": "a CPU", "cuda:0": "a GPU"}.get)
    monkeypatch.setattr(loader.metadata, "version", {"onnxruntime": "1.2", "torch": "3.4"}.get)
    on_cpu = Loader("onnx_cpu", "cpu", "float32", 2, Path("cache"), 16)
    found = on_cpu.fingerprint(LENET)
    digest = found.weights
    assert re.fullmatch("[0-9a-f]{16}", digest)
    assert found.model_dump() == {
        "device": "a CPU",
        "engine": "onnx_cpu",
        "precision": "float32",
        "threads": 2,
        "max_batch_size": 16,
        "libraries": {"onnxruntime": "1.2"},
        "weights": digest,
    }
    assert on_cpu.settings == found.settings
    on_gpu = Loader("torch_cuda", "cuda:0", "float16", 2, Path("cache"), 8).fingerprint(LENET)
    # Threads say nothing of a GPU.
    assert (on_gpu.device, on_gpu.threads, on_gpu.libraries) == ("a GPU", 0, {"torch": "3.4"})
    assert (on_gpu.precision, on_gpu.max_batch_size, on_gpu.weights) == ("float16", 8, digest)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_runs_torch() -> None:
    assert chosen(device="auto").engine == chosen(device="cuda").engine == "torch_cuda"
    with pytest.raises(DeviceError, match="onnx_cpu does not run on cuda:0"):
        chosen(device="cuda:0", engine="onnx_cpu")
