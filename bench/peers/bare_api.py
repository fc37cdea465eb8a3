"""TopFive's app without Ray, for ``uvicorn bare_api:app``: what the fleets are compared with. ``BENCH_NETWORK`` names a
network to serve with random weights instead of the trained LeNet-5.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import service

# By its files: an installed checkout would lend an older commit the modules that it lacks.
_SERVICE = Path(service.__path__[0])
if (_SERVICE / "assembly" / "local.py").is_file():
    from service.assembly.local import local_app
    from service.config.fleet import Deployment
    from service.config.settings import Settings
else:  # an older commit, which path.py compares with
    rooms = (_SERVICE / "assembly.py").is_file()
    local_app = import_module("service.assembly" if rooms else "service.local").local_app
    Deployment = import_module("service.config.fleet" if rooms else "service.fleet").Deployment
    Settings = import_module("service.config.settings" if rooms else "service.settings").Settings

network = os.environ.get("BENCH_NETWORK")
settings = Settings(untrained=True) if network else Settings()
app = local_app(settings, Deployment(variants=[network or "lenet5"]))
