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
from service.engines import loader as loading
from service.engines.loader import Loader
from service.profiling import profiler as profiling
from service.profiling import profiles
from service.profiling.precision import Choice, Tried
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


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """A loader that leaves the precision to be chosen, on a GPU for which no profiles ship."""
    monkeypatch.setattr(profiles, "shipped_folder", lambda: tmp_path / "none")
    monkeypatch.setattr(loading, "device_name", lambda _device: "a GPU")
    return Loader("torch_cuda", "cuda:0", "auto", 0, tmp_path, 128)


def chosen(precision: str) -> Choice:
    tried = {"float16": Tried(agreement=1, time_ratio=0.5)}
    return Choice.model_validate({"precision": precision, "count": 512, "classes": 10, "tried": tried})


def measured(gpu: Loader, precision: str) -> Profile:
    """What measuring gives where a precision was chosen."""
    fingerprint = gpu.fingerprint(LENET).model_copy(update={"precision": precision})
    return profile(fingerprint=fingerprint).model_copy(update={"choice": chosen(precision)})


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_precision_is_chosen_once_and_each_load_uses_it(
    gpu: Loader, measuring: Measurements, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    profiler = Profiler(gpu)
    assert profiler.loader_of(LENET) == replace(gpu, precision="float32")
    measuring.outcome = found = measured(gpu, precision)
    assert profiler.ensure(LENET) == found
    assert profiler.loader_of(LENET) == replace(gpu, precision=precision)
    assert f"lenet5@mnist computes in {precision}: of 512 pictures (10 classes) float16 names float32's" in caplog.text
    # After a restart: by what is on file, also without a measurement or before it.
    for again in (Profiler(gpu), Profiler(gpu)):
        assert again.nearest(LENET) == found
        assert again.loader_of(LENET).precision == precision
        assert again.ensure(LENET) == found
    assert measuring.count == 1


@pytest.mark.parametrize(
    ("of_choice", "of_fingerprint"),
    [({"pictures": 0}, {}), ({}, {"weights": "0123"}), ({}, {"libraries": {"torch": "1.0"}}), (None, {})],
    ids=["pictures", "weights", "versions", "no choice"],
)
def test_a_choice_that_was_made_otherwise_is_made_again(
    gpu: Loader, measuring: Measurements, of_choice: dict[str, Any] | None, of_fingerprint: dict[str, Any]
) -> None:
    measuring.outcome = good = measured(gpu, "float16")
    assert good.choice is not None
    stale = good.model_copy(
        update={
            "choice": None if of_choice is None else good.choice.model_copy(update=of_choice),
            "fingerprint": good.fingerprint.model_copy(update=of_fingerprint),
        }
    )
    profiles.Profiles(gpu.cache_dir, profiling.device_slug(gpu.device)).keep(stale)
    assert Profiler(gpu).loader_of(LENET).precision == "float32"
    assert Profiler(gpu).ensure(LENET) == good
    assert measuring.count == 1


def test_a_replaced_file_does_not_inherit_the_choice(gpu: Loader, measuring: Measurements) -> None:
    measuring.outcome = measured(gpu, "float16")
    profiler = Profiler(gpu)
    profiler.ensure(LENET)
    path = gpu.cache_dir / "other.safetensors"
    assert LENET.path is not None
    path.write_bytes(LENET.path.read_bytes() + b"x")
    assert profiler.loader_of(replace(LENET, path=path)).precision == "float32"
    assert profiler.loader_of(LENET).precision == "float16"


def test_a_precision_that_cannot_be_chosen_is_float32(gpu: Loader, measuring: Measurements) -> None:
    measuring.outcome = None
    profiler = Profiler(gpu)
    assert profiler.ensure(LENET) is None
    assert profiler.loader_of(LENET).precision == "float32"


def test_a_profile_whose_precision_was_chosen_serves_whoever_sets_that_precision(gpu: Loader) -> None:
    profiles.Profiles(gpu.cache_dir, profiling.device_slug(gpu.device)).keep(measured(gpu, "float16"))
    assert Profiler(replace(gpu, precision="float16")).ensure(LENET, measure=False) == measured(gpu, "float16")


def test_a_precision_that_is_set_is_left_as_it_is(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "weights_digest", lambda _checkpoint: pytest.fail("the weights are read"))
    assert Profiler(loader).loader_of(LENET) is loader


def test_the_precision_is_chosen_in_a_process_before_the_one_that_measures(gpu: Loader) -> None:
    commands = []

    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(" ".join(command[1:]))
        choosing = "service.profiling.precision" in command
        printed = chosen("float16").model_dump_json() if choosing else profile().model_dump_json()
        return subprocess.CompletedProcess(command, 0, f"hello\n{printed}\n", "")

    found = measure_apart(LENET, gpu, seconds=2, quick=True, run=run)
    assert found == profile().model_copy(update={"choice": chosen("float16")})
    first, second = commands
    assert first.startswith(
        "-m service.profiling.precision lenet5 --device cuda:0 --engine torch_cuda --precision auto"
    )
    assert "--quick" not in first
    assert second.startswith("-m service.profiling.measure lenet5 --device cuda:0")
    assert "--precision float16" in second
    assert "--max-batch-size 128" in second


def test_a_choice_that_fails_is_an_error_and_nothing_is_measured(gpu: Loader) -> None:
    with pytest.raises(ProfilingError, match="gave no choice"):
        measure_apart(LENET, gpu, seconds=2, quick=True, run=child(stdout="rubbish"))


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
    assert "-m service.profiling.measure lenet5 --device" in command
    assert "--seconds 1.5" in command
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
