"""Exported graphs give torch's probabilities, for every network."""

from __future__ import annotations

from collections.abc import Callable
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

#: Networks with nine tenths of their weights in the hidden fully connected layers, whose width does not matter here.
LARGE = {name for name, variant in VARIANTS.items() if variant.params > 60_000_000}
#: Their width here. tests/service/whole/test_untrained.py exports the whole networks and compares them with torch.
_HIDDEN = 64
#: The size of pictures for VGG, which needs a twelfth of the arithmetic so.
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
        # He's scale for weights, and biases large enough to be missed.
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
    # The comparison is sensitive to the class, and to the picture.
    assert max(tops) > 0.03
    assert np.std(tops) > 1e-3


def test_batch_norm_and_dropout_are_not_in_the_graph() -> None:
    model = graph(get_model("googlenet_bn", aux_heads=True).requires_grad_(False), PRESETS["half-224"])
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"BatchNormalization", "Dropout", "Mul", "Div"}
    weights = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert weights < VARIANTS["googlenet_bn"].params


def test_few_classes_give_few_answers() -> None:
    network = get_model("lenet5", num_classes=4).requires_grad_(False)
    outputs = session(graph(network, PRESETS["mnist"])).run(None, {"crops": pictures(2, PRESETS["mnist"])})
    assert [output.shape for output in outputs] == [(2, 4)] * 3


def test_the_file_is_a_valid_graph_and_alone_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    export(UNTRAINED.find("lenet5"), path)
    onnx.checker.check_model(onnx.load(path))
    assert [file.name for file in tmp_path.iterdir()] == ["graph.onnx"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_distribution_is_that_of_all_classes_in_their_order() -> None:
    network, preprocess = get_model("lenet5", num_classes=13).requires_grad_(False), PRESETS["mnist"]
    crops = pictures(3, preprocess)
    model = session(graph(network, preprocess))
    probabilities, indices, whole = model.run(["probabilities", "indices", "distribution"], {"crops": crops})
    expected = torch.softmax(network(normalised(torch.from_numpy(crops), preprocess)), 1).numpy()
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-5)
    # The ten most probable of the thirteen, best first.
    assert indices.shape == (3, 10)
    assert indices.tolist() == np.argsort(-whole, 1, kind="stable")[:, :10].tolist()
    np.testing.assert_array_equal(probabilities, np.take_along_axis(whole, indices, 1))


class Doubling(nn.Module):
    """Adds, which no network here does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


@pytest.mark.parametrize(
    ("layer", "says"), [(Doubling(), "add"), (nn.Sigmoid(), "Sigmoid"), (nn.AdaptiveAvgPool2d(2), "AdaptiveAvgPool2d")]
)
def test_a_layer_of_an_unknown_kind_is_named(layer: nn.Module, says: str) -> None:
    with pytest.raises(ValueError, match=f"cannot export a layer of this kind: .*{says}"):
        graph(nn.Sequential(layer, nn.Linear(2, 2)), PRESETS["mnist"])


# The comparison with torch before a graph is stored.


Damage = Callable[[onnx.ModelProto], None]


def damaged(monkeypatch: pytest.MonkeyPatch, *steps: Damage) -> None:
    """Damages every graph between the writer and the file."""

    def damaging(network: nn.Module, preprocess: Preprocess) -> onnx.ModelProto:
        model = graph(network, preprocess)
        for step in steps:
            step(model)
        return model

    monkeypatch.setattr(exporting, "graph", damaging)


def constant(model: onnx.ModelProto, array: Any) -> str:
    name = f"damage{len(model.graph.initializer)}"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return name


def other_mean(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full(1, 90, np.float32), "w0"))


def scaled(output: str, factor: float) -> Damage:
    """Multiplies one output by a number, and leaves the others as they were."""

    def damage(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [f"{name} before" if name == output else name for name in names]
        by = constant(model, np.float32(factor))
        model.graph.node.append(onnx.helper.make_node("Mul", [f"{output} before", by], [output]))

    return damage


def wrong_for(count: int) -> Damage:
    """Adds a number to the logit of one class if a batch has that many pictures."""

    def damage(model: onnx.ModelProto) -> None:
        softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
        place, logits = list(model.graph.node).index(softmax), softmax.input[0]
        softmax.input[0] = "damaged"
        shift = np.zeros(_classes(model), np.float32)
        shift[2] = 3
        nodes = [
            onnx.helper.make_node("Shape", [logits], ["shape"]),
            onnx.helper.make_node("Gather", ["shape", constant(model, np.int64(0))], ["count"]),
            onnx.helper.make_node("Equal", ["count", constant(model, np.int64(count))], ["hit"]),
            onnx.helper.make_node("Cast", ["hit"], ["hit as a number"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", ["hit as a number", constant(model, shift)], ["shift"]),
            onnx.helper.make_node("Add", [logits, "shift"], ["damaged"]),
        ]
        for i, node in enumerate(nodes):
            model.graph.node.insert(place + i, node)

    return damage


def _classes(model: onnx.ModelProto) -> int:
    return int(model.graph.output[-1].type.tensor_type.shape.dim[1].dim_value)


def other_picture(model: onnx.ModelProto) -> None:
    """The logits of a batch are those of its first picture."""
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    place, logits = list(model.graph.node).index(softmax), softmax.input[0]
    softmax.input[0] = "mixed"
    spread = onnx.helper.make_node("Expand", ["first", "shape"], ["mixed"])
    first = onnx.helper.make_node("Gather", [logits, constant(model, np.array([0]))], ["first"], axis=0)
    for i, node in enumerate([first, onnx.helper.make_node("Shape", [logits], ["shape"]), spread]):
        model.graph.node.insert(place + i, node)


DAMAGE: dict[str, Damage] = {
    "a forgotten mean": other_mean,
    # Twice the tolerance of a probability near one; the other outputs are right.
    "probabilities alone": scaled("probabilities", 1.002),
    "the distribution alone": scaled("distribution", 1.002),
    "one picture": wrong_for(1),
    "three pictures": wrong_for(3),
    "the first picture's answer for all": other_picture,
    "nothing that is a number": scaled("distribution", float("nan")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_graph_that_answers_otherwise_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    damaged(monkeypatch, DAMAGE[name])
    with pytest.raises(ArithmeticError, match="differ from torch's by"):
        export(Catalogue().find("lenet5@mnist"), tmp_path / "graph.onnx")
    assert not list(tmp_path.iterdir())


def test_the_damage_of_one_size_of_batch_shows_in_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the graphs above are refused for their answers, not because the damage itself fails."""
    damaged(monkeypatch, wrong_for(2))
    export(Catalogue().find("lenet5@mnist"), tmp_path / "graph.onnx")


