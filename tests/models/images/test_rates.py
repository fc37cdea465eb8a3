"""The rates of decoding: measured for each kind of work, by pictures that are of that kind."""

from __future__ import annotations

import pytest

from models.images import cost
from models.images import rates as decoding
from models.images.outline import glance
from models.images.pictures import decode
from models.images.rates import measure_rates


def test_there_is_a_rate_for_each_kind_that_prices_know() -> None:
    rates = measure_rates(1)
    assert set(rates) == set(cost.RATES)
    assert all(min(rate) >= 0 for rate in rates.values())
    for kind, rate in rates.items():
        assert rate.file_us > 0 or kind == "large"
        assert rate.byte_ns + rate.unit_ns > 0, kind


@pytest.mark.parametrize("richness", ["flat", "photo"])
def test_each_picture_is_of_its_kind_and_is_decoded(richness: str) -> None:
    for kind, data in decoding._pictures(64, richness).items():
        found = glance(data)
        assert found is not None
        assert (found.kind, found.width, found.height) == (kind, 64, 64)
        assert decode(data, "RGB", max_pixels=4096).size == (64, 64)


def test_it_prints_what_prices_begin_with(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "measure_rates", lambda _rounds: {"png": cost.Rate(24.0, 21.5, 2.25)})
    assert decoding.main() == 0
    assert capsys.readouterr().out == '    "png": Rate(24, 21.5, 2.25, 0),\n'
