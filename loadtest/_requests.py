"""The requests of the four kinds of users, all of them built before the run."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal, NamedTuple
from urllib.parse import urlencode

Kind = Literal["classify", "budget", "bulk", "junk"]
KINDS: tuple[Kind, ...] = ("classify", "budget", "bulk", "junk")
#: The class name of each kind's Locust user.
USERS: dict[Kind, str] = {
    "classify": "ClassifyUser",
    "budget": "BudgetUser",
    "bulk": "BulkUser",
    "junk": "JunkUser",
}

#: Pictures in one request of a BulkUser.
BULK = 8
_BOUNDARY = "topfive-load-test"


class Budget(NamedTuple):
    """A class of callers by the budget that they allow."""

    query: str
    latency_ms: float


#: Interactive, batch-like, frugal and demanding callers, all equally frequent.
BUDGETS = (
    Budget("latency_ms=150", 150),
    Budget("latency_ms=250&memory_mb=250", 250),
    Budget("latency_ms=400", 400),
    Budget("latency_ms=600&min_top1=65", 600),
    Budget("latency_ms=1000", 1000),
    Budget("latency_ms=1500&memory_mb=600", 1500),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A ``POST /classify`` that is ready to be sent."""

    kind: Kind
    name: str
    """The name of its entry in Locust's tables."""
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    budget: Budget | None = None
    problem: tuple[int, str] | None = None
    """The status and the problem type that must be the answer to junk."""

    @property
    def user(self) -> str:
        return USERS[self.kind]


def requests_of(kind: Kind, pictures: list[bytes], model: str, labels: str | None, seed: int) -> Iterator[Request]:
    """The endless requests of one kind of users, who share this iterator.

    Args:
        model: the model that all but BudgetUsers name.
        labels: the label set that BudgetUsers ask for, or None for the service's choice.
    """
    path = f"/classify?{urlencode({'model': model})}"
    match kind:
        case "classify":
            name = f"{USERS[kind]} {model}"
            return cycle([Request(kind, name, path, picture) for picture in pictures])
        case "budget":
            return _budgets(pictures, labels, seed)
        case "bulk":
            return cycle(_bulk(pictures, path, f"{USERS[kind]} {model}"))
        case "junk":
            return cycle(_junk(pictures[0], path))


def _budgets(pictures: list[bytes], labels: str | None, seed: int) -> Iterator[Request]:
    suffix = "" if labels is None else "&" + urlencode({"labels": labels})
    name = USERS["budget"]
    requests = {
        budget: cycle(
            [
                Request("budget", f"{name} {budget.query}", f"/classify?{budget.query}{suffix}", picture, budget=budget)
                for picture in pictures
            ]
        )
        for budget in BUDGETS
    }
    source = random.Random(seed)  # noqa: S311 - not for secrets
    while True:
        # Shuffled rather than drawn, so that all classes are equally frequent in a short run too.
        for budget in source.sample(BUDGETS, len(BUDGETS)):
            yield next(requests[budget])


def _bulk(pictures: list[bytes], path: str, name: str) -> list[Request]:
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    following = cycle(pictures)
    return [
        Request("bulk", name, path, _multipart([next(following) for _ in range(BULK)]), headers)
        for _ in range(max(1, len(pictures) // BULK))
    ]


def _multipart(pictures: list[bytes]) -> bytes:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{number}"\r\n\r\n'.encode()
        + picture
        + b"\r\n"
        for number, picture in enumerate(pictures)
    ]
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def _junk(picture: bytes, path: str) -> list[Request]:
    text = base64.b64encode(picture[:300]).decode()
    json = {"Content-Type": "application/json"}
    undecodable, no_picture, bad_body = (422, "undecodable"), (400, "no-picture"), (400, "bad-body")
    table: list[tuple[str, bytes, dict[str, str], tuple[int, str]]] = [
        ("text", b"This is not a picture.\n" * 20, {}, undecodable),
        ("truncated", picture[: len(picture) // 2], {}, undecodable),
        ("pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n", {}, (415, "unsupported-format")),
        ("empty", b"", {}, no_picture),
        ("base64", f'{{"image": "{text[:-5]}*?"}}'.encode(), json, bad_body),
    ]
    return [
        Request("junk", f"{USERS['junk']} {name}", path, body, headers, problem=(status, f"/problems/{slug}"))
        for name, body, headers, (status, slug) in table
    ]
