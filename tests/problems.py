"""A check for problem documents."""

from __future__ import annotations

from typing import Any

import httpx

from service.domain.errors import PROBLEMS


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """Checks that an answer is a complete problem document of that status and kind, and returns it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert (document["type"], document["status"]) == (f"/problems/{slug}", status)
    assert document["title"] == PROBLEMS[slug].title
    assert document["detail"]
    assert "Traceback" not in answer.text
    return document
