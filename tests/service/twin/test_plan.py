"""Plans for devices whose rates are known by arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.twin import plan as module
from service.twin.plan import Plan, Row, Wish, markdown, plan, read_wish
from service.twin.scenario import Scenario, ScenarioError
from tests.pages import table
from tests.twins import network, profiles_in, scenario


def lone(folder: Path, query: str, **fields: object) -> Scenario:
    """One network that takes 20 ms, one picture at a time: 50 a second at most."""
    device = profiles_in(folder, network("alexnet", 20.0))
    return scenario(device, query, variants=("alexnet",), max_batch_size=1, **fields)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PICTURES", 500.0)
    monkeypatch.setattr(module, "_LEAST_S", 10.0)
    monkeypatch.setattr(module, "_NEAR", 0.1)


def test_patient_callers_leave_a_device_nearly_no_rest(tmp_path: Path) -> None:
    found = plan(Wish(5000.0, lone(tmp_path, "latency_ms=3000"), None))
    assert 40 < found.per_device < 50
    assert found.simulated is None
    assert found.wished.devices == pytest.approx(5000 / found.per_device, abs=1)


def test_a_tail_that_must_be_short_leaves_it_more(tmp_path: Path) -> None:
    """M/D/1: at 80 % use, p99 is several services long; within three services far less can be done."""
    patient = plan(Wish(1000.0, lone(tmp_path, "latency_ms=3000"), None))
    hasty = plan(Wish(1000.0, lone(tmp_path, "latency_ms=3000"), 60.0))
    assert hasty.per_device < 0.75 * patient.per_device
    assert hasty.wished.devices > patient.wished.devices


def test_few_devices_are_simulated_together(tmp_path: Path) -> None:
    found = plan(Wish(130.0, lone(tmp_path, "latency_ms=400"), None))
    assert found.simulated == found.wished.devices
    assert 3 <= found.wished.devices <= 4


def test_the_rows_follow_from_the_figures(tmp_path: Path) -> None:
    found = plan(Wish(1000.0, lone(tmp_path, "latency_ms=3000", cores=4), None))
    assert [row.rate for row in found.table] == [100, 1000, 10_000, 100_000]
    for row in found.table:
        assert row.devices == pytest.approx(row.rate / found.per_device, abs=1)
        assert row.owners >= max(row.devices, row.rate * found.python_us / 1e6 / 0.7)
        assert row.cores == pytest.approx(row.rate * found.decode_ms / 1e3 / 0.7, abs=1)
        assert row.fronts == pytest.approx(row.cores / 4, abs=1)


def test_where_python_is_slower_than_devices_there_are_more_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if all the trials together had taken a million seconds."""
    times = iter((0.0, 1e6))
    monkeypatch.setattr(module.time, "process_time", lambda: next(times))
    found = plan(Wish(1000.0, lone(tmp_path, "latency_ms=3000"), None))
    assert found.wished.owners == pytest.approx(1000 * found.python_us / 1e6 / 0.7, abs=1)
    assert found.wished.owners > 10 * found.wished.devices


def test_what_one_device_never_answers_in_time_no_number_does(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="does not even answer a lone picture in time"):
        plan(Wish(10.0, lone(tmp_path, "latency_ms=15"), None))


def test_wishes_are_read(tmp_path: Path) -> None:
    file = tmp_path / "mix.toml"
    file.write_text('rate = 3\n[[mix]]\nquery = "latency_ms=77"\n')
    wish = read_wish(f"rate=1e4, mix={file}, p99_ms=200", Scenario(seed=9))
    assert (wish.rate, wish.p99_ms, wish.scenario.seed) == (10_000, 200, 9)
    assert [budget.query for budget in wish.scenario.mix] == ["latency_ms=77"]
    assert read_wish("rate=5", Scenario()).p99_ms is None


@pytest.mark.parametrize("text", ["", "rate", "rate=fast", "rate=0", "rate=5,p99=3", "p99_ms=3", "rate=5,p99_ms=-1"])
def test_unreadable_wishes_are_refused(text: str) -> None:
    with pytest.raises(ScenarioError, match="--plan"):
        read_wish(text, Scenario())


def test_the_page_has_the_rows_and_the_assumptions() -> None:
    row = Row(rate=1234.0, devices=7, owners=8, cores=90, fronts=45)
    found = Plan(
        scenario=Scenario(),
        p99_ms=200.0,
        per_device=180.25,
        python_us=250.4,
        decode_ms=3.0,
        simulated=None,
        wished=row,
        table=[row.model_copy(update={"rate": 1e5})],
    )
    page = markdown(found)
    assert table(page, "pictures/s") == [["1,234", "7", "8", "90", "45"], ["100,000", "7", "8", "90", "45"]]
    assert "p99 within 200 ms" in page
    assert "One device answers 180.2 a second" in page
    assert "250 us a picture" in page
    assert "7 devices were simulated together" in markdown(found.model_copy(update={"simulated": 7}))
