"""The errors of the service, where they are raised, and the one table that turns each into a status and a problem.

    a request meets      raises                                        status
    its parameters       BadParameterError                             400
    its body             BadBodyError, NoPictureError                  400
                         BodyTooSlowError                              408
                         BodyTooLargeError                             413
                         UnsupportedEncodingError                      415
    who sends it         UnauthorizedError                             401
                         ForbiddenError, RoleError                     403
                         RateLimitedError                              429
    the model it names   UnknownModelError                             404
                         WeightsMissingError, WrongWeightsError        503
    the router           NoModelFitsError                              422
    the decoder          UnsupportedFormatError                        415
                         UndecodableError, TooManyPixelsError,         422
                         TooManyPartsError, TooMuchWorkError
    the queue            OverloadedError                               429
                         DeadlineMissedError                           504
    a load               LoadFailedError                               503
    the device           OutOfDeviceMemoryError, MemoryLimitError      503
    an unload            InUseError                                    409
    a service not ready  NotReadyError                                 503
    a defect             any other exception                           500

Inside a process these are raised. Between processes, and in the entries of a bulk answer, an error is a value, a
``Failure``. ``problem_document`` is the body of the answer for both.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from models.checkpoints.catalogue import WeightsMissingError, WrongWeightsError
from models.images.errors import (
    TooManyPartsError,
    TooManyPixelsError,
    TooMuchWorkError,
    UndecodableError,
    UnsupportedFormatError,
)
from models.networks.variants import UnknownModelError
from service.domain.decision import Considered

log = logging.getLogger(__name__)


class BadParameterError(ValueError):
    """A query parameter is unknown, or its value is not allowed."""


class BadBodyError(ValueError):
    """The body is broken JSON, base64 or multipart."""


class NoPictureError(ValueError):
    """The body is empty, or multipart without a file."""


class BodyTooLargeError(ValueError):
    """The body has more bytes than the limit."""


class BodyTooSlowError(ValueError):
    """The body arrives more slowly than the service allows."""


class UnsupportedEncodingError(ValueError):
    """The body has a content coding that is not undone."""


class ForbiddenError(PermissionError):
    """The request is only for callers on the service's own machine."""


class UnauthorizedError(PermissionError):
    """The service has keys, and the request has none, or none that is in use.

    Args:
        text: for the caller; never holds the key.
        wrong: whether there was a key.
    """

    def __init__(self, text: str, wrong: bool = False) -> None:
        super().__init__(text)
        self.wrong = wrong


class RoleError(PermissionError):
    """The caller's key is in use, but its role does not allow the request."""


