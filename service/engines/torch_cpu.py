"""The plain engine: the network as it is, in PyTorch, on a CPU or a CUDA device."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from models.building import build_checkpoint
from models.checkpoints import Checkpoint
from models.postprocess import top_k
from service.engines import MAX_K, DeviceError, TopK, blank


class TorchEngine:
    """Loads a checkpoint on ``device``.

    Args:
        checkpoint: what to run.
        device: ``cpu`` or ``cuda:0``.
        precision: ``float32``, ``bfloat16`` or ``float16``; weights and activations alike.
        threads: threads of one forward pass on a CPU. Set explicitly, since Ray limits OpenMP to one thread.

    Raises:
        WeightsMissingError, WrongWeightsError: see ``building.build_checkpoint``.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str, precision: str, threads: int) -> None:
        self._preprocess = checkpoint.preprocess
        self._device = torch.device(device)
        self._dtype: torch.dtype = getattr(torch, precision)
        self._threads = threads
        network = build_checkpoint(checkpoint).requires_grad_(False)
        # Channels last is what a batch of pictures is in memory anyway, and is the faster layout on both devices.
        self._network = network.to(self._device, self._dtype).to(memory_format=torch.channels_last)
        shape = (1, self._preprocess.channels, 1, 1)
        self._mean = torch.tensor(self._preprocess.mean, device=self._device).expand(shape[1]).reshape(shape)
        self._std = torch.tensor(self._preprocess.std, device=self._device).expand(shape[1]).reshape(shape)

    @property
    def bytes_held(self) -> int:
        return sum(p.numel() * p.element_size() for p in self._network.parameters())

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        for size in batch_sizes:
            self.run(blank(self._preprocess, size))

    @torch.inference_mode()
    def run(self, crops: npt.NDArray[np.uint8]) -> TopK:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        probabilities, indices = top_k(self._network(self._input(crops)), MAX_K)
        return TopK(probabilities.cpu().numpy(), indices.cpu().numpy())

    def close(self) -> None:
        del self._network

    def _input(self, crops: npt.NDArray[np.uint8]) -> torch.Tensor:
        """uint8 (N, H, W, C) -> normalised float (N, C, H, W), channels last in memory as it came."""
        x = torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2)
        if self._preprocess.colour == "bgr":
            x = x.flip(1)
        return ((x * self._preprocess.scale - self._mean) / self._std).to(self._dtype)


def pick_device(wanted: str) -> str:
    """``auto`` -> ``cuda:0`` where there is one, else ``cpu``.

    Raises:
        DeviceError: that device is not on this machine.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda:0" if count else "cpu"
    if wanted.startswith("cuda"):
        number = int(wanted.partition(":")[2] or 0)
        if number >= count:
            raise DeviceError(f"device {wanted} is not here: this machine has {count} CUDA devices")
        return f"cuda:{number}"
    return wanted
