"""A checkpoint -> an ONNX graph from 8-bit crops to classes, for a runtime without torch.

Input ``crops``: uint8 (N, side, side, channels) as ``preprocess.crop`` makes them. Outputs: ``probabilities`` float32
(N, k) and ``indices`` int64 (N, k), most probable first, where k is ten or the number of classes if that is smaller;
``distribution`` float32 (N, classes), the probabilities of all classes in the order of their numbers, which costs
nothing unless it is fetched. The graph has the checkpoint's normalisation, the network with batch norm folded into its
convolutions, softmax and top-k.

The graph is written from the layers that ``tracing`` finds, in a second for each network. torch's exporter takes a
quarter of a minute for the same convolutions, and cannot fold normalisation into the first convolution's weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx, nn
from torch.nn.utils import fuse_conv_bn_weights

from models.checkpoints.build import build_checkpoint
from models.checkpoints.catalogue import Checkpoint, WeightsMissingError, WrongWeightsError
from models.checkpoints.tensors import normalised
from models.files import atomic_write
from models.images.preprocess import Preprocess
from models.networks.layers import LocalResponseNorm
from models.networks.lenet import ScaledTanh, Subsampling, TableConv2d
from models.networks.tracing import trace

#: The most classes that the graph gives for a picture.
MAX_K = 10
_OPSET = 17
#: The largest distance of a probability from torch's, absolute and relative.
_TOLERANCE, _RELATIVE = 1e-4, 1e-2


def export(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the graph of a checkpoint, whole or not at all, after comparing its probabilities with torch's.

    Raises:
        WeightsMissingError, WrongWeightsError: see ``checkpoints.build.build_checkpoint``.
        ArithmeticError: the probabilities differ.
    """
    network = build_checkpoint(checkpoint).requires_grad_(False)
    model = graph(network, checkpoint.preprocess)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        onnx.save(model, str(part))
        del model
        _check(network, checkpoint.preprocess, part)


