"""The floor under ``bench/path.py`` and ``bench/overhead.py``: a plain Starlette handler with TopFive's decode and
engine, and nothing else. ``BENCH_NETWORK`` names a network to serve with random weights instead of the trained LeNet-5.

No checks, no batching, no problems, no timings. It imports them, unlike the rest of ``bench/``, because a ratio against
another decoder or engine would measure those.
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from models.checkpoints.catalogue import Catalogue
from models.checkpoints.labels import labels
from models.images.preprocess import picture_to_crop
from service.config.settings import Settings
from service.engines.loader import engine_loader

network = os.environ.get("BENCH_NETWORK")
checkpoint = Catalogue(untrained=True).find(network) if network else Catalogue().find("lenet5@mnist")
settings = Settings()
load = engine_loader(
    device="cpu", engine=None, precision="float32", threads=os.cpu_count() or 1, cache_dir=settings.cache_dir
)
engine = load(checkpoint)
words = labels(checkpoint.labels)


async def classify(request: Request) -> JSONResponse:
    # On the event loop: for a network this small, threads would cost more than they bring.
    crop = picture_to_crop(await request.body(), checkpoint.preprocess, max_pixels=80_000_000)
    top = engine.run(crop[None])
    pairs = zip(top.indices[0].tolist(), top.probabilities[0].tolist(), strict=True)
    return JSONResponse([{"label": words[index].word, "probability": p} for index, p in pairs][:5])


async def readyz(_request: Request) -> JSONResponse:
    return JSONResponse({"status": "ready"})


app = Starlette(routes=[Route("/classify", classify, methods=["POST"]), Route("/readyz", readyz)])
