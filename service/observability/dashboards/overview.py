"""The dashboard "Overview": the four golden signals (traffic, errors, latency, saturation), and what runs."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from service.observability.dashboards import queries as q
from service.observability.dashboards.board import Line, board
from service.observability.dashboards.charts import areas, by_status, limit, lines
from service.observability.dashboards.figures import number
from service.observability.dashboards.panels import (
    BYTES,
    COUNT,
    PICTURES,
    REQUESTS,
    SECONDS,
    SHARE,
    legend_table,
    of_models,
    queries,
    steps,
)
from service.observability.dashboards.running import running

_REQUESTS = "topfive_requests_total"
_FAILED = f'{q.MODEL},status=~"5.."'
_REFUSED = f'{q.MODEL},status="429"'
_IN_TIME = f'{q.MODEL},le="1.0"'


def overview() -> Dashboard:
    """The dashboard. Is the service well? The numbers at the top answer that; the panels below say since when, and for
    which networks."""
    return board(
        "topfive-overview",
        "Is the service well? Traffic, errors, latency, saturation, and what runs. Look here first.",
        {
            "Now": [_now()],
            "Traffic and errors": [_traffic()],
            "Latency": [_latency()],
            "Saturation": [_saturation()],
            "What runs": [running()],
        },
    )


def _now() -> Line:
    kept = f"{q.rate('topfive_budget_used_ratio_bucket', _IN_TIME)} / {q.rate('topfive_budget_used_ratio_count')}"
    return Line(
        4,
        number(
            "Requests",
            "Requests to /classify answered per second, whatever the answer. If it is 0 although the service should "
            "have callers, look at the replicas, then at what is in front of them.",
            q.rate(_REQUESTS),
            REQUESTS,
            steps("text"),
            1,
        ),
        number(
            "Failed",
            "Share of requests answered with a 5xx: not ready, weights missing, deadline missed, or a fault of the "
            "service. It should be 0; from 1 % on somebody should look.",
            f"{q.or_zero(q.rate(_REQUESTS, _FAILED))} / {q.rate(_REQUESTS)}",
            SHARE,
            steps("green", (0.001, "yellow"), (0.01, "red")),
            2,
        ),
        number(
            "Refused",
            "Share of requests answered with 429: more arrive than can be answered in time. A little in a peak is "
            "normal; for long it means that capacity is missing.",
            f"{q.or_zero(q.rate(_REQUESTS, _REFUSED))} / {q.rate(_REQUESTS)}",
            SHARE,
            steps("green", (0.01, "yellow"), (0.1, "red")),
            2,
        ),
        number(
            "Latency, p99",
            "99 of 100 answered requests take less, from their arrival to the answer. Whether that is good depends on "
            "the callers' budgets: see 'Budget kept'.",
            q.quantile(0.99, "topfive_request_seconds"),
            SECONDS,
            steps("text"),
        ),
        number(
            "Budget kept",
            "Share of the admitted pictures that were answered within their budget. The objective is 99 %.",
            kept,
            SHARE,
            steps("red", (0.95, "yellow"), (0.99, "green")),
            1,
        ),
        number(
            "In flight",
            "Requests that are being answered now.",
            q.total(f"topfive_in_flight{{{q.DEPLOYMENT}}}"),
            COUNT,
            steps("text"),
            0,
        ),
        number(
            "Queue",
            "Pictures that wait for a forward pass or are being decoded. A queue should become empty again and again.",
            q.total(f"topfive_queue_length{{{q.MODEL}}}"),
            COUNT,
            steps("text"),
            0,
        ),
        number(
            "Ready replicas",
            "Processes that serve everything they should serve. At 0 nobody gets an answer.",
            q.or_zero(q.total(f"topfive_ready{{{q.DEPLOYMENT}}}")),
            COUNT,
            steps("red", (1, "green")),
            0,
        ),
    )


def _traffic() -> Line:
    by_answer = lines(
        "Requests by answer",
        "Requests per second by HTTP status and name of the problem. 4xx are mistakes of callers, 429 is too much "
        "load, 5xx (red) are faults of the service; 'gone': the caller left before the answer was ready.",
        queries((q.some(q.rate(_REQUESTS, by="status, reason")), "{{status}} {{reason}}")),
        REQUESTS,
    )
    return Line(
        8,
        of_models(
            areas(
                "Requests by model",
                "Requests per second by the network that answered: 'none' if no network was chosen, 'several' for bulk"
                " requests that more than one answered, 'ensemble' for any ensemble.",
                queries((q.some(q.rate(_REQUESTS, by="model")), "{{model}}")),
                REQUESTS,
            )
        ),
        by_status(by_answer),
        by_status(
            lines(
                "Pictures without labels",
                "Pictures per second that were not classified, by the answer that they got; those of bulk requests "
                "too. The panel should be empty.",
                queries(
                    (
                        q.some(q.rate("topfive_pictures_total", f'{q.MODEL},status!="200"', "status, reason")),
                        "{{status}} {{reason}}",
                    )
                ),
                PICTURES,
            )
        ).no_value("Every picture was classified."),
    )


def _latency() -> Line:
    kept = q.rate("topfive_budget_used_ratio_bucket", _IN_TIME, "model")
    let_in = q.some(q.rate("topfive_budget_used_ratio_count", by="model"))
    return Line(
        8,
        *(
            of_models(
                lines(
                    f"Latency by model, p{which * 100:g}",
                    description,
                    queries((q.some(q.quantile(which, "topfive_request_seconds", by="model")), "{{model}}")),
                    SECONDS,
                )
            ).legend(legend_table("mean", "max", "lastNotNull"))
            for which, description in (
                (
                    0.5,
                    "Half of the answered requests take less. The line should be level; one that climbs with the "
                    "traffic means that a queue builds up.",
                ),
                (
                    0.99,
                    "99 of 100 answered requests take less. If it is far above the p50, pictures wait for batches of "
                    "other networks, or for a checkpoint that is being loaded.",
                ),
            )
        ),
        limit(
            of_models(
                lines(
                    "Budget kept by model",
                    "Share of the admitted pictures that were answered within their budget; the dashed line is the "
                    "objective of 99 %. Below it callers wait longer than they allowed.",
                    queries((f"{kept} / ({let_in})", "{{model}}")),
                    SHARE,
                    lowest=None,
                )
            )
            .max(1)
            .axis_soft_min(0.9)
            .legend(legend_table("min", "lastNotNull")),
            steps("transparent", (0.99, "orange")),
        ),
    )


def _saturation() -> Line:
    process = "{{deployment}} {{replica}}"
    by_process = "deployment, replica"
    return Line(
        8,
        lines(
            "In flight and in the queue",
            "Requests that are being answered, and their pictures that wait. The two climb together when more arrive "
            "than the device can take.",
            queries(
                (q.total(f"topfive_in_flight{{{q.DEPLOYMENT}}}"), "requests in flight"),
                (q.total(f"topfive_queue_length{{{q.MODEL}}}"), "pictures in queues"),
            ),
            COUNT,
        ),
        lines(
            "CPU by process",
            "Cores that each process keeps busy. On a machine without a GPU forward passes use most of them; at the "
            "number of cores the machine is full.",
            queries((q.rate("process_cpu_seconds_total", q.OURS, by_process), process)),
            "suffix: cores",
        ),
        lines(
            "Memory by process",
            "Resident memory of each process, including libraries and code. A line that climbs while the same networks"
            " are loaded is a leak.",
            queries((q.total(f"process_resident_memory_bytes{{{q.OURS}}}", by_process), process)),
            BYTES,
        ),
        lines(
            "Replicas",
            "Processes that are ready, and processes that Prometheus knows, by deployment. A gap between the two is a "
            "process that is starting, or is lost.",
            queries(
                (q.total(f"topfive_ready{{{q.DEPLOYMENT}}}", "deployment"), "{{deployment}} ready"),
                (f"count by (deployment) (up{{{q.OURS}}})", "{{deployment}} known"),
            ),
            COUNT,
        ).decimals(0),
    )
