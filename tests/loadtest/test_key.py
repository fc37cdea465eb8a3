"""The key of a service with keys comes from the environment, and goes with every request."""

from __future__ import annotations

import pytest

from loadtest._catalogue import NothingToTestError, find_choice
from loadtest._key import VARIABLE, authorization
from tests.pretended_service import pretended_service


@pytest.mark.parametrize(
    ("value", "header"),
    [(None, None), ("", None), ("  ", None), ("topfive_x", "Bearer topfive_x"), (" k\n", "Bearer k")],
)
def test_the_header_has_the_key_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str | None, header: str | None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert authorization() == header


def test_the_listing_is_asked_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_service("googlenet@untrained") as service:
        monkeypatch.setenv(VARIABLE, "topfive_x")
        assert find_choice(service.url, None, None).model == "googlenet"
        monkeypatch.delenv(VARIABLE)
        find_choice(service.url, None, None)
        service.listing = (401, b"{}")
        with pytest.raises(NothingToTestError, match="set TOPFIVE_API_KEY"):
            find_choice(service.url, None, None)
    assert service.keys == ["Bearer topfive_x", None, None]
