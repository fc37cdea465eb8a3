"""The oracle against a search that knows nothing of its states."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import pytest

from service.twin.oracle import Best, Capability, Wanted, best

BOTH = frozenset({0, 1})
QUICK, GOOD = Capability((0.0, 1.0, 1.2, 1.4), 50.0), Capability((0.0, 3.0, 5.0, 7.0), 80.0)


def ordered_partitions(numbers: Sequence[int]) -> Iterator[list[tuple[int, ...]]]:
    """All ways to divide numbers into groups, in every order of the groups."""
    if not numbers:
        yield []
    for size in range(1, len(numbers) + 1):
        for group in itertools.combinations(numbers, size):
            for rest in ordered_partitions([n for n in numbers if n not in group]):
                yield [group, *rest]


def searched(pictures: Sequence[Wanted], networks: Sequence[Capability]) -> Best:
    """Every subset of the pictures, in every order of every batches, with every network for each batch; played through
    on a clock."""
    found = Best(0, 0.0)
    for size in range(len(pictures) + 1):
        for chosen in itertools.combinations(range(len(pictures)), size):
            for batches in ordered_partitions(chosen):
                for assigned in itertools.product(range(len(networks)), repeat=len(batches)):
                    clock, total, kept = 0.0, 0.0, True
                    for batch, number in zip(batches, assigned, strict=True):
                        network = networks[number]
                        if len(batch) > len(network.forward_s) - 1:
                            kept = False
                            break
                        for picture in batch:
                            clock = max(clock, pictures[picture].arrives)
                        clock += network.forward_s[len(batch)]
                        for picture in batch:
                            kept = kept and clock <= pictures[picture].deadline and number in pictures[picture].networks
                            total += network.top1
                    if kept:
                        found = max(found, Best(size, total))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_nothing_better_is_found_by_trying_everything(seed: int) -> None:
    source = random.Random(seed)
    networks = []
    for _ in range(source.randint(1, 3)):
        alone = source.uniform(0.5, 3.0)
        sizes = source.randint(1, 4)
        networks.append(
            Capability(
                (0.0, *(alone * (1 + source.random() * n) for n in range(sizes))), round(source.uniform(40, 90), 1)
            )
        )
    pictures = []
    for _ in range(source.randint(0, 4)):
        arrives = source.uniform(0, 4)
        allowed = frozenset(n for n in range(len(networks)) if source.random() < 0.8)
        pictures.append(Wanted(arrives, arrives + source.uniform(0.5, 8), allowed))
    expected, found = searched(pictures, networks), best(pictures, networks)
    assert found.answered == expected.answered
    assert found.top1 == pytest.approx(expected.top1)


def test_an_answer_more_is_worth_more_than_better_ones() -> None:
    """Both in time with the quick network; with the good one only one of them."""
    pictures = [Wanted(0, 3.5, BOTH), Wanted(0, 3.5, BOTH)]
    assert best(pictures, [QUICK, GOOD]) == (2, 100)


def test_it_waits_for_somebody_who_is_in_a_hurry() -> None:
    """Whoever begins with the first, which is there, with the good network, cannot answer the second."""
    pictures = [Wanted(0, 9, BOTH), Wanted(1, 2.2, BOTH)]
    assert best(pictures, [QUICK, GOOD]) == (2, 130)


def test_pictures_meet_in_a_batch_no_larger_than_the_device_takes() -> None:
    pictures = [Wanted(0, 1.5, BOTH)] * 4
    assert best(pictures, [QUICK]) == (3, 150)
    assert best(pictures, [QUICK._replace(forward_s=(0.0, 1.0))]) == (1, 50)


def test_nobody_is_answered_by_a_network_that_was_ruled_out() -> None:
    assert best([Wanted(0, 9, frozenset({1})), Wanted(0, 9, frozenset())], [QUICK, GOOD]) == (1, 80)
    assert best([], [QUICK]) == (0, 0)
