"""An ensemble: checkpoints of one label set, ``ensemble:googlenet,inception_v2``, whose probabilities are averaged.

AlexNet's authors averaged seven networks (Krizhevsky et al. 2012, section 6), GoogLeNet's seven too (Szegedy et al.
2014, section 7): networks that err on different pictures are right together more often than each alone. Here it is
named by the caller, never picked by the router, and takes what its members take.
``inference/ensemble.py`` predicts with one.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.checkpoints.catalogue import Checkpoint, State

PREFIX = "ensemble:"
LEAST_MEMBERS, MOST_MEMBERS = 2, 8


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Loadable checkpoints of one label set, in the caller's order. What it has in common with a checkpoint has the
    same name."""

    members: tuple[Checkpoint, ...]

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
        """Whether all are."""
        return all(member.trained for member in self.members)

    @property
    def top1(self) -> None:
        """Unknown: the best member's promises nothing for an average, better as that mostly is."""
        return

    @property
    def state(self) -> State:
        return "loadable"


def members_of(checkpoint: Checkpoint | Ensemble) -> tuple[Checkpoint, ...]:
    """What has to be loaded."""
    return checkpoint.members if isinstance(checkpoint, Ensemble) else (checkpoint,)
