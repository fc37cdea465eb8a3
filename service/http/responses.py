"""What is answered with 200: predictions as JSON, and checkpoints as the rows of ``GET /models``."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import msgspec

from models.checkpoints.catalogue import Checkpoint
from models.checkpoints.labels import labels
from service.domain.classified import Classified, Served
from service.domain.errors import Failure, problem_document
from service.domain.prediction import Prediction
from service.domain.snapshot import Snapshot
from service.http.reply import Reply, reply_to
from service.http.schemas import ModelRow, Outlook
from service.inference.ensemble import Average
from service.routing.safety import Safety


def answer(classified: Classified, k: int) -> dict[str, Any]:
    """The answer for one picture: the ``k`` most probable classes in words, and where the time went. Its shape is
    ``schemas.Answer``."""
    prediction, served, routing, total_s = classified
    words = _words(served.labels)
    document: dict[str, Any] = {
        "model": served.model,
        "checkpoint": _checkpoint(served),
        "top5": [
            {"label": words[index], "index": index, "probability": probability}
            for index, probability in zip(prediction.indices[:k], prediction.probabilities[:k], strict=True)
        ],
        "timings_ms": _timings(prediction, total_s),
        "batch_size": prediction.batch_size,
    }
    if routing is not None:
        document["routing"] = routing.model_dump()
    if isinstance(prediction, Average):
        document["members"] = _members(served, prediction)
    return document


@functools.cache
def _words(label_set: str) -> tuple[str, ...]:
    return tuple(label.word for label in labels(label_set))


def _members(served: Served, average: Average) -> list[dict[str, Any]]:
    members: Sequence[Served] = served.members  # type: ignore[attr-defined]  # an average is of an ensemble
    return [
        {
            "model": member.model,
            "checkpoint": _checkpoint(member),
            "timings_ms": _timings(prediction, total_s),
            "batch_size": prediction.batch_size,
        }
        for member, (prediction, total_s) in zip(members, average.members, strict=True)
    ]


def _checkpoint(served: Served) -> dict[str, Any]:
    return {
        "name": served.name,
        "labels": served.labels,
        "origin": served.origin,
        "trained": served.trained,
        "top1": served.top1,
    }


def _timings(prediction: Prediction, total_s: float) -> dict[str, float]:
    return {
        "decode": _ms(prediction.decode_s),
        "queue": _ms(prediction.queue_s),
        "forward": _ms(prediction.forward_s),
        "total": _ms(total_s),
    }


def single(result: Classified | Failure, k: int) -> Reply:
    """The reply to a request with one picture."""
    if isinstance(result, Failure):
        return reply_to(result)
    document = answer(result, k)
    body = msgspec.json.encode(document)
    headers = [
        (b"content-length", b"%d" % len(body)),
        (b"content-type", b"application/json"),
        (b"x-model-served", document["model"].encode("latin-1")),
        (b"server-timing", _server_timing(document["timings_ms"]).encode("latin-1")),
    ]
    return Reply(200, headers, body)


def _server_timing(timings_ms: dict[str, float]) -> str:
    """The value of the ``Server-Timing`` header, which browsers and load tests read."""
    return ", ".join([f"{phase};dur={milliseconds}" for phase, milliseconds in timings_ms.items()])


def bulk(results: Sequence[Classified | Failure], k: int) -> Reply:
    """The reply to a bulk request: for each picture, in order, a whole answer or a whole problem document."""
    entries: list[dict[str, Any]] = []
    served: dict[str, None] = {}
    for result in results:
        entries.append(to_json(result, k, bulk=True))
        if not isinstance(result, Failure):
            served[result.served.model] = None
    headers = {"x-model-served": ", ".join(served)} if served else {}
    return Reply.of(200, "application/json", msgspec.json.encode({"results": entries}), headers)


def to_json(result: Classified | Failure, k: int, *, bulk: bool) -> dict[str, Any]:
    """A result as a JSON object. Problem documents always have a ``status``; answers have one in bulk responses."""
    if isinstance(result, Failure):
        return problem_document(result)
    return {"status": 200, **answer(result, k)} if bulk else answer(result, k)


def outlook(snapshot: Snapshot, safety: Safety) -> Outlook:
    """What a checkpoint takes, with latencies for batches of powers of two and for the largest batch."""
    largest, errors = len(snapshot.forward_s) - 1, safety.errors()
    sizes = sorted({1 << n for n in range(largest.bit_length())} | {largest})
    return Outlook(
        forward_p95_ms={size: _ms(snapshot.forward_s[size]) for size in sizes},
        load_ms=_ms(snapshot.load_s),
        queued=snapshot.queued,
        safety=round(safety.factor, 3),
        predictions=errors.predictions,
        median_ratio=None if errors.median_ratio is None else round(errors.median_ratio, 3),
        median_error=None if errors.median_error is None else round(errors.median_error, 3),
    )


def model_row(
    checkpoint: Checkpoint,
    resident: bool,
    snapshot: Snapshot | None = None,
    safety: Safety | None = None,
    failure: Exception | None = None,
) -> ModelRow:
    """The row of ``GET /models`` and ``topfive models`` for a checkpoint."""
    variant, costs, here = checkpoint.variant, checkpoint.costs, checkpoint.state == "loadable"
    return ModelRow(
        name=checkpoint.name,
        variant=variant.name,
        labels=checkpoint.labels,
        aliases=list(variant.aliases),
        year=variant.year,
        paper=variant.paper,
        params=costs.params,
        multiply_adds=costs.multiply_adds,
        top1=checkpoint.top1,
        top5=checkpoint.top5,
        top1_origin=checkpoint.accuracy_source or None,
        analytic_mb=round(costs.analytic_bytes / 1e6, 1),
        footprint_mb=None if snapshot is None else round(snapshot.footprint_bytes / 1e6, 1),
        state="ready" if resident else checkpoint.state,
        resident=resident,
        origin=checkpoint.origin,
        preprocess=checkpoint.preprocess.to_json(),
        outlook=None if snapshot is None or safety is None else outlook(snapshot, safety),
        mend=None if here else checkpoint.mend,
        failure=None if failure is None else str(failure),
        download_mb=None if here or checkpoint.download_bytes is None else round(checkpoint.download_bytes / 1e6, 1),
    )


def _ms(seconds: float) -> float:
    # Three times as fast as round(), which counts on the path of each request.
    return int(seconds * 1e6 + 0.5) / 1000
