"""The report's figures that follow from others, and reading one again."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadreport.report import Report, ReportError, read_report
from service.engines.loader import device_name
from tests import reports


def test_pictures_per_gib_divide_by_binary_gigabytes() -> None:
    network = reports.network("a@b", knee=reports.knee(10.0, pictures_per_second=8.0), footprint_mb=2 * 2**30 / 1e6)
    # Eight answered pictures a second in two GiB; the rate that was asked for is ten.
    assert network.per_gib == pytest.approx(4.0)


@pytest.mark.parametrize("changes", [{"knee": None}, {"footprint_mb": None}, {"footprint_mb": 0.0}])
def test_without_a_knee_or_a_footprint_there_is_no_figure(changes: dict[str, object]) -> None:
    assert reports.network("a@b", **changes).per_gib is None


def test_the_ratio_is_to_vgg16_if_that_was_measured() -> None:
    twice = reports.network("a@b", knee=reports.knee(8.0), footprint_mb=100.0)
    once = reports.network("vgg16@b", knee=reports.knee(4.0), footprint_mb=100.0)
    assert reports.report(twice, once).ratio(twice) == pytest.approx(2.0)
    assert reports.report(twice).ratio(twice) is None
    unknown = reports.network("vgg16@b", footprint_mb=None)
    assert reports.report(twice, unknown).reference() is None
    assert reports.report(twice, once).ratio(reports.network("c@b", knee=None)) is None


def test_networks_are_ranked_by_pictures_per_gib_and_other_tasks_come_last() -> None:
    names = ["vgg16@untrained", "lenet5@untrained", "googlenet@untrained", "alexnet@untrained"]
    networks = [reports.network(name) for name in names]
    unknown = reports.network("vgg19@untrained", knee=None)
    ranked = [network.variant for network in reports.report(unknown, *networks).ranked()]
    assert ranked == ["googlenet", "alexnet", "vgg16", "vgg19", "lenet5"]
    # Without VGG-16 all are of one task.
    without = reports.report(*networks[1:])
    assert [network.variant for network in without.ranked()] == ["lenet5", "googlenet", "alexnet"]


def test_a_step_held_if_there_is_no_reason_why_not() -> None:
    assert reports.step(1.0).held
    assert not reports.step(1.0, why_not="").held


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(reports.full().model_dump_json())
    assert read_report(path) == reports.full()


def test_a_file_that_is_not_a_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    with pytest.raises(ReportError, match="not a report of topfive loadtest in format 1"):
        read_report(tmp_path / "file")
    (tmp_path / "file").write_text(reports.report().model_dump_json().replace('"format":1', '"format":2'))
    with pytest.raises(ReportError, match="not a report of topfive loadtest in format 1"):
        read_report(tmp_path / "file")
    with pytest.raises(ReportError, match="No such file"):
        read_report(tmp_path / "absent.json")
    assert issubclass(ReportError, ValueError)
    assert Report.model_validate(reports.report().model_dump()) == reports.report()


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("AMD EPYC, 2 cores", "cpu"),
        ("CPU, 1 cores", "cpu"),
        ("AMD EPYC, 2 cores, Intel Xeon, 16 cores", "cpu"),
        ("NVIDIA H100 80GB HBM3", "gpu"),
        ("NVIDIA H100 80GB HBM3, NVIDIA L4", "gpu"),
        ("AMD EPYC, 2 cores, NVIDIA L4", "mixed"),
        (None, "cpu"),
    ],
)
def test_the_kind_of_device_is_told_by_its_name(device: str | None, kind: str) -> None:
    assert reports.report(device=device).device_kind == kind


def test_this_machines_cpu_is_told_from_a_gpu() -> None:
    assert reports.report(device=device_name("cpu")).device_kind == "cpu"
