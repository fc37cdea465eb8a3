"""The generator notices when it limits a run, and only then."""

from __future__ import annotations

from loadtest._cpu import EVERY_S, CpuShare


def watched(*shares: float) -> tuple[CpuShare, int]:
    """A process that used these shares of a core, one in each interval, and the number of warnings."""
    cpu, wall_s, cpu_s = CpuShare(), 100.0, 7.0
    warnings = int(cpu.sample(wall_s, cpu_s))
    for share in shares:
        wall_s += EVERY_S
        cpu_s += share * EVERY_S
        warnings += cpu.sample(wall_s, cpu_s)
    return cpu, warnings


def test_three_busy_seconds_are_a_bottleneck_with_one_warning() -> None:
    cpu, warnings = watched(*[0.2] * 10, *[0.98] * 10, *[0.2] * 10)
    assert warnings == 1
    results = cpu.results()
    assert results["bottleneck"]
    assert 0.45 < results["cpu_share"] < 0.47


def test_a_short_burst_is_not_a_bottleneck() -> None:
    cpu, warnings = watched(*[0.5] * 6, *[1.0] * 3, *[0.5] * 6)
    assert (warnings, cpu.results()["bottleneck"]) == (0, False)


def test_a_busy_run_shorter_than_the_window_is_a_bottleneck() -> None:
    cpu, _ = watched(0.97, 0.97)
    assert cpu.results() == {"cpu_share": 0.97, "bottleneck": True}


def test_the_share_is_unknown_without_two_samples() -> None:
    assert CpuShare().results() == {"cpu_share": None, "bottleneck": False}
    assert watched()[0].results() == {"cpu_share": None, "bottleneck": False}


def test_ninety_percent_of_a_core_is_the_limit() -> None:
    assert not watched(*[0.89] * 10)[0].results()["bottleneck"]
    assert watched(*[0.91] * 10)[0].results()["bottleneck"]


def test_a_window_is_three_seconds() -> None:
    """Six intervals of half a second; five are too few to warn of."""
    assert watched(*[1.0] * 5)[1] == 0
    assert watched(*[1.0] * 6)[1] == 1
