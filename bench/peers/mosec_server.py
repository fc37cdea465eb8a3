"""MOSEC. Style ``t`` follows its ResNet-50 example: msgpack, four processes that decode, two that infer, one that
answers. Style ``s`` takes raw bytes, and one process to decode beside one that infers in all threads.
"""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker
from mosec.mixin import MsgpackMixin
from networks import MAX_BATCH, STYLE, Answer, classifier, decoder


class Decode(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.decode = decoder()

    def forward(self, data: bytes) -> Any:
        return self.decode(data)


class TutorialDecode(MsgpackMixin, Decode):
    """The picture is a field of a msgpack body."""

    def forward(self, data: dict[str, bytes]) -> Any:
        return self.decode(data["image"]).numpy()


class RawDecode(Decode):
    """The body is the picture."""

    def deserialize(self, data: bytes) -> bytes:
        return data


class Infer(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.classify = classifier()

    def forward(self, data: list[Any]) -> list[Answer]:
        return self.classify(data)


class Postprocess(Worker):
    def forward(self, data: Answer) -> dict[str, Answer]:
        return {"top5": data}


if __name__ == "__main__":
    server = Server()
    if STYLE == "s":
        server.append_worker(RawDecode, num=1)
        server.append_worker(Infer, num=1, max_batch_size=MAX_BATCH, max_wait_time=1)
    else:
        server.append_worker(TutorialDecode, num=4)
        server.append_worker(Infer, num=2, max_batch_size=MAX_BATCH)
        server.append_worker(Postprocess, num=1)
    server.run()
