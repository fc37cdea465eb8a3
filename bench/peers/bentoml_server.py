"""BentoML, for ``bentoml serve bentoml_server:Classify``. Style ``t`` follows its ResNet example: pictures of a form, a
batchable coroutine. Style ``s`` takes base64 in JSON, and leaves the event loop free while it decodes and infers.
"""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

import bentoml
from networks import MAX_BATCH, STYLE, THREADS, Answer, classifier, decoder, torchvision_transform
from PIL.Image import Image


@bentoml.service(name="classify", traffic={"timeout": 300, "concurrency": 256})
class Tutorial:
    def __init__(self) -> None:
        self.transform, self.classifier = torchvision_transform(), classifier()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH)
    async def classify(self, images: list[Image]) -> list[Answer]:
        return self.classifier([self.transform(image) for image in images])


@bentoml.service(name="classify", traffic={"timeout": 300, "concurrency": 256})
class Tuned:
    def __init__(self) -> None:
        self.decode, self.classifier = decoder(), classifier()
        self.pool = ThreadPoolExecutor(THREADS)

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH)
    def classify(self, images: list[str]) -> list[Answer]:
        return self.classifier(list(self.pool.map(lambda image: self.decode(base64.b64decode(image)), images)))


Classify = Tuned if STYLE == "s" else Tutorial
