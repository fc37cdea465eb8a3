"""One training run: variant, recipe and data set -> a trained network and its accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from models.checkpoints.labels import labels
from models.checkpoints.tensors import normalised
from models.images.preprocess import Preprocess
from models.networks.build import build
from models.networks.variants import Variant
from models.training.accuracy import Accuracy, measure
from models.training.augment import colour_axes, coloured, distorted
from models.training.batches import Batch, steps_in, training_batches
from models.training.curves import Epoch
from models.training.dataset import DataSet
from models.training.errors import TrainingError
from models.training.loss import classification_loss
from models.training.recipes import Recipe
from models.training.state import load_state, save_state

#: How many test pictures accuracy is measured on after each epoch. After the last one, all of them are used.
_GLANCE = 2_000
#: How many steps lie between two checks of the loss: each check makes the CPU wait for the GPU.
_LOOK_EVERY = 20


@dataclass(frozen=True, slots=True)
class Step:
    """The progress of a run. The means are over the epoch so far."""

    epoch: int
    step: int
    """Counted from 1 over the whole run."""
    loss: float
    top1: float
    """Percent of the training pictures."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run."""

    network: nn.Module
    """In eval mode, on the CPU, without auxiliary heads; its weights are rounded to float16 if the recipe says so."""
    accuracy: Accuracy
    """On all test pictures."""


