"""When profiles are measured, with fake child processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.engines.loader import Loader
from service.profiling import profiler as profiling
from service.profiling import profiles
from service.profiling.profiler import Profiler, ProfilingError, measure_apart
from service.profiling.profiles import Profile
from tests.profiles import profile

LENET = Catalogue().find("lenet5@mnist")


@pytest.fixture
def loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """A loader on a machine for which no profiles ship."""
    monkeypatch.setattr(profiles, "shipped_folder", lambda: tmp_path / "none")
    return Loader("onnx_cpu", "cpu", "float32", 1, tmp_path, 4)


@pytest.fixture
def matching(loader: Loader) -> Profile:
    """The profile that a measurement would give."""
    return profile(forward_ms=3, fingerprint=loader.fingerprint(LENET))


class Measurements:
    """Stands in for ``measure_apart``: returns a profile, or fails if there is none."""

    def __init__(self, outcome: Profile | None) -> None:
        self.outcome, self.count = outcome, 0

    def __call__(self, checkpoint: Checkpoint, _loader: Loader, **options: Any) -> Profile:
        self.count += 1
        # A start must not take long.
        assert options == {"seconds": 0, "quick": True}
        if self.outcome is None:
            raise ProfilingError(f"{checkpoint.name} cannot be measured: no luck")
        return self.outcome


@pytest.fixture
def measuring(matching: Profile, monkeypatch: pytest.MonkeyPatch) -> Measurements:
    measurements = Measurements(matching)
    monkeypatch.setattr(profiling, "measure_apart", measurements)
    return measurements


def keep(loader: Loader, kept: Profile) -> None:
    profiles.Profiles(loader.cache_dir, profiling.device_slug(loader.device)).keep(kept)


def test_a_matching_profile_is_used_as_it_is(loader: Loader, matching: Profile, measuring: Measurements) -> None:
    keep(loader, matching)
    assert Profiler(loader).ensure(LENET) == matching
    assert measuring.count == 0


@pytest.mark.parametrize("foreign", [True, False], ids=["foreign", "none"])
def test_a_checkpoint_without_a_matching_profile_is_measured_once(
    loader: Loader, matching: Profile, measuring: Measurements, foreign: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if foreign:
        keep(loader, profile(threads=64))
    profiler = Profiler(loader)
    assert profiler.ensure(LENET) == profiler.ensure(LENET) == matching
    assert Profiler(loader).ensure(LENET) == matching
    assert measuring.count == 1
    assert ("threads 64 instead of 1" in caplog.text) == foreign


def test_a_profile_of_other_weights_is_foreign(
    loader: Loader, matching: Profile, measuring: Measurements, caplog: pytest.LogCaptureFixture
) -> None:
    """One byte of the file is enough."""
    keep(loader, matching)
    path = loader.cache_dir / "other.safetensors"
    assert LENET.path is not None
    content = bytearray(LENET.path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    measuring.outcome = measured = profile(forward_ms=5, fingerprint=loader.fingerprint(replace(LENET, path=path)))
    assert Profiler(loader).ensure(replace(LENET, path=path)) == measured
    assert measuring.count == 1
    assert f"weights {matching.fingerprint.weights} instead of {measured.fingerprint.weights}" in caplog.text


@pytest.mark.parametrize("measure", [True, False])
def test_a_foreign_profile_is_better_than_none(
    loader: Loader, measuring: Measurements, measure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """If measuring fails, or is not wanted."""
    foreign, measuring.outcome = profile(threads=64), None
    keep(loader, foreign)
    assert Profiler(loader).ensure(LENET, measure=measure) == foreign
    assert measuring.count == measure
    assert ("no luck" in caplog.text) == measure
    assert "times of lenet5@mnist are predicted by a foreign profile: " in caplog.text


@pytest.mark.parametrize("measure", [True, False])
def test_without_any_profile_there_is_a_warning(
    loader: Loader, measuring: Measurements, measure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    measuring.outcome = None
    profiler = Profiler(loader)
    assert profiler.ensure(LENET, measure=measure) is None
    assert profiler.nearest(LENET) is None
    assert "lenet5@mnist has no profile" in caplog.records[-1].getMessage()


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def child(code: int = 0, stdout: str = "", stderr: str = "") -> Run:
    """A process that has ended."""
    return lambda command, **_options: subprocess.CompletedProcess(command, code, stdout, stderr)


def raising(error: Exception) -> Run:
    def run(_command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        raise error

    return run


def real(code: str) -> Run:
    """A real process that runs other code."""
    return lambda _command, **options: subprocess.run([sys.executable, "-c", code], **options)


def test_a_profile_is_the_last_line_of_the_childs_output(loader: Loader) -> None:
    run = child(stdout=f"a library says hello\n{profile().model_dump_json()}\n", stderr="and warns")
    assert measure_apart(LENET, loader, seconds=0, quick=True, run=run) == profile()


@pytest.mark.parametrize("untrained", [False, True])
@pytest.mark.parametrize("quick", [False, True])
def test_the_child_is_told_what_to_measure(loader: Loader, untrained: bool, quick: bool) -> None:
    commands = []

    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(" ".join(command))
        return subprocess.CompletedProcess(command, 0, profile().model_dump_json(), "")

    checkpoint = Catalogue(loader.cache_dir, untrained=untrained).find("lenet5")
    measure_apart(checkpoint, loader, seconds=1.5, quick=quick, run=run)
    (command,) = commands
    assert "-m service.profiling.measure lenet5 --seconds 1.5" in command
    assert "--device cpu --engine onnx_cpu --precision float32" in command
    assert f"--threads 1 --max-batch-size 4 --cache-dir {loader.cache_dir}" in command
    assert ("--untrained" in command, "--labels mnist" in command) == (untrained, not untrained)
    assert ("--quick" in command) == quick


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (child(-9), "it ended with -9"),
        (
            child(1, "", "Traceback\n  File\nValueError: the weights are damaged\n"),
            "ValueError: the weights are damaged",
        ),
        (child(1, profile().model_dump_json(), "too late"), "too late"),
        (child(0, ""), "gave no profile"),
        (child(0, "rubbish"), "gave no profile"),
        (child(0, '{"checkpoint": "lenet5@mnist"}'), "gave no profile"),
        (raising(subprocess.TimeoutExpired("python", 600)), "took more than"),
        (raising(OSError(12, "Cannot allocate memory")), "Cannot allocate memory"),
        (real("import os; os.abort()"), "it ended with -6"),
        (real("import sys; sys.stdout.buffer.write(bytes(range(256)))"), "gave no profile"),
    ],
    ids=["killed", "fails", "lies", "silent", "rubbish", "half", "slow", "unstartable", "aborts", "binary"],
)
def test_a_child_that_prints_no_profile_is_an_error_of_one_line(loader: Loader, run: Run, says: str) -> None:
    with pytest.raises(ProfilingError, match=says) as caught:
        measure_apart(LENET, loader, seconds=0, quick=True, run=run)
    assert "lenet5@mnist" in str(caught.value)
    assert "\n" not in str(caught.value)
