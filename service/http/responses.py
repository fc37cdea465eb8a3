"""What is answered with 200: predictions as JSON, and checkpoints as the rows of ``GET /models``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse

from models.checkpoints.catalogue import Checkpoint
from models.checkpoints.labels import labels
from service.domain.decision import Decision
from service.domain.ensemble import Ensemble, members_of
from service.domain.errors import Failure, problem_document
from service.domain.prediction import Prediction
from service.domain.snapshot import Snapshot
from service.http.problems import problem
from service.http.schemas import Answer, CheckpointAnswer, LabelProbability, MemberAnswer, ModelRow, Outlook, Timings
from service.inference.ensemble import Average
from service.routing.safety import Safety


def answer(prediction: Prediction, decision: Decision, k: int, total_s: float) -> Answer:
    """The answer for one picture: the ``k`` most probable classes in words, and where the time went."""
    checkpoint = decision.checkpoint
    words = labels(checkpoint.labels)
    pairs = zip(prediction.indices[:k], prediction.probabilities[:k], strict=True)
    return Answer(
        model=checkpoint.model,
        checkpoint=_checkpoint(checkpoint),
        top5=[LabelProbability(label=words[index].word, index=index, probability=p) for index, p in pairs],
        timings_ms=_timings(prediction, total_s),
        batch_size=prediction.batch_size,
        routing=decision.routing,
        members=_members(checkpoint, prediction) if isinstance(prediction, Average) else None,
    )


def _members(checkpoint: Checkpoint | Ensemble, average: Average) -> list[MemberAnswer]:
    return [
        MemberAnswer(
            model=member.model,
            checkpoint=_checkpoint(member),
            timings_ms=_timings(prediction, total_s),
            batch_size=prediction.batch_size,
        )
        for member, (prediction, total_s) in zip(members_of(checkpoint), average.members, strict=True)
    ]


def _checkpoint(checkpoint: Checkpoint | Ensemble) -> CheckpointAnswer:
    return CheckpointAnswer(
        name=checkpoint.name,
        labels=checkpoint.labels,
        origin=checkpoint.origin,
        trained=checkpoint.trained,
        top1=checkpoint.top1,
    )


def _timings(prediction: Prediction, total_s: float) -> Timings:
    return Timings(
        decode=_ms(prediction.decode_s),
        queue=_ms(prediction.queue_s),
        forward=_ms(prediction.forward_s),
        total=_ms(total_s),
    )


def single(outcome: Answer | Failure) -> Response:
    """The response to a request with one picture."""
    if isinstance(outcome, Failure):
        return problem(outcome)
    return Response(
        outcome.model_dump_json(exclude=_absent(outcome)),
        media_type="application/json",
        headers={"X-Model-Served": outcome.model, "Server-Timing": outcome.timings_ms.header()},
    )


def bulk(outcomes: Sequence[Answer | Failure]) -> Response:
    """The response to a bulk request: for each picture, in order, a whole answer or a whole problem document."""
    entries: list[dict[str, Any]] = []
    served: dict[str, None] = {}
    for outcome in outcomes:
        entries.append(to_json(outcome, bulk=True))
        if not isinstance(outcome, Failure):
            served[outcome.model] = None
    headers = {"X-Model-Served": ", ".join(served)} if served else {}
    return JSONResponse({"results": entries}, headers=headers)


def to_json(outcome: Answer | Failure, *, bulk: bool) -> dict[str, Any]:
    """An outcome as a JSON object. Problem documents always have a ``status``; answers have one in bulk responses."""
    if isinstance(outcome, Failure):
        return problem_document(outcome)
    status = {"status": 200} if bulk else {}
    return {**status, **outcome.model_dump(exclude=_absent(outcome))}


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


def _absent(outcome: Answer) -> set[str]:
    return {name for name in ("routing", "members") if getattr(outcome, name) is None}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