@pytest.mark.parametrize("output", ["probabilities", "distribution"])
@pytest.mark.parametrize(
    ("classes", "factor", "taken"),
    [
        # Fresh weights give each of ten classes about 0.1: a thousandth of that is the absolute tolerance.
        (10, 1.0005, True),
        (10, 1.002, False),
        # And each of a thousand classes about 0.001, of which a hundredth is the relative one.
        (1000, 1.005, True),
        (1000, 1.02, False),
    ],
)
def test_probabilities_may_differ_by_a_ten_thousandth_and_a_hundredth_of_themselves(
    tmp_path: Path, output: str, classes: int, factor: float, taken: bool
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = get_model("lenet5", num_classes=classes).requires_grad_(False)
    model = graph(network, PRESETS["mnist"])
    scaled(output, factor)(model)
    onnx.save(model, tmp_path / "graph.onnx")
    if taken:
        exporting._check(network, PRESETS["mnist"], tmp_path / "graph.onnx")
    else:
        with pytest.raises(ArithmeticError, match="differ from torch's by"):
            exporting._check(network, PRESETS["mnist"], tmp_path / "graph.onnx")


def test_a_graph_that_is_not_stored_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.onnx"
    export(UNTRAINED.find("lenet5"), path)
    before = path.read_bytes()
    damaged(monkeypatch, other_mean)
    with pytest.raises(ArithmeticError):
        export(Catalogue().find("lenet5@mnist"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_graph_that_mixes_up_classes_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph has the right probabilities for the wrong classes."""

    def mixed_up(network: nn.Module, preprocess: Preprocess) -> onnx.ModelProto:
        with torch.no_grad():
            network.output.weight.copy_(network.output.weight.flip(0))  # type: ignore[union-attr, operator]
            model = graph(network, preprocess)
            network.output.weight.copy_(network.output.weight.flip(0))  # type: ignore[union-attr, operator]
        return model

    monkeypatch.setattr(exporting, "graph", mixed_up)
    with pytest.raises(ArithmeticError, match="differ from torch's by"):
        export(Catalogue().find("lenet5@mnist"), tmp_path / "graph.onnx")


def test_damaged_weights_are_reported(tmp_path: Path) -> None:
    checkpoint = Catalogue().find("lenet5@mnist")
    assert checkpoint.path is not None
    broken = tmp_path / "lenet5.safetensors"
    broken.write_bytes(checkpoint.path.read_bytes()[:-10])
    with pytest.raises(WrongWeightsError):
        build_checkpoint(replace(checkpoint, path=broken))
    with pytest.raises(WrongWeightsError):
        export(replace(checkpoint, path=broken), tmp_path / "graph.onnx")


@pytest.mark.parametrize("name", ["googlenet", "inception_v2"])
def test_a_checkpoint_for_cifar10_is_exported_at_its_own_size(tmp_path: Path, name: str) -> None:
    """The stored weights have half precision."""
    network, path = lively(name, num_classes=10), tmp_path / "weights.safetensors"
    described = checkpoint(name, "cifar10", preprocess=PRESETS["cifar10"])
    write_checkpoint(path, network, described, half=True)
    assert path.stat().st_size < 25e6
    export(replace(described, path=path), tmp_path / "graph.onnx")  # which compares with torch
    loaded = session(onnx.load(tmp_path / "graph.onnx"))
    assert loaded.get_inputs()[0].shape[1:] == [64, 64, 3]
    assert loaded.get_outputs()[0].shape[1:] == [10]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_graph_gives_torchs_probabilities(name: str) -> None:
    """For one picture and three; for four networks the largest batch too."""
    check(name, (1, 3, 16) if name in ("lenet5", "googlenet", "alexnet", "vgg16") else (1, 3))


@pytest.mark.parametrize("constants", [LRNConstants(), LRNConstants(3, 5e-3, 0.75, 2.0), LRNConstants(4, 1e-2, 0.5)])
def test_response_normalisation_has_the_checkpoints_constants(constants: LRNConstants) -> None:
    check("alexnet", (2, 3), lrn=constants)


@pytest.mark.parametrize("name", ["googlenet", "inception_v2"])
def test_the_zoos_geometry_is_exported_too(name: str) -> None:
    check(name, (1, 3), as_graph=True)
