"""LitServe. Style ``t`` follows "Speed up serving by 200x" of its documentation: base64 in JSON, decode in
``decode_request``, one worker a device. Style ``s`` decodes a batch in threads, and takes the fast queue.
"""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litserve as ls
from networks import MAX_BATCH, PORT, STYLE, THREADS, Answer, classifier, decoder


class Tutorial(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.decode, self.classify = decoder(), classifier()

    # Without annotations, as in the tutorial: FastAPI would check what they say at every request.
    def decode_request(self, request):
        return self.decode(base64.b64decode(request["image_data"]))

    def predict(self, x: Any) -> list[Answer]:
        return self.classify(list(x))

    def encode_response(self, output):
        return {"top5": output}


class Tuned(Tutorial):
    def setup(self, device: str) -> None:
        super().setup(device)
        self.pool = ThreadPoolExecutor(THREADS)

    def decode_request(self, request):
        return base64.b64decode(request["image_data"])

    def batch(self, inputs: list[bytes]) -> list[Any]:
        return list(self.pool.map(self.decode, inputs))


if __name__ == "__main__":
    if STYLE == "s":
        server = ls.LitServer(Tuned(max_batch_size=MAX_BATCH, batch_timeout=0.001), accelerator="cpu", fast_queue=True)
    else:
        server = ls.LitServer(Tutorial(max_batch_size=MAX_BATCH, batch_timeout=0.01), accelerator="cpu")
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
