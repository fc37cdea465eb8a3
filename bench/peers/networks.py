"""What every peer runs behind its own hooks, in two styles: ``t`` as a tutorial writes it (torch, eager; Pillow and
torchvision's transforms), ``s`` the same decode, graph and threads as TopFive. Settings come by environment variables,
since most peers start processes of their own.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

from PIL import Image

NETWORK = os.environ.get("BENCH_NETWORK", "lenet5")
STYLE = os.environ.get("BENCH_STYLE", "t")
PORT = int(os.environ.get("BENCH_PORT", "8000"))
THREADS = int(os.environ.get("BENCH_THREADS", str(os.cpu_count() or 1)))
MAX_BATCH = 16

#: The five most probable classes of one picture.
Answer = list[dict[str, float]]
Decode = Callable[[bytes], Any]
Classify = Callable[[list[Any]], list[Answer]]


def decoder() -> Decode:
    """Encoded picture -> an element of a batch, in the style that is asked for. Loads no network."""
    if STYLE == "t":
        transform = torchvision_transform()
        return lambda data: transform(Image.open(io.BytesIO(data)))
    from models.checkpoints.catalogue import Catalogue
    from models.images.preprocess import picture_to_crop

    preprocess = Catalogue(untrained=True).find(NETWORK).preprocess
    # MOSEC hands over a bytearray.
    return lambda data: picture_to_crop(bytes(data), preprocess, max_pixels=80_000_000)


def torchvision_transform() -> Callable[[Image.Image], Any]:
    """Picture -> normalised tensor."""
    from torchvision import transforms

    from models.networks.variants import find_variant

    channels, side, _ = find_variant(NETWORK).input_shape
    if channels == 1:
        steps = [transforms.Grayscale(), transforms.Resize((28, 28)), transforms.Pad(2)]
        mean, std = [0.1], [0.8]
    else:
        steps = [transforms.Lambda(to_rgb), transforms.Resize(256), transforms.CenterCrop(side)]
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    transform: Callable[[Image.Image], Any] = transforms.Compose(
        [*steps, transforms.ToTensor(), transforms.Normalize(mean, std)]
    )
    return transform


def to_rgb(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB")


def classifier() -> Classify:
    """Batch -> answers, in the style that is asked for: loaded, and warm for a lone picture and for a full batch."""
    classify = _graph() if STYLE == "s" else _eager()
    out = io.BytesIO()
    Image.new("RGB", (256, 256)).save(out, "PNG")
    blank = decoder()(out.getvalue())
    for size in (1, MAX_BATCH):
        classify([blank] * size)
    return classify


def _eager() -> Classify:
    """torch, whose own choice the number of threads is."""
    import torch

    from models import get_model

    torch.manual_seed(0)
    network = get_model(NETWORK).eval()

    def classify(batch: list[Any]) -> list[Answer]:
        with torch.inference_mode():
            top = torch.softmax(network(torch.stack([torch.as_tensor(x) for x in batch])), 1).topk(5)
        return _answers(top.values.tolist(), top.indices.tolist())

    return classify


def _graph() -> Classify:
    """What ``topfive export`` writes, in ONNX Runtime."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    # Threads that spin while they are idle would take the cores that decode and answer.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(os.environ["BENCH_GRAPH"], options, providers=["CPUExecutionProvider"])

    def classify(batch: list[Any]) -> list[Answer]:
        probabilities, indices = session.run(["probabilities", "indices"], {"crops": np.stack(batch)})
        return _answers(probabilities[:, :5].tolist(), indices[:, :5].tolist())

    return classify


def _answers(probabilities: list[list[float]], indices: list[list[int]]) -> list[Answer]:
    return [
        [{"index": index, "probability": probability} for index, probability in zip(*row, strict=True)]
        for row in zip(indices, probabilities, strict=True)
    ]
