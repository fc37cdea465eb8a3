"""Exported graphs: the same probabilities as torch, whatever the network is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from models import get_model
from models.checkpoints.build import build_checkpoint
from models.checkpoints.catalogue import Catalogue, WrongWeightsError
from models.checkpoints.tensors import normalised, top_k
from models.images.preprocess import PRESETS, Preprocess
from models.install.import_ import write_checkpoint
from models.networks.layers import LRNConstants
from models.networks.variants import VARIANTS
from models.onnx import export as exporting
from models.onnx.export import export, graph
from tests.cards import checkpoint

#: Of their weights nine tenths are in the hidden fully connected layers, which are no other for being wide.
LARGE = {name for name, variant in VARIANTS.items() if variant.params > 60_000_000}
#: What they are here. As they are, tests/service/test_untrained.py has them exported, and compared with torch.
_HIDDEN = 64
#: Pixels that VGG is checked at: its layers are of one kind whatever the size, and its arithmetic is a twelfth.
_VGG_SIDE = 64
UNTRAINED = Catalogue(untrained=True)


def preprocess_of(name: str) -> Preprocess:
    preprocess = PRESETS[VARIANTS[name].preprocess]
    return replace(preprocess, crop=_VGG_SIDE) if name.startswith("vgg") else preprocess


def slim(name: str, **arguments: Any) -> nn.Module:
    """A large network with all its convolutions and narrow hidden layers, with random weights."""
    with torch.device("meta"):
        network = get_model(name, **arguments)
        dense = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.Linear)]
        inputs = dense[0][1].in_features
        inputs = 512 * (_VGG_SIDE // 32) ** 2 if name.startswith("vgg") else inputs
        for path, layer in dense:
            outputs = layer.out_features if path == dense[-1][0] else _HIDDEN
            network.set_submodule(path, nn.Linear(inputs, outputs))
            inputs = outputs
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        # He's scale for weights, and biases that are missed.
        nn.init.normal_(parameter, 0, (2 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.1)
    return network.eval()


def lively(name: str, **arguments: Any) -> nn.Module:
    """A network whose answers depend on the picture: random batch-norm statistics, and logits far apart. Fresh weights
    give all classes the same probability, which any graph would."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = (slim if name in LARGE else get_model)(name, **arguments).requires_grad_(False)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.1, 0.1)
        variant = VARIANTS[name]
        last = network.get_submodule(variant.last_layer)
        preprocess = preprocess_of(name)
        logits = network(normalised(torch.from_numpy(pictures(2, preprocess)), preprocess))
        last.weight.mul_(4 / logits.std())
    return network


