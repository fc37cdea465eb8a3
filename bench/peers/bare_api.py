"""TopFive's app without Ray, for ``uvicorn bare_api:app``: what ``bench/overhead.py`` compares the fleets with."""

from __future__ import annotations

from service.fleet import Deployment
from service.local import local_app
from service.settings import Settings

app = local_app(Settings(), Deployment(variants=["lenet5"]))
