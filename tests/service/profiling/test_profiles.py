"""Files of profiles: keeping, finding, and broken files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoints.catalogue import Catalogue
from service.profiling import profiles
from service.profiling.profiles import (
    SIZE_CLASSES,
    Latency,
    Profile,
    ProfileFile,
    Profiles,
    add_profiles,
    read_profiles,
    size_class,
)
from tests.profiles import FINGERPRINT, profile

LENET = Catalogue().find("lenet5@mnist")
WHOLE = ProfileFile(device="cpu", profiles={"lenet5@mnist": profile(forward_ms=2.5)}).model_dump_json(indent=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cpu.json"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands in for ``weights/profiles``."""
    monkeypatch.setattr(profiles, "shipped_folder", lambda: tmp_path / "shipped")
    return tmp_path / "shipped" / "cpu.json"


def kept(path: Path) -> dict[str, Profile]:
    found = read_profiles(path)
    assert found is not None
    return found.profiles


def test_what_is_written_is_read(path: Path) -> None:
    lenet = profile(forward_ms=2.5, footprint_mb=12)
    add_profiles(path, "cpu", [lenet])
    assert read_profiles(path) == ProfileFile(device="cpu", profiles={"lenet5@mnist": lenet})


def test_a_missing_file_is_not_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_profiles(path) is None
    assert not caplog.records


BROKEN = {
    "truncated": (WHOLE[:-40], "line"),
    "future": (WHOLE.replace('"version": 1', '"version": 2'), "version 2 instead of 1"),
    "empty": ("", "line 1"),
    "text": ("not JSON", "line 1"),
    "list": ("[]", "version None"),
    "deep": ("[" * 100_000, "recursion"),
    "utf-16": (WHOLE.encode("utf-16"), "codec"),
    "nan": (WHOLE.replace('"p50_ms": 2.0', '"p50_ms": NaN'), "p50_ms"),
    "infinite": (WHOLE.replace('"p99_ms": 5.0', '"p99_ms": Infinity'), "p99_ms"),
    "negative": (WHOLE.replace('"mean_ms": 2.5', '"mean_ms": -2.5'), "mean_ms"),
    "footprint": (WHOLE.replace('"footprint_bytes": ', '"footprint_bytes": -'), "footprint_bytes"),
    "batch of none": (WHOLE.replace('"1": {', '"0": {'), "forward.0"),
    "folder": (None, "directory"),
}


@pytest.mark.parametrize(("content", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_ignored_with_one_line_in_the_log(
    path: Path, content: str | bytes | None, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    match content:
        case None:
            path.mkdir()
        case str():
            path.write_text(content)
        case bytes():
            path.write_bytes(content)
    assert read_profiles(path) is None
    (record,) = caplog.records
    line = record.getMessage()
    assert str(path) in line
    assert says in line
    assert "\n" not in line


def test_profiles_of_other_checkpoints_stay(path: Path) -> None:
    add_profiles(path, "cpu", [profile("lenet5@mnist"), profile("vgg16@imagenet1k")])
    add_profiles(path, "cpu", [profile("lenet5@mnist", forward_ms=7)])
    assert {name: p.forward[1].mean_ms for name, p in kept(path).items()} == {"lenet5@mnist": 7, "vgg16@imagenet1k": 1}


def test_concurrent_writers_take_turns(path: Path) -> None:
    names = [f"network{n}@mnist" for n in range(16)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: add_profiles(path, "cpu", [profile(name)]), names))
    assert sorted(names) == list(kept(path))


def test_a_write_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_profiles(path, "cpu", [profile("lenet5@mnist")])
    before = path.read_bytes()

    def full(_from: Path, _to: Path) -> Path:
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="full"):
        add_profiles(path, "cpu", [profile("vgg16@imagenet1k")])
    assert path.read_bytes() == before
    assert not [file for file in path.parent.iterdir() if file.suffix == ".part"]


def test_the_next_profile_replaces_a_broken_file(path: Path) -> None:
    path.write_text(WHOLE[:-40])
    add_profiles(path, "cpu", [profile("vgg16@imagenet1k")])
    assert list(kept(path)) == ["vgg16@imagenet1k"]
    # It may have been of a later version.
    assert path.with_name("cpu.json.old").read_text() == WHOLE[:-40]


EARLIER, LATER = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (profile(threads=1, measured_at=LATER), profile(measured_at=EARLIER)),
        (profile(threads=1), profile("lenet5@cifar10")),
        (profile("lenet5@cifar10", threads=1, measured_at=LATER), profile(threads=1, measured_at=EARLIER)),
        (profile(threads=1, measured_at=EARLIER), profile(threads=1, measured_at=LATER)),
        (profile("googlenet@mnist"), profile("lenet5@cifar10", threads=1)),
    ],
    ids=["fingerprint", "fingerprint over checkpoint", "checkpoint over variant", "newest", "variant"],
)
@pytest.mark.parametrize("order", [lambda a, b: (a, b), lambda a, b: (b, a)], ids=["own", "shipped"])
def test_the_nearest_profile_is_found_in_either_folder(
    shipped: Path, tmp_path: Path, worse: Profile, better: Profile, order: Callable[..., tuple[Profile, Profile]]
) -> None:
    first, second = order(worse, better)
    add_profiles(shipped, "cpu", [first])
    add_profiles(tmp_path / "profiles" / "cpu.json", "cpu", [second])
    found = Profiles(tmp_path, "cpu").find(LENET, FINGERPRINT)
    assert found is not None
    assert found.profile == better