def _check(network: nn.Module, preprocess: Preprocess, path: Path) -> None:
    """Compares a graph with its network in torch on noise, for one picture and for three."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        shape = (count, preprocess.side, preprocess.side, preprocess.channels)
        crops = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
        found, indices, whole = session.run(["probabilities", "indices", "distribution"], {"crops": crops})
        with torch.inference_mode():
            everything = torch.softmax(network(normalised(torch.from_numpy(crops), preprocess)), 1)
        # Torch's probabilities of the classes that the graph chose. They are compared relatively too, since fresh
        # weights give each of a thousand classes a thousandth.
        named = everything.gather(1, torch.from_numpy(indices))
        for answer, expected in ((found, named.numpy()), (whole, everything.numpy())):
            distance = float(np.abs(answer - expected).max())
            if not (distance <= _TOLERANCE and np.allclose(answer, expected, rtol=_RELATIVE, atol=1e-6)):
                raise ArithmeticError(f"the graph's probabilities differ from torch's by {distance}")


def graph(network: nn.Module, preprocess: Preprocess) -> onnx.ModelProto:
    """The ONNX model of a network in eval mode, with the normalisation of its preprocessing before it."""
    writer = _Writer(network, preprocess)
    for node in trace(network):
        writer.visit(node)
    return writer.model()


class _Writer:
    """Writes the ONNX nodes of a traced network, one after the other."""

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        self.modules = dict(network.named_modules())
        self.preprocess = preprocess
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values: dict[fx.Node, str] = {}
        self.channels = 0
        """Output channels of the last convolution."""

    def visit(self, node: fx.Node) -> None:
        sources = [self.values[source] for source in node.all_input_nodes if source in self.values]
        if node.op == "placeholder":
            self.values[node] = self._normalised()
        elif node.op == "output":
            self._top_k(sources[0])
        elif node.op == "call_function" and node.target is torch.cat:
            self.values[node] = self.add("Concat", sources, axis=1)
        elif node.op == "call_function" and node.target is torch.flatten:
            self.values[node] = self.add("Flatten", sources, axis=1)
        elif node.op == "call_module":
            self.values[node] = self._layer(node, self.modules[str(node.target)], sources[0])
        else:
            raise ValueError(f"cannot export a layer of this kind: {node.format_node()}")

    def add(self, kind: str, inputs: list[str], *, outputs: int = 1, **attributes: Any) -> str:
        names = [f"v{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0]

    def constant(self, array: Any, kind: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=kind), name))
        return name

    def _normalised(self) -> str:
        """uint8 (N, H, W, C) -> float (N, C, H, W) minus the mean. Scale, standard deviation and channel order are
        folded into the first convolution."""
        mean = np.array(self.preprocess.mean) / self.preprocess.scale
        mean = mean[::-1] if self.preprocess.colour == "bgr" else mean
        value = self.add("Cast", ["crops"], to=TensorProto.FLOAT)
        value = self.add("Sub", [value, self.constant(mean)])
        return self.add("Transpose", [value], perm=[0, 3, 1, 2])

    def _layer(self, node: fx.Node, module: nn.Module, source: str) -> str:
        match module:
            case nn.Conv2d() | TableConv2d():
                return self._convolution(node, module, source)
            case nn.BatchNorm2d() | nn.Dropout() | nn.Identity():
                return source  # batch norm is in the convolution before it; the others do nothing in eval mode
            case nn.ReLU():
                return self.add("Relu", [source])
            case ScaledTanh():
                value = self.add("Tanh", [self.add("Mul", [source, self.constant(2 / 3)])])
                return self.add("Mul", [value, self.constant(1.7159)])
            case nn.Linear():
                inputs = [source, self.constant(module.weight), self.constant(module.bias)]
                return self.add("Gemm", inputs, transB=1)
            case nn.MaxPool2d():
                return self.add("MaxPool", [source], **_window(module), ceil_mode=int(module.ceil_mode))
            case nn.AvgPool2d():
                count = int(module.count_include_pad)
                return self.add("AveragePool", [source], **_window(module), count_include_pad=count)
            case nn.AdaptiveAvgPool2d(output_size=1):
                return self.add("GlobalAveragePool", [source])
            case Subsampling():
                value = self.add("AveragePool", [source], kernel_shape=[2, 2], strides=[2, 2])
                value = self.add("Mul", [value, self.constant(4 * module.coefficient)])
                return self.add("Add", [value, self.constant(module.bias)])
            case LocalResponseNorm():
                return self._response_norm(module, source)
        raise ValueError(f"cannot export a layer of this kind: {type(module).__name__}")

    def _convolution(self, node: fx.Node, module: nn.Conv2d | TableConv2d, source: str) -> str:
        weight: torch.Tensor
        bias: torch.Tensor | None
        if isinstance(module, TableConv2d):
            weight, bias = module.dense(), module.bias
            attributes: dict[str, Any] = {"kernel_shape": list(module.shape[2:])}
        else:
            weight, bias = module.weight, module.bias
            (top, left) = module.padding if isinstance(module.padding, tuple) else (0, 0)
            attributes = {
                "kernel_shape": list(module.kernel_size),
                "strides": list(module.stride),
                "pads": [top, left, top, left],
                "group": module.groups,
            }
        behind = [self.modules.get(str(user.target)) for user in node.users]
        if len(behind) == 1 and isinstance(behind[0], nn.BatchNorm2d):
            norm = behind[0]
            assert norm.running_mean is not None
            assert norm.running_var is not None
            weight, bias = fuse_conv_bn_weights(
                weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
        if node.all_input_nodes[0].op == "placeholder":
            weight = self._first(weight)
        self.channels = weight.shape[0]
        inputs = [source, self.constant(weight), *([] if bias is None else [self.constant(bias)])]
        return self.add("Conv", inputs, **attributes)

    def _first(self, weight: torch.Tensor) -> torch.Tensor:
        """The first convolution's weights for channels in the picture's order and scale. Padding is zero in both."""
        scale = self.preprocess.scale / torch.tensor(self.preprocess.std, dtype=weight.dtype)
        weight = weight * scale.reshape(1, -1, 1, 1)
        return weight.flip(1) if self.preprocess.colour == "bgr" else weight

    def _response_norm(self, module: LocalResponseNorm, source: str) -> str:
        """x / (k + alpha / size * sum of x^2) ^ beta, without ONNX Runtime's own LRN and Pow, which take several times
        as long: the sum over neighbouring channels is a 1x1 convolution with a band of weights, and the power of 0.75
        is the product of two square roots."""
        c = module.constants
        offsets = torch.arange(self.channels)[None, :] - torch.arange(self.channels)[:, None]
        band = (offsets >= -(c.size // 2)) & (offsets <= (c.size - 1) // 2)
        weight = self.constant((band * (c.alpha / c.size))[:, :, None, None])
        bias = self.constant(np.full(self.channels, c.k))
        total = self.add("Conv", [self.add("Mul", [source, source]), weight, bias], kernel_shape=[1, 1])
        if c.beta == 0.75:
            root = self.add("Sqrt", [total])
            power = self.add("Mul", [root, self.add("Sqrt", [root])])
        else:
            power = self.add("Pow", [total, self.constant(c.beta)])
        return self.add("Div", [source, power])

    def _top_k(self, logits: str) -> None:
        self.nodes.append(helper.make_node("Softmax", [logits], ["distribution"], axis=1))
        k = self.constant([min(MAX_K, self._number_of_classes())], np.int64)
        self.nodes.append(helper.make_node("TopK", ["distribution", k], ["probabilities", "indices"], axis=1))

    def _number_of_classes(self) -> int:
        last = [m for m in self.modules.values() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
        return int(last.weight.shape[0])

    def model(self) -> onnx.ModelProto:
        side, channels = self.preprocess.side, self.preprocess.channels
        classes = self._number_of_classes()
        k = min(MAX_K, classes)
        described = helper.make_graph(
            self.nodes,
            "topfive",
            [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", side, side, channels])],
            [
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", k]),
                helper.make_tensor_value_info("indices", TensorProto.INT64, ["n", k]),
                helper.make_tensor_value_info("distribution", TensorProto.FLOAT, ["n", classes]),
            ],
            self.weights,
        )
        return helper.make_model(described, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


def _window(module: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    def pair(value: Any) -> list[int]:
        return [value, value] if isinstance(value, int) else list(value)

    return {
        "kernel_shape": pair(module.kernel_size),
        "strides": pair(module.stride),
        "pads": pair(module.padding) * 2,
    }


def main() -> None:
    """``python -m models.onnx.export NAME``, the process that ``graph_cache`` starts."""
    from models.onnx.graph_cache import OS_ERROR, OUT_OF_MEMORY, WEIGHTS_MISSING, WRONG_WEIGHTS, catalogued

    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--labels", required=True)
    parser.add_argument("--cache-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--untrained", action="store_true")
    given = parser.parse_args()
    try:
        checkpoint = catalogued(given.name, given.labels, given.cache_dir, untrained=given.untrained)
        export(checkpoint, given.output)
    except WrongWeightsError as error:
        _end(WRONG_WEIGHTS, error)
    except WeightsMissingError as error:
        _end(WEIGHTS_MISSING, error)
    except OSError as error:
        if error.errno is None:
            raise
        _end(OS_ERROR, f"{error.errno} {error.strerror}: {error.filename or given.output}")
    except (MemoryError, RuntimeError) as error:
        # torch and ONNX Runtime have no exception for a lack of memory: "can't allocate memory", "std::bad_alloc".
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        _end(OUT_OF_MEMORY, str(error) or "there was not enough memory")


def _end(status: int, why: object) -> NoReturn:
    sys.stderr.write(" ".join(str(why).split()) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
