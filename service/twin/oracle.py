"""An oracle: the best that anybody could do who knew all arrivals beforehand, for a few pictures on one device.

The model is that of the twin without chance and without decoding: a batch of one network takes its mean for its size,
begins when the device is free and all its pictures have come, and answers all of them when it ends. All orders, all
batches and all idle times are tried, so that no policy behind the batcher can do better: it is an upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Wanted(NamedTuple):
    """One picture."""

    arrives: float
    deadline: float
    networks: frozenset[int]
    """Which networks the caller allows."""


class Capability(NamedTuple):
    """One network on the device."""

    forward_s: tuple[float, ...]
    """The mean of a pass by batch size; [0] is unused, and the last is the largest batch."""
    top1: float


class Best(NamedTuple):
    """The best outcome: first as many answers in time as possible, then the highest sum of their accuracies."""

    answered: int
    top1: float
    """The sum over the pictures that are answered."""


class _Reached(NamedTuple):
    """Some pictures are answered: when the device is free again, and the sum of their accuracies."""

    at: float
    top1: float


def best(pictures: Sequence[Wanted], networks: Sequence[Capability]) -> Best:
    """The best outcome for some pictures. Its time grows as 3 to the power of their number: six are quick."""
    whole = (1 << len(pictures)) - 1
    reached: list[list[_Reached]] = [[] for _ in range(whole + 1)]
    reached[0] = [_Reached(0.0, 0.0)]
    found = Best(0, 0.0)
    # A batch adds pictures, so that each set comes after all sets that it can be reached from.
    for answered in range(whole + 1):
        states = reached[answered] = _not_beaten(reached[answered])
        for state in states:
            found = max(found, Best(answered.bit_count(), state.top1))
        rest = whole & ~answered
        batch = rest
        while batch and states:
            for network in range(len(networks)):
                for state in states:
                    after = _run(batch, network, state, pictures, networks)
                    if after is not None:
                        reached[answered | batch].append(after)
            batch = (batch - 1) & rest
    return found


def _run(
    batch: int, network: int, state: _Reached, pictures: Sequence[Wanted], networks: Sequence[Capability]
) -> _Reached | None:
    """The state after a batch; None if it is too large, or too late for one of its pictures, or not allowed by one."""
    forward_s, top1 = networks[network]
    members = [picture for number, picture in enumerate(pictures) if batch >> number & 1]
    if len(members) >= len(forward_s) or any(network not in picture.networks for picture in members):
        return None
    ends = max(state.at, *(picture.arrives for picture in members)) + forward_s[len(members)]
    if any(ends > picture.deadline for picture in members):
        return None
    return _Reached(ends, state.top1 + top1 * len(members))


def _not_beaten(states: Sequence[_Reached]) -> list[_Reached]:
    """Of the states with the same answers, those than which none is both earlier and more accurate."""
    kept: list[_Reached] = []
    for state in sorted(states, key=lambda state: (state.at, -state.top1)):
        if not kept or state.top1 > kept[-1].top1:
            kept.append(state)
    return kept
