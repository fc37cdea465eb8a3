"""One training run: a variant, a recipe and a data set -> a trained network and its accuracy."""

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

#: Test pictures that are looked at after each epoch; all of them after the last.
_GLANCE = 2_000
#: Steps between two looks at the loss: each look makes a GPU wait for the CPU.
_LOOK_EVERY = 20


@dataclass(frozen=True, slots=True)
class Step:
    """Where a run is. The means are over the epoch so far."""

    epoch: int
    step: int
    """Of the whole run, from 1."""
    loss: float
    top1: float
    """Percent of the training pictures."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run."""

    network: nn.Module
    """In eval mode on the CPU, without auxiliary heads; its weights rounded to float16 if the recipe says so."""
    accuracy: Accuracy
    """On all test pictures."""


class Run:
    """A run that goes on where its state file says, and finishes as if it had never been away.

    Args:
        state: the file; it is written after each epoch.

    Raises:
        RecipeError: the state file is of another run.
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
        """What two runs must share for one to go on from the other's state."""
        return {
            "network": self.variant.name,
            "labels": self.label_set,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.recipe).items()},
            "data": self.data.digest,
        }

    def epochs(self, watch: Callable[[Step], None]) -> Iterator[Epoch]:
        """Trains what is left, an epoch at a time; before each is given out, it is in ``history`` and the state saved.

        Raises:
            TrainingError: the loss is no number any more, or the state could not be written.
        """
        for number in range(len(self.history) + 1, self.recipe.epochs + 1):
            loss, top1 = self._epoch(number, watch)
            glance = measure(self.network, self.data.test, self.device, _GLANCE)
            rate = float(self._schedule.get_last_lr()[0])
            self.history.append(Epoch(number, rate, loss, top1, glance.top1, glance.top5))
            self._save()
            yield self.history[-1]

    def finish(self) -> Trained:
        """Drops the auxiliary heads, rounds, and measures on all test pictures."""
        network = build(self.variant, num_classes=len(labels(self.label_set)))
        heads = ("aux", "AuxLogits")
        state = {k: v for k, v in self.network.state_dict().items() if not self.with_heads or not k.startswith(heads)}
        if self.recipe.half:
            state = {k: v.half().float() if v.ndim > 1 else v for k, v in state.items()}
        network.load_state_dict(state)
        network.to(self.device).to(memory_format=torch.channels_last).eval()
        # Convolutions in float32 are what is served on a CPU; by default a GPU rounds their factors to ten bits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            accuracy = measure(network, self.data.test, self.device)
        return Trained(network.to("cpu"), accuracy)

    def _epoch(self, number: int, watch: Callable[[Step], None]) -> tuple[float, float]:
        """Mean loss and top-1 accuracy in percent."""
        # Dropout's, on every device. Seeded for each epoch, no generator's state has to be saved.
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
        """One batch: its mean loss, and how many answers were right."""
        crops, classes = self._sent(batch.crops), self._sent(batch.classes)
        x = self._input(crops, np.random.default_rng((self.recipe.seed, epoch, step, 1)))
        self._optimizer.zero_grad(set_to_none=True)
        # bfloat16 has float32's range: no loss has to be scaled. Emulated, on older GPUs, it would not pay.
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
        """On the device. From pinned memory: a copy from any other would wait for all that the GPU has to do."""
        return values.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else values

    def _input(self, crops: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
        """What the network gets: normalised as engines do, then distorted."""
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
        raise TrainingError(f"the loss is no number any more in epoch {epoch}; {last}. Try a lower --peak-rate")

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