def pictures(count: int, preprocess: Preprocess) -> np.ndarray[Any, Any]:
    """Coarse patches: fine noise looks alike after a few pools."""
    side, channels = preprocess.side, preprocess.channels
    coarse = np.random.default_rng(count).integers(0, 256, (count, side // 8 + 1, side // 8 + 1, channels))
    return np.kron(coarse, np.ones((1, 8, 8, 1)))[:, :side, :side].astype(np.uint8)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def torchs(network: nn.Module, preprocess: Preprocess, crops: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    with torch.inference_mode():
        values, indices = top_k(network(normalised(torch.from_numpy(crops), preprocess)), 10)
    return values.numpy(), indices.numpy()


def check(name: str, batches: tuple[int, ...], **arguments: Any) -> None:
    network, preprocess = lively(name, **arguments), preprocess_of(name)
    onnx_session = session(graph(network, preprocess))
    tops = []
    for count in batches:
        crops = pictures(count, preprocess)
        found, indices = onnx_session.run(["probabilities", "indices"], {"crops": crops})
        expected, expected_indices = torchs(network, preprocess, crops)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert (indices[:, 0] == expected_indices[:, 0]).mean() > 0.9
        tops += list(found[:, 0])
    # What the comparison can tell apart: the classes, and the pictures.
    assert max(tops) > 0.03
    assert np.std(tops) > 1e-3


@pytest.mark.parametrize("name", VARIANTS)
def test_a_graph_gives_torchs_probabilities(name: str) -> None:
    """One picture, three, and of four networks the largest batch too."""
    check(name, (1, 3, 16) if name in ("lenet5", "googlenet", "alexnet", "vgg16") else (1, 3))


@pytest.mark.parametrize("constants", [LRNConstants(), LRNConstants(3, 5e-3, 0.75, 2.0), LRNConstants(4, 1e-2, 0.5)])
def test_response_normalisation_is_the_checkpoints(constants: LRNConstants) -> None:
    check("alexnet", (2, 3), lrn=constants)


@pytest.mark.parametrize("name", ["googlenet", "inception_v2"])
def test_the_zoos_geometry_is_exported_too(name: str) -> None:
    check(name, (1, 3), as_graph=True)


def test_batch_norm_and_training_leave_no_trace() -> None:
    model = graph(get_model("googlenet_bn", aux_heads=True).requires_grad_(False), PRESETS["half-224"])
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"BatchNormalization", "Dropout", "Mul", "Div"}
    weights = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert weights < VARIANTS["googlenet_bn"].params


def test_few_classes_give_few_answers() -> None:
    network = get_model("lenet5", num_classes=4).requires_grad_(False)
    outputs = session(graph(network, PRESETS["mnist"])).run(None, {"crops": pictures(2, PRESETS["mnist"])})
    assert [output.shape for output in outputs] == [(2, 4)] * 3


def test_the_file_is_whole_checked_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    export(UNTRAINED.find("lenet5"), path)
    onnx.checker.check_model(onnx.load(path))
    assert [file.name for file in tmp_path.iterdir()] == ["graph.onnx"]


@pytest.fixture
def wrong_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that forgets the mean."""

    def forgetful(network: nn.Module, preprocess: Preprocess) -> onnx.ModelProto:
        model = graph(network, preprocess)
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full(1, 90, np.float32), "w0"))
        return model

    monkeypatch.setattr(exporting, "graph", forgetful)


@pytest.mark.usefixtures("wrong_graph")
def test_a_graph_that_answers_otherwise_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError, match="differ from torch's by"):
        export(Catalogue().find("lenet5@mnist"), tmp_path / "graph.onnx")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_mixes_up_classes_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its probabilities are right, and each belongs to another class."""

    def mixed_up(network: nn.Module, preprocess: Preprocess) -> onnx.ModelProto:
        with torch.no_grad():
            network.output.weight.copy_(network.output.weight.flip(0))  # type: ignore[union-attr, operator]
            model = graph(network, preprocess)
            network.output.weight.copy_(network.output.weight.flip(0))  # type: ignore[union-attr, operator]
        return model

    monkeypatch.setattr(exporting, "graph", mixed_up)
    with pytest.raises(ArithmeticError, match="differ from torch's by"):
        export(Catalogue().find("lenet5@mnist"), tmp_path / "graph.onnx")


def test_damaged_weights_are_said_to_be(tmp_path: Path) -> None:
    checkpoint = Catalogue().find("lenet5@mnist")
    assert checkpoint.path is not None
    broken = tmp_path / "lenet5.safetensors"
    broken.write_bytes(checkpoint.path.read_bytes()[:-10])
    from dataclasses import replace

    with pytest.raises(WrongWeightsError):
        build_checkpoint(replace(checkpoint, path=broken))
    with pytest.raises(WrongWeightsError):
        export(replace(checkpoint, path=broken), tmp_path / "graph.onnx")


@pytest.mark.parametrize("name", ["googlenet", "inception_v2"])
def test_a_checkpoint_for_cifar10_is_exported_at_its_own_size(tmp_path: Path, name: str) -> None:
    """Half-precision weights too: what is served is what was measured."""
    network, path = lively(name, num_classes=10), tmp_path / "weights.safetensors"
    described = checkpoint(name, "cifar10", preprocess=PRESETS["cifar10"])
    write_checkpoint(path, network, described, half=True)
    assert path.stat().st_size < 25e6
    export(replace(described, path=path), tmp_path / "graph.onnx")  # which compares with torch
    loaded = session(onnx.load(tmp_path / "graph.onnx"))
    assert loaded.get_inputs()[0].shape[1:] == [64, 64, 3]
    assert loaded.get_outputs()[0].shape[1:] == [10]