class RateLimitedError(RuntimeError):
    """The caller has used up what it may ask for in a while.

    Args:
        text: for the caller.
        retry_after_s: seconds until all of it is free again.
        quota: how many pictures the caller may send in how many seconds, if they are what was used up.
    """

    def __init__(self, text: str, retry_after_s: float, quota: tuple[int, int] | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s
        self.quota = quota


class NoModelFitsError(ValueError):
    """No checkpoint can meet the caller's request, under any load.

    Args:
        text: for the caller; names the checkpoint that comes nearest.
        considered: the reason against each checkpoint.
    """

    def __init__(self, text: str, considered: Sequence[Considered] = ()) -> None:
        super().__init__(text)
        self.considered = considered


class OverloadedError(RuntimeError):
    """The request could be answered, but not now: the queue is full, or too long for the deadline.

    Args:
        text: for the caller.
        retry_after_s: seconds after which the caller should send the request again.
        considered: the reason against each checkpoint, if there was a choice.
    """

    def __init__(self, text: str, retry_after_s: float, considered: Sequence[Considered] = ()) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s
        self.considered = considered


class MemoryLimitError(MemoryError):
    """The memory limit has no room for a checkpoint, no matter which others are unloaded."""


class OutOfDeviceMemoryError(MemoryError):
    """A network, or a forward pass of one picture, does not fit into the device's memory. The text says what to do.

    Args:
        what: the text's subject and verb, such as "the weights do".
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} not fit into the device's free memory: serve fewer models on this device, end other programs "
            "that use it, or set TOPFIVE_PRECISION=bfloat16 or TOPFIVE_DEVICE=cpu"
        )


class LoadFailedError(RuntimeError):
    """A checkpoint could not be loaded, now or a moment ago.

    Args:
        text: for the caller.
        retry_after_s: seconds until the next attempt; None if no attempt can succeed with this file.
        slug: the kind of problem, where one is more specific than ``load-failed``.
    """

    def __init__(self, text: str, retry_after_s: float | None, slug: str | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s
        self.slug = slug


class InUseError(RuntimeError):
    """A checkpoint cannot be unloaded because it has requests in flight or is pinned."""


class DeadlineMissedError(RuntimeError):
    """The deadline passed, or was certain to pass, before the forward pass."""


class NotReadyError(RuntimeError):
    """The service is starting or stopping."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem, a row of the table. Clients switch on its URI, ``/problems/<slug>``."""

    slug: str
    status: int
    title: str
    mend: str

    @property
    def type(self) -> str:
        return f"/problems/{self.slug}"


OUT_OF_MEMORY = Problem(
    "out-of-memory", 503, "Out of device memory", "Ask the operator; the detail says what would make room."
)
TABLE: dict[type[Exception], Problem] = {
    BadParameterError: Problem(
        "bad-parameter", 400, "Unknown or bad query parameter", "Correct the parameter that the detail names."
    ),
    BadBodyError: Problem(
        "bad-body",
        400,
        "Broken JSON, base64 or multipart",
        "Send a picture's bytes, multipart, or JSON with base64.",
    ),
    NoPictureError: Problem(
        "no-picture",
        400,
        "No picture in the body",
        "Send the bytes of one picture, or a multipart part with a file name.",
    ),
    ForbiddenError: Problem(
        "forbidden",
        403,
        "Only for callers on this machine",
        "Send it to localhost from a shell on the service's machine; the detail says what was in the way.",
    ),
    UnauthorizedError: Problem(
        "unauthorized",
        401,
        "A key is needed",
        "Send a key, as Authorization: Bearer KEY or X-API-Key: KEY; the operator makes it with topfive keys add.",
    ),
    RoleError: Problem(
        "role-too-small",
        403,
        "The key's role does not allow this",
        "Ask the operator for a key with the role that the detail names.",
    ),
    UnknownModelError: Problem(
        "unknown-model",
        404,
        "Unknown model",
        "Name one of the models that the detail lists; GET /models has them all.",
    ),
    BodyTooSlowError: Problem("slow-body", 408, "Body too slow", "Send the request again, its body without pauses."),
    BodyTooLargeError: Problem(
        "body-too-large", 413, "Body too large", "Send a smaller picture, or raise TOPFIVE_MAX_BODY_MB."
    ),
    UnsupportedEncodingError: Problem(
        "unsupported-encoding",
        415,
        "A content coding that is not decoded",
        "Send the body as it is, or in gzip or deflate.",
    ),
    UnsupportedFormatError: Problem(
        "unsupported-format",
        415,
        "A kind of file that is not decoded",
        "Convert it to JPEG, PNG, WebP, GIF or BMP.",
    ),
    UndecodableError: Problem(
        "undecodable", 422, "No picture in these bytes", "Send a whole JPEG, PNG, WebP, GIF or BMP file."
    ),
    TooManyPixelsError: Problem(
        "too-many-pixels", 422, "Too many pixels", "Send a smaller picture, or raise TOPFIVE_MAX_PIXELS."
    ),
    TooManyPartsError: Problem(
        "too-many-parts",
        422,
        "Too many parts in a picture's file",
        "Save the picture anew: a JPEG as baseline, not as progressive.",
    ),
    TooMuchWorkError: Problem(
        "too-much-work",
        422,
        "Too much work to decode",
        "Send the picture smaller or as a baseline JPEG, or raise TOPFIVE_MAX_DECODE_MS or TOPFIVE_MAX_DECODE_MB.",
    ),
    NoModelFitsError: Problem(
        "no-model-fits", 422, "No model fits the budget", "Widen the budget; the detail says what is nearest."
    ),
    OverloadedError: Problem("overloaded", 429, "Overloaded", "Send the request again after Retry-After seconds."),
    RateLimitedError: Problem(
        "rate-limited",
        429,
        "Over the caller's rate",
        "Send the request again after Retry-After seconds; the operator sets the rates.",
    ),
    WeightsMissingError: Problem(
        "weights-missing", 503, "Weights missing", "Run the command in the detail; no restart is needed."
    ),
    WrongWeightsError: Problem(
        "weights-damaged", 503, "Weights damaged", "Import the weights again; the detail names the file."
    ),
    LoadFailedError: Problem(
        "load-failed",
        503,
        "The network could not be loaded",
        "Name another model, or send the request again after Retry-After seconds.",
    ),
    OutOfDeviceMemoryError: OUT_OF_MEMORY,
    MemoryLimitError: OUT_OF_MEMORY,
    InUseError: Problem("in-use", 409, "In use", "Unload it once it is idle, or with wait=true; what is pinned stays."),
    NotReadyError: Problem("not-ready", 503, "Not ready", "Wait until GET /readyz answers 200."),
    DeadlineMissedError: Problem(
        "deadline-missed", 504, "Deadline missed", "Allow more time (latency_ms), or send less at once."
    ),
}
NOT_FOUND = Problem("not-found", 404, "No such path", "GET /docs lists the paths.")
METHOD_NOT_ALLOWED = Problem("method-not-allowed", 405, "Method not allowed", "GET /docs lists the methods of a path.")
BAD_REQUEST = Problem("bad-request", 400, "Not a valid HTTP request", "Send HTTP/1.1, as any HTTP client does.")
SLOW_REQUEST = Problem("slow-request", 408, "Request too slow", "Send the request again, its headers at once.")
HEADERS_TOO_LARGE = Problem(
    "headers-too-large", 431, "Too large or too many headers", "Send fewer cookies, headers or query parameters."
)
INTERNAL = Problem(
    "internal", 500, "A defect of the service", "Not the request's fault. The service's log has the cause."
)
SLOW_BODY = TABLE[BodyTooSlowError].slug
UNSUPPORTED_ENCODING = TABLE[UnsupportedEncodingError].slug
OVERLOADED = TABLE[OverloadedError].slug
UNAUTHORIZED, ROLE_TOO_SMALL = TABLE[UnauthorizedError].slug, TABLE[RoleError].slug
RATE_LIMITED = TABLE[RateLimitedError].slug
DEADLINE_MISSED = TABLE[DeadlineMissedError].slug
LOAD_FAILED = TABLE[LoadFailedError].slug
_BESIDE = (NOT_FOUND, METHOD_NOT_ALLOWED, BAD_REQUEST, SLOW_REQUEST, HEADERS_TOO_LARGE, INTERNAL)
PROBLEMS: dict[str, Problem] = {row.slug: row for row in (*TABLE.values(), *_BESIDE)}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a value: plain data that crosses processes, never a traceback."""

    slug: str
    detail: str
    extras: dict[str, Any] = field(default_factory=dict)
    model: str | None = field(default=None, compare=False)
    """The model that the router had decided on, if it had."""

    @property
    def problem(self) -> Problem:
        return PROBLEMS[self.slug]

    @property
    def status(self) -> int:
        return self.problem.status


class FailedElsewhereError(RuntimeError):
    """Another process reported a failure.

    Args:
        failure: what it reported.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def failure_of(error: Exception) -> Failure:
    """An exception as a value, by the table. One that is not in the table is a defect, whose text no client sees."""
    if isinstance(error, FailedElsewhereError):
        return error.failure
    for kind in type(error).__mro__:
        row = TABLE.get(kind)
        if row is not None:
            slug = error.slug if isinstance(error, LoadFailedError) else None
            return Failure(slug or row.slug, str(error), _extras(error))
    return Failure(INTERNAL.slug, "the service failed on this request; its log has the cause")


def known_failure(error: Exception, message: str = "unexpected error") -> Failure:
    """An error as a value; a defect of ours goes to the log, whole, and to the client in one plain sentence.

    Args:
        error: the exception that was raised.
        message: for the log, where it is a defect of ours.
    """
    failure = failure_of(error)
    if failure.problem is INTERNAL:
        log.error("%s", message, exc_info=error)
    return failure


def of_a_load(outcome: object) -> bool:
    """Whether a load failed, so that another checkpoint may answer instead."""
    if not isinstance(outcome, Failure):
        return False
    if outcome.slug in (LOAD_FAILED, TABLE[WrongWeightsError].slug, TABLE[WeightsMissingError].slug):
        return True
    # Memory that runs out in a forward pass has the same slug, but no time to come back.
    return outcome.slug == OUT_OF_MEMORY.slug and "retry_after_ms" in outcome.extras


def problem_document(failure: Failure) -> dict[str, Any]:
    """The members of RFC 9457's problem document, and those that the kind of problem adds."""
    problem = failure.problem
    return {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": failure.detail,
        **failure.extras,
    }


def _extras(error: Exception) -> dict[str, Any]:
    match error:
        case LoadFailedError():
            return {} if error.retry_after_s is None else {"retry_after_ms": _retry_ms(error.retry_after_s)}
        case RateLimitedError():
            quota = {} if error.quota is None else {"quota": {"pictures": error.quota[0], "seconds": error.quota[1]}}
            return {"retry_after_ms": _retry_ms(error.retry_after_s), **quota}
        case UnauthorizedError():
            return {"wrong": True} if error.wrong else {}
        case OverloadedError():
            return {"retry_after_ms": round(error.retry_after_s * 1000, 1), **_considered(error.considered)}
        case NoModelFitsError():
            return _considered(error.considered)
        case UnknownModelError():
            return {"known": error.known}
        case WeightsMissingError():
            return {"mend": error.checkpoint.mend}
        case _:
            return {}


def _retry_ms(seconds: float) -> float:
    return round(max(1.0, seconds * 1000), 1)


def _considered(entries: Sequence[Considered]) -> dict[str, Any]:
    return {"considered": [entry.model_dump() for entry in entries]} if entries else {}
