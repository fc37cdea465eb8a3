"""An ensemble: checkpoints of one label set, ``ensemble:googlenet,inception_v2``, whose probabilities are averaged.

The authors of AlexNet (Krizhevsky et al. 2012, section 6) and of GoogLeNet (Szegedy et al. 2014, section 7) averaged
seven networks each: networks that err on different pictures are right more often together than alone. A caller names
an ensemble; the router picks one only if its accuracy was measured. ``inference/ensemble.py`` predicts with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.checkpoints.catalogue import Checkpoint, State

PREFIX = "ensemble:"
LEAST_MEMBERS, MOST_MEMBERS = 2, 8


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Loadable checkpoints of one label set, in the caller's order. Its properties have the names of a checkpoint's, so
    that both can be decided on and answered with."""

    members: tuple[Checkpoint, ...]
    top1: float | None = None
    """Percent, if it was measured on this machine. It does not follow from the members' accuracies."""

    @property
    def model(self) -> str:
        """``ensemble:googlenet,inception_v2``."""
        return PREFIX + ",".join(member.model for member in self.members)

    @property
    def name(self) -> str:
        """``ensemble:googlenet@cifar10,inception_v2@cifar10``."""
        return PREFIX + ",".join(member.name for member in self.members)

    @property
    def labels(self) -> str:
        return self.members[0].labels

    @property
    def origin(self) -> str:
        return f"average of the probabilities of {len(self.members)} networks"

    @property
    def trained(self) -> bool:
        """Whether all members are trained."""
        return all(member.trained for member in self.members)

    @property
    def state(self) -> State:
        return "loadable"


def members_of(checkpoint: Checkpoint | Ensemble) -> tuple[Checkpoint, ...]:
    """The checkpoints that have to be loaded: an ensemble's members, or the checkpoint itself."""
    return checkpoint.members if isinstance(checkpoint, Ensemble) else (checkpoint,)
