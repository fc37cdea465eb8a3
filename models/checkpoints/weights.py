"""Weight files from elsewhere -> state dicts, checked.

Nothing in a file is trusted: pickles are read with ``weights_only=True``, and every tensor's name, shape and values are
checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from models.checkpoints.catalogue import WrongWeightsError, read_card
from models.checkpoints.manifest import ManifestRow, known_file
from models.networks.variants import Variant


@dataclass(frozen=True, slots=True)
class Weights:
    """The content of a weight file, read for one variant."""

    state: dict[str, torch.Tensor]
    num_classes: int
    network: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the network with which the weights were trained, by the manifest, the card or the graph."""
    known: ManifestRow | None = None
    """The manifest's row for this very file."""


def read_weights(variant: Variant, path: Path, *, as_graph: bool = False) -> Weights:
    """Reads a ``.safetensors``, a torchvision ``.pth`` or an ONNX Model Zoo ``.onnx`` file; the suffix decides.

    Raises:
        WrongWeightsError: it is damaged, of another format, or of another network.
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    suffix = path.suffix.lower()
    known, network = None, {}
    if suffix == ".safetensors":
        state = _read_safetensors(path)
        own = read_card(path)
        if own is not None:
            if own.variant != variant:
                raise WrongWeightsError(f"{path} holds {own.name}, not {variant.name}")
            network = dict(own.network)
    elif suffix in (".pth", ".pt"):
        state = _read_pickle(path)
        known = known_file(variant, path)
    elif suffix == ".onnx":
        from models.checkpoints.onnx_zoo import read_graph

        known = known_file(variant, path)
        arguments = known.network if known is not None else {}
        state, stated = read_graph(variant, path, as_graph=as_graph, arguments=arguments)
        network = {**arguments, **stated}
    else:
        raise WrongWeightsError(f"{path} is not a .safetensors, .pth or .onnx file")
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WrongWeightsError(f"{path}: {name} has values that are not finite")
        if name.endswith(".running_var") and (tensor < 0).any():
            raise WrongWeightsError(f"{path}: {name} has variances below zero")
    return Weights(state, _classes(variant, path, state), network, known)


def read_outline(variant: Variant, path: Path) -> Weights:
    """Reads the header of a ``.safetensors`` file; the tensors of the result are on the meta device.

    Raises:
        WrongWeightsError: it is damaged, or of another network.
        OSError: it cannot be read.
    """
    # safetensors calls a file missing if it may not be opened; Python says why.
    with path.open("rb"):
        pass
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is not a mapping
            shapes = {name: (part.get_shape(), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, ValueError) as error:
        raise WrongWeightsError(f"{path} is not a complete safetensors file: {_line(error)}") from error
    with torch.device("meta"):
        # ``read_weights`` makes float32 of floats of every width.
        state = {
            name: torch.empty(shape, dtype=torch.float32 if "F" in kind else torch.int64)
            for name, (shape, kind) in shapes.items()
        }
    return Weights(state, _classes(variant, path, state))


def check_fit(path: Path, name: str, network: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Checks that the tensors are exactly those of the network.

    Raises:
        WrongWeightsError: they are not; the text has the first difference and the number of the others.
    """
    wanted = network.state_dict()
    differences = [f"{key} is missing" for key in wanted if key not in state]
    differences += [f"{key} is not part of it" for key in state if key not in wanted]
    differences += [
        f"{key} is {tuple(state[key].shape)} where {tuple(wanted[key].shape)} is expected"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    differences += [
        f"{key} holds {state[key].dtype} where {wanted[key].dtype} is expected"
        for key in wanted
        if key in state and state[key].dtype != wanted[key].dtype
    ]
    if differences:
        more = f" (and {len(differences) - 1} more differences)" if len(differences) > 1 else ""
        raise WrongWeightsError(f"{path} does not fit {name}: {differences[0]}{more}")


def _classes(variant: Variant, path: Path, state: Mapping[str, torch.Tensor]) -> int:
    """The number of classes: the length of the last layer's bias."""
    last = state.get(variant.last_layer + ".bias")
    if last is None or last.ndim != 1:
        raise WrongWeightsError(f"{path} does not fit {variant.name}: {variant.last_layer}.bias is missing")
    return int(last.shape[0])


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    # safetensors calls a file missing if it may not be opened; Python says why.
    with path.open("rb"):
        pass
    try:
        state: dict[str, torch.Tensor] = load_file(path)
        return state
    except (SafetensorError, ValueError) as error:
        raise WrongWeightsError(f"{path} is not a complete safetensors file: {_line(error)}") from error


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load raises UnpicklingError, RuntimeError, EOFError, ValueError, KeyError ... on damaged files.
        raise WrongWeightsError(f"{path} is not a complete torch file of plain weights") from error
    if not isinstance(state, Mapping) or not all(_is_plain(name, value) for name, value in state.items()):
        raise WrongWeightsError(f"{path} is not a state dict (names and plain tensors)")
    return dict(state)


def _is_plain(name: object, value: object) -> bool:
    """Whether an item is a name and a dense tensor of numbers. Torch files may also hold sparse, nested, quantised and
    meta tensors, on which the checks do not work."""
    return (
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_nested
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
