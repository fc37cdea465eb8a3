"""Fingerprints: which weights, and what counts as a difference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue, WeightsMissingError
from service.engines.fingerprint import weights_digest
from tests.cards import checkpoint
from tests.profiles import FINGERPRINT

#: Every field but the weights, with another value than ``FINGERPRINT`` has.
OTHER_SETTINGS: dict[str, Any] = {
    "device": "another CPU",
    "engine": "torch_cpu",
    "precision": "bfloat16",
    "threads": 1,
    "max_batch_size": 8,
    "libraries": {"onnxruntime": "2.0"},
}


def test_weights_are_named_by_the_beginning_of_their_sha256(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    # The example of FIPS 180-4: SHA-256 of "abc" is ba7816bf 8f01cfea 414140de ...
    assert weights_digest(checkpoint("lenet5", "mnist", path=path)) == "ba7816bf8f01cfea"


def test_random_weights_are_called_seeded() -> None:
    assert weights_digest(Catalogue(untrained=True).find("lenet5")) == "seeded"


def test_weights_that_are_gone_are_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError):
        weights_digest(checkpoint("lenet5", "mnist", path=tmp_path / "gone"))


@pytest.mark.parametrize("field", [*OTHER_SETTINGS, "weights"])
def test_each_field_can_differ(field: str) -> None:
    value = {**OTHER_SETTINGS, "weights": "0123456789abcdef"}[field]
    other = FINGERPRINT.model_copy(update={field: value})
    assert FINGERPRINT.differences(other) == [f"{field} {value} instead of {getattr(FINGERPRINT, field)}"]
    assert FINGERPRINT.differences(FINGERPRINT) == []


@pytest.mark.parametrize("field", OTHER_SETTINGS)
def test_the_digest_of_the_settings_covers_all_but_the_weights(field: str) -> None:
    assert re.fullmatch("[0-9a-f]{8}", FINGERPRINT.settings)
    assert FINGERPRINT.model_copy(update={field: OTHER_SETTINGS[field]}).settings != FINGERPRINT.settings
    assert FINGERPRINT.model_copy(update={"weights": "0123456789abcdef"}).settings == FINGERPRINT.settings