def test_a_foreign_profile_says_what_differs(shipped: Path, tmp_path: Path) -> None:
    add_profiles(shipped, "cpu", [profile(threads=1, weights="0123")])
    on_file = Profiles(tmp_path, "cpu")
    found = on_file.find(LENET, FINGERPRINT)
    assert found is not None
    assert found.foreign == ["threads 1 instead of 2", "weights 0123 instead of seeded"]
    assert on_file.nearest(LENET) == found.profile
    on_file.keep(profile())
    assert on_file.find(LENET, FINGERPRINT) == (profile(), [])


@pytest.mark.parametrize(
    "differing",
    [
        {"threads": 1},
        {"max_batch_size": 8},
        {"engine": "torch_cpu"},
        {"precision": "bfloat16"},
        {"libraries": {"onnxruntime": "2.0"}},
        {"device": "another CPU"},
    ],
    ids=lambda differing: next(iter(differing)),
)
def test_profiles_of_other_settings_are_kept_apart(shipped: Path, tmp_path: Path, differing: dict[str, Any]) -> None:
    assert not shipped.exists()
    ours, theirs = profile(forward_ms=1), profile(forward_ms=2, **differing)
    for measured in (ours, theirs, ours):
        Profiles(tmp_path, "cpu").keep(measured)
    on_file = Profiles(tmp_path, "cpu")
    for measured in (ours, theirs):
        assert on_file.find(LENET, measured.fingerprint) == (measured, [])
        assert on_file.nearest(LENET, measured.fingerprint.settings) == measured


def test_profiles_of_other_weights_are_kept_in_the_same_file(shipped: Path, tmp_path: Path) -> None:
    assert not shipped.exists()
    for weights in ("0123", "4567"):
        Profiles(tmp_path, "cpu").keep(profile(weights=weights))
    assert len(list((tmp_path / "profiles").glob("*.json"))) == 1


def test_profiles_of_another_device_are_not_found(shipped: Path, tmp_path: Path) -> None:
    assert not shipped.exists()
    Profiles(tmp_path, "cpu-2-cores").keep(profile())
    assert Profiles(tmp_path, "cpu").nearest(LENET) is None
    assert Profiles(tmp_path, "cpu-2-cores").nearest(LENET) == profile()


def test_the_profile_of_another_variant_is_not_found(shipped: Path, tmp_path: Path) -> None:
    add_profiles(shipped, "cpu", [profile("lenet5_wide@mnist")])
    on_file = Profiles(tmp_path, "cpu")
    assert on_file.find(LENET, FINGERPRINT) is None
    assert on_file.nearest(LENET) is None


def test_a_cache_that_cannot_be_written_to_is_a_warning(
    shipped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not shipped.exists()
    (tmp_path / "profiles").write_text("a file where the folder should be")
    on_file = Profiles(tmp_path, "cpu")
    caplog.clear()
    on_file.keep(profile())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "lenet5@mnist cannot be kept" in caplog.text
    assert on_file.find(LENET, FINGERPRINT) == (profile(), [])


SECONDS = st.floats(1e-5, 1e3)


def test_a_latency_has_mean_and_percentiles() -> None:
    """1 to 20 ms and one of 100: the 99th percentile lies at 0.8 of the way between the last two of 21 runs."""
    seconds = [*(n / 1000 for n in range(20, 0, -1)), 0.100]
    assert Latency.of(seconds) == Latency(mean_ms=14.762, p50_ms=11, p95_ms=20, p99_ms=84, runs=21)


@given(st.lists(SECONDS, min_size=1, max_size=50))
def test_percentiles_rise(seconds: list[float]) -> None:
    latency = Latency.of(seconds)
    assert latency.p50_ms <= latency.p95_ms <= latency.p99_ms
    assert latency.runs == len(seconds)


def test_a_size_belongs_to_the_first_class_that_holds_it() -> None:
    names = list(SIZE_CLASSES)
    for name, following in zip(names, [*names[1:], "huge"], strict=True):
        assert size_class(SIZE_CLASSES[name]) == name
        assert size_class(SIZE_CLASSES[name] + 1) == following
    assert size_class(0) == "thumbnail"


@given(
    st.one_of(
        st.integers(0, 10**8), st.builds(int.__add__, st.sampled_from(list(SIZE_CLASSES.values())), st.integers(-2, 2))
    )
)
def test_a_size_class_is_found_as_by_asking_each(encoded_bytes: int) -> None:
    expected = next((name for name, most in SIZE_CLASSES.items() if encoded_bytes <= most), "huge")
    assert size_class(encoded_bytes) == expected


def test_the_profiles_of_one_file_are_those_alone(shipped: Path, path: Path) -> None:
    add_profiles(shipped, "cpu", [profile(forward_ms=9.0)])
    add_profiles(path, "cpu", [profile("googlenet@cifar10", max_batch_size=8), profile("alexnet@x", max_batch_size=4)])
    found = Profiles.of_file(path)
    assert found.nearest(LENET) is None
    nearest = found.nearest(Catalogue().find("googlenet@cifar10"))
    assert nearest is not None
    assert nearest.fingerprint.max_batch_size == 8
    assert found.max_batch_size == 8
    assert Profiles.of_file(path.with_name("none.json")).max_batch_size == 0
