"""``GET /docs`` and ``GET /redoc``, which load nothing from the internet."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

_ASSETS = "/docs/assets"
#: Keeps browsers from other servers: Redoc would load its makers' logo, and Swagger UI would send the document to a
#: validator.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:"
)


def add_docs_pages(app: FastAPI) -> None:
    """Adds the two pages, and their scripts and styles from the package ``fastapi_offline``."""
    app.mount(_ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs assets")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return _with_policy(
            get_swagger_ui_html(
                openapi_url=f"{root}{app.openapi_url}",
                title=app.title,
                swagger_js_url=f"{root}{_ASSETS}/swagger-ui-bundle.js",
                swagger_css_url=f"{root}{_ASSETS}/swagger-ui.css",
                swagger_favicon_url=f"{root}{_ASSETS}/favicon.png",
                swagger_ui_parameters={"validatorUrl": None},
            )
        )

    @app.get("/redoc", include_in_schema=False)
    async def redoc(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return _with_policy(
            get_redoc_html(
                openapi_url=f"{root}{app.openapi_url}",
                title=app.title,
                redoc_js_url=f"{root}{_ASSETS}/redoc.standalone.js",
                redoc_favicon_url=f"{root}{_ASSETS}/favicon.png",
                with_google_fonts=False,
            )
        )


def document_keys(app: FastAPI) -> None:
    """Adds to ``/openapi.json`` how keys are sent, so that ``/docs`` can ask for one and send it."""
    undocumented = app.openapi

    def openapi() -> dict[str, Any]:
        document = undocumented()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["bearer"] = {"type": "http", "scheme": "bearer"}
        schemes["key"] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
        document["security"] = [{"bearer": []}, {"key": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _with_policy(page: HTMLResponse) -> HTMLResponse:
    page.headers["Content-Security-Policy"] = _POLICY
    return page
