"""Every metric of the service, declared once.

``model`` is a variant's name, as in an answer; ``none`` where no checkpoint was chosen, ``several`` for a bulk answer
of more than one, and ``ensemble`` for every ensemble, whose members' batches count under their own names. Nothing that
a client sends becomes a label's value.

A process counts what happens in it. The ingress counts requests, decisions and the times of phases, which come with the
result; the process of a predictor counts batches, loads and evictions. In the ``local`` fleet these are one process.

``recorder.py`` updates these metrics; those in ``LIVE`` are read at a scrape instead, by ``gauges.py``.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from service.telemetry.series import Counter, Histogram

#: The metrics of this process. Ray registers its own in the library's default registry.
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

#: From half a millisecond, LeNet-5's forward pass, to 30 seconds, the default limit of a request.
_SECONDS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30,
)  # fmt: skip
#: Around 1, where a prediction is exact.
_RATIOS = (0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4)

REQUESTS = Counter(
    "topfive_requests_total",
    "Requests to /classify, by HTTP status and by reason: 'ok', the problem's name, 'partial' for a bulk answer "
    "that contains problems, or 'gone' if the caller disconnected first.",
    ["model", "status", "reason"],
    registry=REGISTRY,
)
PICTURES = Counter(
    "topfive_pictures_total",
    "Pictures of those requests, of which a bulk request has up to 64, each with a status and a reason of its own.",
    ["model", "status", "reason"],
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "topfive_request_seconds",
    "From the end of a request's body to its answer, of requests answered with 200.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
DECODE_SECONDS = Histogram(
    "topfive_decode_seconds",
    "Decoding of each picture that was classified, including the wait for a thread.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
QUEUE_SECONDS = Histogram(
    "topfive_queue_seconds",
    "Wait between decoding and the forward pass, of each picture that was classified.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
FORWARD_SECONDS = Histogram(
    "topfive_forward_seconds",
    "Duration of the forward pass that a picture was in, of each picture that was classified.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
BUDGET_USED = Histogram(
    "topfive_budget_used_ratio",
    "Time that a picture took over the time it was allowed, of pictures that were let in. Above 1 a picture was "
    "late; one that was dropped for its deadline always counts as late.",
    ["model"],
    buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.5, 2),
    registry=REGISTRY,
)

ROUTED = Counter(
    "topfive_routed_total",
    "Decisions for a picture: 'named' by the caller, 'most accurate' of the checkpoints with weights, or else "
    "what ruled out a more accurate checkpoint: 'latency', 'memory', a queue ('overloaded'), or a load that would "
    "have taken too long ('not loaded').",
    ["model", "reason"],
    registry=REGISTRY,
)
PREDICTED_RATIO = Histogram(
    "topfive_predicted_ratio",
    "Actual over predicted time from the decision to the answer, of each picture that was let in by a prediction.",
    ["model"],
    buckets=_RATIOS,
    registry=REGISTRY,
)
ACCURACY_DEBT = Histogram(
    "topfive_accuracy_debt",
    "Top-1 percentage points that a picture lost to queues: the most accurate checkpoint in memory that would "
    "have fitted its budget without them, minus the one that the router picked.",
    buckets=(0, 0.5, 1, 2, 5, 10, 20),
    registry=REGISTRY,
)
SHED = Counter(
    "topfive_shed_total",
    "Pictures that were not classified because of the load: refused by the 'router' (429), refused by a full "
    "'queue' (429), or dropped for a 'deadline' that could no longer be met (504).",
    ["reason"],
    registry=REGISTRY,
)

BATCH_SIZE = Histogram(
    "topfive_batch_size",
    "Pictures in a forward pass that gave answers; the sum is the number of pictures that the device computed.",
    ["model"],
    buckets=(1, 2, 4, 8, 12, 16, 24, 32, 64, 128),
    registry=REGISTRY,
)
BATCHES = Counter(
    "topfive_batches_total",
    "Forward passes that gave answers, by what ended the batch: it was 'full', it had 'drained' the queue, or "
    "another picture would have broken a 'deadline' in it. 'bisected' stays 0: a batch that fails is run again whole.",
    ["model", "cut"],
    registry=REGISTRY,
)
DEVICE_SECONDS = Counter(
    "topfive_device_seconds_total",
    "Seconds for which these forward passes held the device.",
    ["model"],
    registry=REGISTRY,
)
PROFILED_SECONDS = Counter(
    "topfive_profiled_device_seconds_total",
    "Seconds that the same forward passes take by the profile, on a machine that does nothing else.",
    ["model"],
    registry=REGISTRY,
)

LOAD_SECONDS = Histogram(
    "topfive_load_seconds",
    "Loading a checkpoint into memory and warming it up.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
LOADS = Counter(
    "topfive_loads_total",
    "Loads, by result: 'ok' from a file, 'woken' from weights that were parked in host memory, or 'failed'.",
    ["model", "result"],
    registry=REGISTRY,
)
EVICTIONS = Counter(
    "topfive_evictions_total",
    "Checkpoints that left memory: another load needed the 'room', somebody 'asked', or the file was 'replaced'.",
    ["model", "reason"],
    registry=REGISTRY,
)

BUILD_INFO = Gauge(
    "topfive_build_info",
    "1; the labels are the versions in this process.",
    ["version", "python", "torch", "onnxruntime", "ray"],
    registry=REGISTRY,
)
CUTS: Final = ("full", "drained", "deadline", "bisected")
RESULTS: Final = ("ok", "woken", "failed")
EVICTED_FOR: Final = ("room", "asked", "replaced")
SHED_BY: Final = ("router", "queue", "deadline")
ROUTED_FOR: Final = ("named", "most accurate", "latency", "memory", "overloaded", "not loaded")
#: Of several checkpoints or processes, the largest value counts and not the sum.
NOT_SUMMED: Final = frozenset({
    "topfive_queue_oldest_seconds", "topfive_footprint_bytes", "topfive_build_info", "topfive_checkpoint_info",
    "process_start_time_seconds", "process_max_fds",
})  # fmt: skip
#: Read at a scrape: text and labels by name. Names that end in ``_total`` are counters, all others gauges.
LIVE: Final[dict[str, tuple[str, list[str]]]] = {
    "topfive_oom_splits_total": (
        "Times that a batch did not fit into device memory, so that the largest batch was halved.",
        [],
    ),
    "topfive_in_flight": ("Requests to /classify that are being answered.", []),
    "topfive_queue_length": ("Pictures that wait or are being decoded.", ["model"]),
    "topfive_queue_oldest_seconds": (
        "How long the oldest of these pictures has been waiting, also for a load; 0 if none is.",
        ["model"],
    ),
    "topfive_resident_bytes": ("Device memory that a loaded checkpoint is charged for.", ["model"]),
    "topfive_parked_bytes": (
        "Host memory that holds the weights of a checkpoint which had to leave the device's.",
        ["model"],
    ),
    "topfive_parked_limit_bytes": ("The most host memory that parked weights may take together; 0 on a CPU.", []),
    "topfive_footprint_bytes": ("Memory that a checkpoint needs at its largest batch, measured.", ["model"]),
    "topfive_memory_limit_bytes": ("The most memory that loaded checkpoints may need together.", []),
    "topfive_ready": (
        "1 once this process serves everything that it is to serve; the sum is the number of ready processes.",
        [],
    ),
    "topfive_checkpoint_info": (
        "1 for each checkpoint that can be served here.",
        ["model", "checkpoint", "labels", "origin", "trained"],
    ),
}
