"""The shapes that have behaviour: queries."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from service.http.schemas import NoQuery, TargetsQuery, UnloadQuery


@pytest.mark.parametrize("kind", [NoQuery, TargetsQuery, UnloadQuery])
def test_unknown_parameters_are_refused_and_queries_never_change(kind: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        kind.model_validate({"colour": "red"})
    # They are cached, so that one query is the same object for many requests.
    assert kind.model_config["frozen"] is True


def test_defaults_and_values_of_the_queries() -> None:
    assert UnloadQuery().wait is False
    assert TargetsQuery().job == "topfive"
    assert [TargetsQuery(job=job).job for job in ("topfive", "ray", "haproxy")] == ["topfive", "ray", "haproxy"]
    with pytest.raises(ValidationError, match="'topfive', 'ray' or 'haproxy'"):
        TargetsQuery.model_validate({"job": "prometheus"})
