"""A picture that was classified, and the protocol of whatever classifies it: this process, or a device owner."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from service.domain.decision import Routing
from service.domain.errors import Failure
from service.domain.picture import Picture
from service.domain.prediction import Prediction
from service.domain.query import Query


class Served(Protocol):
    """What an answer says of the checkpoint or the ensemble that it comes from. An ensemble also has ``members``."""

    @property
    def model(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def trained(self) -> bool: ...
    @property
    def top1(self) -> float | None: ...


class Classified(NamedTuple):
    """A picture that was classified."""

    prediction: Prediction
    served: Served
    """Which checkpoint answered."""
    routing: Routing | None
    """Why it answered; None where the caller named a model without a budget."""
    total_s: float
    """From the arrival of the picture's last byte until the prediction."""


class Asking(Protocol):
    """One request, whose pictures are classified one by one."""

    @property
    def named(self) -> str | None:
        """The model that the caller named, as answers name it; None if none was named, or while it is unknown."""
        ...

    async def classify(self, picture: bytes | Picture) -> Classified | Failure:
        """Classifies one picture. Returns errors as values, since each picture of a request has its own answer.

        Raises:
            Exception: an error of the query, as of ``Classifies.begin``.
        """
        ...

    async def check(self) -> None:
        """Makes sure of the query without a picture: for requests none of whose pictures can be read.

        Raises:
            Exception: an error of the query, as of ``Classifies.begin``.
        """
        ...


class Classifies(Protocol):
    """Classifies the pictures of requests."""

    def begin(self, query: Query, arrived: float, caller: str = "") -> Asking:
        """Begins a request.

        Args:
            query: the caller's request.
            arrived: when the body's last byte arrived, on the monotonic clock; the budget begins here.
            caller: who asks, as ``http/callers.py`` tells callers apart. All requests without one are one caller's.

        Raises:
            Exception: the query cannot be answered whatever the pictures are: the model does not exist, or has no
                weights. Such an error fails the request as a whole.
        """
        ...