class Run:
    """A training run. If its state file exists, it goes on from there and ends as if it had never been interrupted.

    Args:
        variant: the network.
        label_set: the classes that it learns.
        recipe: how it is trained.
        data: the data set that it is trained and tested with.
        device: where it is trained.
        state: the state file, which is written after each epoch.

    Raises:
        RecipeError: the state file is damaged, or of another run.
    """

    def __init__(
        self, variant: Variant, label_set: str, recipe: Recipe, data: DataSet, device: torch.device, state: Path
    ) -> None:
        self.variant, self.label_set, self.recipe, self.data = variant, label_set, recipe, data
        self.device, self.state = device, state
        self.preprocess: Preprocess = data.train.preprocess
        self.steps = steps_in(len(data.train), recipe.batch_size)
        self.history: list[Epoch] = []
        torch.manual_seed(recipe.seed)
        self.network = build(variant, num_classes=len(labels(label_set)), aux_heads=self.with_heads)
        self.network.to(device).to(memory_format=torch.channels_last)
        self._optimizer = SGD(
            self.network.parameters(), recipe.peak_rate, recipe.momentum, weight_decay=recipe.weight_decay
        )
        self._schedule = self._make_schedule()
        self._axes = colour_axes(data.train) if recipe.colour_pca and self.preprocess.channels == 3 else None
        self._resume()

    @property
    def with_heads(self) -> bool:
        return self.variant.has_aux_heads and self.recipe.aux_heads

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that must be equal for one run to go on from another's state."""
        return {
            "network": self.variant.name,
            "labels": self.label_set,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.recipe).items()},
            "data": self.data.digest,
        }

    def epochs(self, watch: Callable[[Step], None]) -> Iterator[Epoch]:
        """Trains the epochs that are left. Yields each after it is in ``history`` and in the state file.

        Args:
            watch: called after each step on a CPU, and after some steps on a GPU.

        Raises:
            TrainingError: the loss is not a number any more, or the state could not be written.
        """
        for number in range(len(self.history) + 1, self.recipe.epochs + 1):
            loss, top1 = self._epoch(number, watch)
            glance = measure(self.network, self.data.test, self.device, _GLANCE)
            rate = float(self._schedule.get_last_lr()[0])
            self.history.append(Epoch(number, rate, loss, top1, glance.top1, glance.top5))
            self._save()
            yield self.history[-1]

    def finish(self) -> Trained:
        """Drops the auxiliary heads, rounds the weights if the recipe says so, and measures on all test pictures."""
        network = build(self.variant, num_classes=len(labels(self.label_set)))
        heads = ("aux", "AuxLogits")
        state = {k: v for k, v in self.network.state_dict().items() if not self.with_heads or not k.startswith(heads)}
        if self.recipe.half:
            state = {k: v.half().float() if v.ndim > 1 else v for k, v in state.items()}
        network.load_state_dict(state)
        network.to(self.device).to(memory_format=torch.channels_last).eval()
        # A CPU serves convolutions in float32; a GPU would by default round their factors to ten bits (TF32).
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            accuracy = measure(network, self.data.test, self.device)
        return Trained(network.to("cpu"), accuracy)

    def _epoch(self, number: int, watch: Callable[[Step], None]) -> tuple[float, float]:
        """Trains one epoch; returns its mean loss and its top-1 accuracy in percent."""
        # Seeds dropout, on every device. With a new seed for each epoch, the state file needs no generator's state.
        torch.manual_seed(self.recipe.seed * 1_000_003 + number)
        self.network.train()
        loss = right = torch.zeros((), dtype=torch.float64, device=self.device)
        seen = 0
        for i, batch in enumerate(training_batches(self.data.train, self.recipe, number)):
            step_loss, step_right = self._step(number, i, batch)
            seen += len(batch.classes)
            loss, right = loss + step_loss * len(batch.classes), right + step_right
            if self.device.type == "cpu" or i % _LOOK_EVERY == 0 or i == self.steps - 1:
                self._check(loss, number)
                step = (number - 1) * self.steps + i + 1
                watch(Step(number, step, loss.item() / seen, 100 * right.item() / seen))
        for parameter in self.network.parameters():
            self._check(parameter.detach().sum(), number)
        return loss.item() / seen, 100 * right.item() / seen

    def _step(self, epoch: int, step: int, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Trains on one batch; returns its mean loss and the number of right answers."""
        crops, classes = self._sent(batch.crops), self._sent(batch.classes)
        x = self._input(crops, np.random.default_rng((self.recipe.seed, epoch, step, 1)))
        self._optimizer.zero_grad(set_to_none=True)
        # bfloat16 has the range of float32, so the loss needs no scaling. Older GPUs emulate it, which is slower.
        mixed = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            outputs = self.network(x)
            loss = classification_loss(outputs, classes, label_smoothing=self.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self._optimizer.step()
        self._schedule.step()
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        return loss.detach(), (logits.detach().argmax(1) == classes).sum()

    def _sent(self, values: torch.Tensor) -> torch.Tensor:
        """Copies to the device. From pinned memory, since any other copy would wait until the GPU is idle."""
        return values.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else values

    def _input(self, crops: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
        """The network's input: crops normalised as in serving, then changed at random."""
        x = normalised(crops, self.preprocess)
        recipe = self.recipe
        if self._axes is not None:
            x = coloured(x, self.preprocess, self._axes, recipe.colour_pca, random)
        if recipe.rotation or recipe.scaling or recipe.translation:
            ground = -self.preprocess.mean[0] / self.preprocess.std[0]
            x = distorted(x, recipe, ground, random)
        return x.contiguous(memory_format=torch.channels_last)

    def _check(self, value: torch.Tensor, epoch: int) -> None:
        if math.isfinite(value.item()):
            return
        last = (
            f"the last good state, of epoch {epoch - 1}, is in {self.state}" if epoch > 1 else "no epoch was finished"
        )
        raise TrainingError(f"the loss is not a number any more in epoch {epoch}; {last}. Try a lower --peak-rate")

    def _make_schedule(self) -> LRScheduler:
        recipe = self.recipe
        if recipe.decay is None:
            return OneCycleLR(self._optimizer, recipe.peak_rate, total_steps=recipe.epochs * self.steps)
        factor, every = recipe.decay
        return LambdaLR(self._optimizer, lambda step: factor ** (step // self.steps // every))

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
        }
        save_state(self.state, self.identity, state)

    def _resume(self) -> None:
        state = load_state(self.state, self.identity)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.history = [Epoch(**row) for row in state["history"]]
