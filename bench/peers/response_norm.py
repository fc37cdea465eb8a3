"""What local response normalisation costs in the CPU engine: ``python bench/peers/response_norm.py [NETWORK]``.

The same graph with the normalisation as it is exported, as ONNX Runtime's LRN operator, and left out; interleaved, in
all threads, medians and the share of the whole.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from torch import nn

from models.checkpoints.build import build_checkpoint
from models.checkpoints.catalogue import Catalogue
from models.networks.layers import LocalResponseNorm
from models.onnx.export import graph
from service.engines.onnx_cpu import session_options


def without(network: nn.Module) -> nn.Module:
    for name, child in list(network.named_modules()):
        if isinstance(child, LocalResponseNorm):
            network.set_submodule(name, nn.Identity())
    return network


def with_operator(model: onnx.ModelProto, network: nn.Module) -> onnx.ModelProto:
    """Each Mul, Conv, Sqrt, Sqrt, Mul, Div of ours -> one LRN."""
    norms = iter([layer.constants for layer in network.modules() if isinstance(layer, LocalResponseNorm)])
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type == "Div":
            c = next(norms)
            source, output = [node.input[0]], [node.output[0]]
            node = helper.make_node("LRN", source, output, size=c.size, alpha=c.alpha, beta=c.beta, bias=c.k)
        model.graph.node.append(node)
    # What led to the divisor is dead now; ONNX Runtime removes it.
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", nargs="?", default="googlenet")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    checkpoint = Catalogue(untrained=True).find(options.network)
    network, preprocess = build_checkpoint(checkpoint).requires_grad_(False), checkpoint.preprocess
    models = {"as exported": graph(network, preprocess)}
    models["LRN operator"] = with_operator(graph(network, preprocess), network)
    models["left out"] = graph(without(network), preprocess)
    threads = os.cpu_count() or 1
    sessions = {
        name: onnxruntime.InferenceSession(
            model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
        )
        for name, model in models.items()
    }
    shape = (8, preprocess.side, preprocess.side, preprocess.channels)
    crops = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for batch in (1, 8):
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for round_ in range(options.rounds + 1):
            for name, session in sessions.items():
                started = time.perf_counter()
                session.run(None, {"crops": crops[:batch]})
                if round_:  # the first is a warm-up
                    times[name].append(1000 * (time.perf_counter() - started) / batch)
        medians = {name: statistics.median(values) for name, values in times.items()}
        rest = medians["left out"]
        for name, median in medians.items():
            print(f"batch {batch}: {name:14} {median:6.1f} ms a picture, normalisation {1 - rest / median:6.1%}")


if __name__ == "__main__":
    main()
