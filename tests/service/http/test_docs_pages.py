"""``/docs`` and ``/redoc`` without the internet."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

from tests.fakes import Fakes

TYPES = {"js": "javascript", "css": "text/css", "png": "image/png", "json": "application/json"}


class Links(HTMLParser):
    """The links of a page to what it loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href", "spec-url") and value and tag != "a"]


@pytest.mark.parametrize(("path", "script"), [("/docs", "swagger-ui-bundle.js"), ("/redoc", "redoc.standalone.js")])
async def test_pages_load_everything_from_the_service(fakes: Fakes, path: str, script: str) -> None:
    async with fakes.client() as client:
        page = await client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        links = Links(page.text).found
        links += re.findall(r"url: '([^']+)'", page.text)
        assert any(link.endswith(f"/{script}") for link in links)
        assert any(link.endswith("/favicon.png") for link in links)
        assert "/openapi.json" in links
        for link in links:
            assert not urlsplit(link).netloc, link
            answer = await client.get(link)
            assert answer.status_code == 200, link
            assert TYPES[link.rpartition(".")[2]] in answer.headers["content-type"], link
            assert answer.content, link
        # The browser keeps the scripts from other servers.
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert all("http" not in sources and "*" not in sources for sources in policy.values())
    # Without this, Swagger UI sends the document to a validator on the internet.
    assert path == "/redoc" or '"validatorUrl": null' in page.text


async def test_a_missing_script_is_a_problem_document(fakes: Fakes) -> None:
    async with fakes.client() as client:
        answer = await client.get("/docs/assets/none.js")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
