"""TopFive's app without Ray, for ``uvicorn bare_api:app``: what the fleets are compared with. ``BENCH_NETWORK`` names a
network to serve with random weights instead of the trained LeNet-5.
"""

from __future__ import annotations

import os

from service.assembly.local import local_app
from service.config.fleet import Deployment
from service.config.settings import Settings

network = os.environ.get("BENCH_NETWORK")
settings = Settings(untrained=True) if network else Settings()
app = local_app(settings, Deployment(variants=[network or "lenet5"]))
