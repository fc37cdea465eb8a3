"""Which checkpoints exist: the catalogue over the box and a cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models import UnknownModelError
from models.checkpoints import catalogue as module
from models.checkpoints.catalogue import (
    LOOK_EVERY_S,
    Catalogue,
    WeightsMissingError,
    WrongWeightsError,
    cache_dir,
)
from models.networks.variants import VARIANTS, find_variant
from tests.cards import box_top1, checkpoint, put
from tests.clock import Clock

BOX_TOP1 = box_top1()


def test_an_empty_machine_has_what_is_in_the_box(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "not there yet")
    states = {c.name: c.state for c in catalogue.checkpoints()}
    for name in ("lenet5@mnist", "googlenet@cifar10", "inception_v2@cifar10"):
        assert states.pop(name) == "loadable"
    assert states == {f"{name}@imagenet1k": "weights missing" for name in VARIANTS if name != "lenet5"}
    lenet = catalogue.find("lenet5")
    assert lenet.path is not None
    assert lenet.path.is_file()


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    missing = Catalogue(tmp_path).find("vgg")
    text = str(WeightsMissingError(missing))
    assert "vgg16@imagenet1k has no weights on this machine" in text
    # By the exact count of bytes: 527.796 MiB are 553 MB.
    assert "topfive pull vgg16 (fetches 553 MB), or offline: topfive import vgg16 FILE" in text
    assert missing.url == "https://download.pytorch.org/models/vgg16-397923af.pth"
    unknown = checkpoint("vgg16", "imagenet1k")
    assert "topfive import vgg16 FILE" in unknown.mend


def test_a_service_that_hosts_some_variants_knows_no_others(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, variants=["lenet5", "googlenet"])
    assert [c.name for c in catalogue.checkpoints()] == ["lenet5@mnist", "googlenet@imagenet1k", "googlenet@cifar10"]
    assert catalogue.find("inception_v1").name == "googlenet@cifar10"
    with pytest.raises(UnknownModelError) as caught:
        catalogue.find("vgg16")
    assert "lenet5" in caught.value.known
    assert "vgg16" not in caught.value.known


def test_loadable_checkpoints_come_first_then_imagenet_then_cifar_then_mnist(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path)
    assert catalogue.find("vgg16").labels == "imagenet1k"
    for labels in ("mnist", "cifar10", "imagenet1k"):
        put(tmp_path, "vgg16", labels)
        found = catalogue.find("vgg16")
        assert (found.labels, found.state) == (labels, "loadable")
    assert [c.labels for c in catalogue.checkpoints() if c.variant.name == "vgg16"] == [
        "imagenet1k",
        "cifar10",
        "mnist",
    ]


def test_labels_and_the_at_sign_choose_a_label_set(tmp_path: Path) -> None:
    put(tmp_path, "googlenet", "cifar10")
    put(tmp_path, "googlenet", "mnist")
    catalogue = Catalogue(tmp_path)
    assert catalogue.find("inception_v1@mnist").name == "googlenet@mnist"
    assert catalogue.find("googlenet", "mnist").name == "googlenet@mnist"
    assert catalogue.find("googlenet@mnist", "mnist").name == "googlenet@mnist"
    assert catalogue.find("googlenet", "imagenet1k").state == "weights missing"
    assert catalogue.find("googlenet").name == "googlenet@cifar10"


@pytest.mark.parametrize(("model", "labels"), [
    ("googlenet@cifar10", "imagenet1k"),
    ("googlenet@mnist", None),
    ("vgg16", "cifar10"),
    ("googlenet@untrained", None),
    ("lenet5@imagenet1k", None),
    ("lenet5@mnist@mnist", None),
    ("resnet50", None),
    ("@mnist", None),
    ("", None),
])  # fmt: skip
def test_contradictory_and_unknown_names(tmp_path: Path, model: str, labels: str | None) -> None:
    with pytest.raises(UnknownModelError, match=r"known: .*googlenet"):
        Catalogue(tmp_path).find(model, labels)


def test_untrained_every_variant_is_loadable_whatever_exists(tmp_path: Path) -> None:
    put(tmp_path, "googlenet", "cifar10")
    catalogue = Catalogue(tmp_path, untrained=True)
    rows = catalogue.checkpoints()
    assert [c.name for c in rows] == [f"{name}@untrained" for name in VARIANTS]
    for row in rows:
        assert (row.state, row.trained, row.labels) == ("loadable", False, row.variant.labels)
        assert (row.top1, row.top5) == row.variant.published
        assert row.accuracy_source.startswith("stand-in")
    for model, labels in (
        ("vgg16", None),
        ("vgg", "imagenet1k"),
        ("vgg16@untrained", None),
        ("vgg16@imagenet1k", None),
    ):
        assert catalogue.find(model, labels).name == "vgg16@untrained"
    with pytest.raises(UnknownModelError):
        catalogue.find("vgg16", "cifar10")
    with pytest.raises(UnknownModelError):
        catalogue.find("vgg16@cifar10")


def test_a_file_in_the_cache_wins_over_the_box(tmp_path: Path) -> None:
    target = put(tmp_path, "lenet5", "mnist", top1=12.5)
    found = Catalogue(tmp_path).find("lenet5")
    assert (found.path, found.top1, found.origin) == (target, 12.5, "a test")


def test_files_that_come_and_go_are_seen_at_once(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path)
    for top1 in (1.0, 2.0):
        target = put(tmp_path, "lenet5", "mnist", top1=top1)
        assert catalogue.find("lenet5").top1 == top1
    target.unlink()
    assert catalogue.find("lenet5").top1 == BOX_TOP1
    put(tmp_path, "googlenet", "imagenet1k")
    assert catalogue.find("googlenet").state == "loadable"


def test_a_service_looks_once_a_second_and_sees_a_replaced_file_then(tmp_path: Path) -> None:
    put(tmp_path, "lenet5", "mnist", top1=12.5)
    clock = Clock()
    catalogue = Catalogue(tmp_path, look_every_s=LOOK_EVERY_S, clock=clock)
    for name in ("lenet5", "lenet5@mnist"):
        assert catalogue.find(name, serves=lambda _row: True).top1 == 12.5
    put(tmp_path, "lenet5", "mnist", top1=25.5)
    clock.now += 0.9
    assert catalogue.find("lenet5", serves=lambda _row: True).top1 == 12.5
    assert all(row.top1 != 25.5 for row in catalogue.checkpoints())
    clock.now += 0.2
    assert catalogue.find("lenet5", serves=lambda _row: True).top1 == 25.5
    assert catalogue.find("lenet5@mnist").top1 == 25.5


def test_a_name_that_is_known_is_not_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(tmp_path)
    lenet = catalogue.find("lenet5")
    monkeypatch.setattr(catalogue, "_find", lambda *_args: pytest.fail("it was found before"))
    assert catalogue.find("lenet5") is catalogue.find("lenet5", serves=lambda _row: True) is lenet


def test_two_changes_within_one_tick_of_the_file_systems_clock_are_both_seen(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path)
    folder = put(tmp_path, "lenet5", "mnist", top1=1.0).parent
    tick = time.time_ns()
    os.utime(folder, ns=(tick, tick))
    assert catalogue.find("lenet5").top1 == 1.0
    put(tmp_path, "lenet5", "mnist", top1=2.0)
    os.utime(folder, ns=(tick, tick))
    assert catalogue.find("lenet5").top1 == 2.0


def test_a_folder_that_has_not_changed_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path, "lenet5", "mnist").parent
    os.utime(folder, ns=(10**18, 10**18))
    catalogue = Catalogue(tmp_path)
    rows = catalogue.checkpoints()
    monkeypatch.setattr(Catalogue, "_read", lambda _self: pytest.fail("read again"))
    assert catalogue.checkpoints() is rows


def test_unchanged_rows_stay_the_same_objects(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path)
    put(tmp_path, "vgg16", "imagenet1k")
    before = {row.name: row for row in catalogue.checkpoints()}
    put(tmp_path, "alexnet", "imagenet1k")
    after = {row.name: row for row in catalogue.checkpoints()}
    assert [name for name, row in after.items() if row is not before[name]] == ["alexnet@imagenet1k"]


def test_a_file_that_has_not_changed_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = module.checked_card
    monkeypatch.setattr(module, "checked_card", lambda path: (read.append(path.name), real(path))[1])
    catalogue = Catalogue(tmp_path)
    for variant in ("vgg16", "alexnet", "vgg16"):
        put(tmp_path, variant, "imagenet1k")
        for _ in range(3):
            catalogue.checkpoints()
    names = [name.partition("@")[0] for name in read]
    assert names == ["vgg16", "alexnet", "vgg16"]


def test_an_old_file_that_is_put_back_counts_as_later(tmp_path: Path) -> None:
    target = put(tmp_path, "vgg16", "imagenet1k", origin="first")
    backup = tmp_path / "backup"
    shutil.copy2(target, backup)
    put(tmp_path, "vgg16", "imagenet1k", origin="second")
    second = Catalogue(tmp_path).find("vgg16").modified_ns
    os.utime(backup, (1_000_000_000, 1_000_000_000))
    backup.replace(target)
    found = Catalogue(tmp_path).find("vgg16")
    assert found.origin == "first"
    assert found.modified_ns is not None
    assert second is not None
    assert found.modified_ns > second


def test_a_file_that_is_overwritten_in_place_is_read_again_whatever_its_times(tmp_path: Path) -> None:
    """It keeps its inode and its size, and a copy may keep an old modification time too."""
    catalogue = Catalogue(tmp_path)
    target = put(tmp_path, "vgg16", "imagenet1k", top1=1.5)
    before = target.stat()
    assert catalogue.find("vgg16").top1 == 1.5
    target.write_bytes(target.read_bytes().replace(b'\\"top1\\": 1.5', b'\\"top1\\": 2.5'))
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    target.parent.touch()
    after = target.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert catalogue.find("vgg16").top1 == 2.5


def test_a_name_prefers_a_checkpoint_that_can_be_served(tmp_path: Path) -> None:
    for labels in ("imagenet1k", "cifar10"):
        put(tmp_path, "googlenet", labels)
    catalogue = Catalogue(tmp_path)

    def found(*failing: str, model: str = "googlenet", labels: str | None = None) -> str:
        return catalogue.find(model, labels, lambda c: c.labels not in failing).name

    assert found() == "googlenet@imagenet1k"
    assert found("imagenet1k") == "googlenet@cifar10"
    assert found("imagenet1k", "cifar10") == "googlenet@imagenet1k"
    assert found("imagenet1k", model="googlenet@imagenet1k") == "googlenet@imagenet1k"
    assert found("imagenet1k", labels="imagenet1k") == "googlenet@imagenet1k"
    # A checkpoint that cannot be served now comes before one whose weights have to be fetched.
    assert Catalogue(tmp_path / "empty").find("googlenet", None, lambda _: False).name == "googlenet@cifar10"


def test_a_temporary_file_of_an_import_is_ignored(tmp_path: Path) -> None:
    target = put(tmp_path, "lenet5", "mnist")
    target.rename(target.with_name(f".{target.name}.x.part"))
    assert Catalogue(tmp_path).find("lenet5").top1 == BOX_TOP1


def test_the_cache_folder_is_the_settings_or_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(tmp_path))
    assert cache_dir() == Catalogue().cache_dir == tmp_path
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", "")
    assert cache_dir().name == "topfive"


def test_listing_needs_no_torch() -> None:
    program = (
        "import sys, models; from models.checkpoints.catalogue import Catalogue; models.list_models(); "
        "Catalogue().checkpoints(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_errors_are_of_the_kinds_that_callers_expect() -> None:
    assert issubclass(WeightsMissingError, FileNotFoundError)
    assert issubclass(WrongWeightsError, ValueError)
    assert issubclass(UnknownModelError, ValueError)
    assert find_variant("vgg") is VARIANTS["vgg16"]
