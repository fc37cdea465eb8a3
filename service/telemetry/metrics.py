"""Every metric of the service, declared once.

``model`` is a variant of the catalogue, as in an answer's ``model``; ``none`` where no checkpoint was decided on,
``several`` for a bulk answer of more than one, and ``ensemble`` for every ensemble, whose members' batches are counted
as theirs. Nothing that a client sends ever becomes a label's value. A process records what happens in it: the ingress
requests and decisions, and the phases' times, which ride on the result; the process of a predictor its batches, loads
and evictions. In the ``local`` fleet these are one process.

What stands still until it is asked for (queues, memory) is not kept up to date here but read when Prometheus asks:
``live.py``. ``recording.py`` is what the request path calls. ``exposition.py`` serves all of it.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

#: The moment in which each series began: twice the size of every answer, for what Prometheus does not store.
disable_created_metrics()  # type: ignore[no-untyped-call]
#: Of this process. Not the library's default one, in which Ray registers its own.
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

#: From half a millisecond, LeNet-5's forward pass, to the 30 seconds after which nobody waits any more.
_SECONDS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30,
)  # fmt: skip
#: Around 1, where a prediction is right; the service's own aim is to be within a fifth.
_RATIOS = (0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4)

REQUESTS = Counter(
    "topfive_requests_total",
    "Requests to /classify that were answered, by HTTP status and by the problem's name ('ok'; 'partial' for a bulk "
    "answer with problems in it; 'gone' where the caller went first).",
    ["model", "status", "reason"],
    registry=REGISTRY,
)
PICTURES = Counter(
    "topfive_pictures_total",
    "Pictures of those requests, up to 64 in a bulk request, each with a status and a reason of its own.",
    ["model", "status", "reason"],
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "topfive_request_seconds",
    "From the end of a request's body until its answer, of requests answered with 200.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
DECODE_SECONDS = Histogram(
    "topfive_decode_seconds",
    "Decoding, the wait for a thread among it, of each picture that was classified.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
QUEUE_SECONDS = Histogram(
    "topfive_queue_seconds",
    "Between decoding and the forward pass, of each picture that was classified.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
FORWARD_SECONDS = Histogram(
    "topfive_forward_seconds",
    "The forward pass that a picture was in, of each picture that was classified.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
BUDGET_USED = Histogram(
    "topfive_budget_used_ratio",
    "Time that a picture took over the time that it was allowed, of those let in: above 1 it was late, as is every "
    "picture that was dropped for its deadline.",
    ["model"],
    buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.5, 2),
    registry=REGISTRY,
)

ROUTED = Counter(
    "topfive_routed_total",
    "Decisions for a picture: 'named' by the caller, 'most accurate' of what there are weights for, or else what stood "
    "in the way of a more accurate checkpoint: 'latency', 'memory', a queue ('overloaded'), or that it was 'not "
    "loaded' and loading it would have taken too long.",
    ["model", "reason"],
    registry=REGISTRY,
)
PREDICTED_RATIO = Histogram(
    "topfive_predicted_ratio",
    "Actual over predicted time, from the decision until the answer, of each picture that was let in.",
    ["model"],
    buckets=_RATIOS,
    registry=REGISTRY,
)
ACCURACY_DEBT = Histogram(
    "topfive_accuracy_debt",
    "Top-1 percentage points that a picture lost to queues: the most accurate checkpoint in memory that would have "
    "fitted its budget without them, less the one that the router picked.",
    buckets=(0, 0.5, 1, 2, 5, 10, 20),
    registry=REGISTRY,
)
SHED = Counter(
    "topfive_shed_total",
    "Pictures that were not classified for the load's sake: refused by the 'router' (429), refused by a full 'queue' "
    "(429), or dropped for a 'deadline' that could not be met any more (504).",
    ["reason"],
    registry=REGISTRY,
)

BATCH_SIZE = Histogram(
    "topfive_batch_size",
    "Pictures in a forward pass that gave answers; the sum is the pictures that went through the device.",
    ["model"],
    buckets=(1, 2, 4, 8, 12, 16, 24, 32, 64),
    registry=REGISTRY,
)
BATCHES = Counter(
    "topfive_batches_total",
    "Forward passes that gave answers, by what ended the batch: it was 'full', it had 'drained' the queue, another "
    "picture would have broken a 'deadline' in it, or it is a half of one that failed, 'bisected'.",
    ["model", "cut"],
    registry=REGISTRY,
)
DEVICE_SECONDS = Counter(
    "topfive_device_seconds_total",
    "Seconds that these forward passes held the device.",
    ["model"],
    registry=REGISTRY,
)
PROFILED_SECONDS = Counter(
    "topfive_profiled_device_seconds_total",
    "What the profile says that the same forward passes take, on a machine with nothing else to do.",
    ["model"],
    registry=REGISTRY,
)
OOM_SPLITS = Counter(
    "topfive_oom_splits_total",
    "Times that a batch did not fit into device memory, and the largest batch was halved.",
    registry=REGISTRY,
)

LOAD_SECONDS = Histogram(
    "topfive_load_seconds",
    "Loading a checkpoint into memory and warming it up.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
LOADS = Counter("topfive_loads_total", "Loads, by whether they were 'ok'.", ["model", "result"], registry=REGISTRY)
EVICTIONS = Counter(
    "topfive_evictions_total",
    "Checkpoints that left memory: another load needed the 'room', somebody 'asked', or its file was 'replaced'.",
    ["model", "reason"],
    registry=REGISTRY,
)

BUILD_INFO = Gauge(
    "topfive_build_info",
    "1, with what this process is made of.",
    ["version", "python", "torch", "onnxruntime", "ray"],
    registry=REGISTRY,
)
CUTS: Final = ("full", "drained", "deadline", "bisected")
RESULTS: Final = ("ok", "failed")
EVICTED_FOR: Final = ("room", "asked", "replaced")
SHED_BY: Final = ("router", "queue", "deadline")
ROUTED_FOR: Final = ("named", "most accurate", "latency", "memory", "overloaded", "not loaded")
#: Where there are several, of checkpoints or of processes, the largest counts and not the sum.
NOT_SUMMED: Final = frozenset({
    "topfive_queue_oldest_seconds", "topfive_footprint_bytes", "topfive_build_info", "topfive_checkpoint_info",
    "process_start_time_seconds", "process_max_fds",
})  # fmt: skip
#: Read when Prometheus asks: what it is, and its labels.
LIVE: Final = {
    "topfive_in_flight": ("Requests to /classify that are being answered.", []),
    "topfive_queue_length": ("Pictures that wait, or are being decoded.", ["model"]),
    "topfive_queue_oldest_seconds": (
        "How long the first of them has been waiting, for a load too; 0 if none is.",
        ["model"],
    ),
    "topfive_resident_bytes": ("Device memory that a loaded checkpoint is charged.", ["model"]),
    "topfive_footprint_bytes": ("What a checkpoint needs at its largest batch, measured.", ["model"]),
    "topfive_memory_limit_bytes": ("The most that loaded checkpoints may need together.", []),
    "topfive_ready": ("1 once this process serves all that it is to serve; added up, how many do.", []),
    "topfive_checkpoint_info": (
        "1 for each checkpoint that can be served here.",
        ["model", "checkpoint", "labels", "origin", "trained"],
    ),
}
