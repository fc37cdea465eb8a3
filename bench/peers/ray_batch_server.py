"""Ray Serve's own batching, ``@serve.batch``. Style ``t`` follows its tutorials on PyTorch and on batching: decode and
model in one replica, a wait of 10 ms. Style ``s`` decodes and infers beside the event loop, waits for 1 ms, and stands
behind HAProxy with the settings that TopFive gives Ray.
"""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from networks import MAX_BATCH, PORT, STYLE, THREADS, Answer, classifier, decoder
from starlette.requests import Request

folder = TemporaryDirectory(prefix="topfive-bench-")
if STYLE == "s":
    from service.cluster import driver
    from service.config import settings

    os.environ |= driver.environment(Path(folder.name), settings.Settings())  # Ray reads them when it is imported

import ray  # noqa: E402
from ray import serve  # noqa: E402


# Serve's default of 5 requests at once would keep a batch of 16 from ever being full.
@serve.deployment(max_ongoing_requests=256)
class Tutorial:
    def __init__(self) -> None:
        self.decode, self.classify = decoder(), classifier()

    @serve.batch(max_batch_size=MAX_BATCH)
    async def handle_batch(self, pictures: list[bytes]) -> list[Answer]:
        return self.classify([self.decode(picture) for picture in pictures])

    async def __call__(self, request: Request) -> Answer:
        return await self.handle_batch(await request.body())


@serve.deployment(max_ongoing_requests=256, logging_config={"enable_access_log": False})
class Tuned:
    def __init__(self) -> None:
        self.decode, self.classify, self.pool = decoder(), classifier(), ThreadPoolExecutor(THREADS)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.001)
    async def handle_batch(self, pictures: list[bytes]) -> list[Answer]:
        return await asyncio.to_thread(lambda: self.classify(list(self.pool.map(self.decode, pictures))))

    async def __call__(self, request: Request) -> Answer:
        return await self.handle_batch(await request.body())


if __name__ == "__main__":
    ray.init(address="local", include_dashboard=False, num_cpus=THREADS)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run((Tuned if STYLE == "s" else Tutorial).bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
