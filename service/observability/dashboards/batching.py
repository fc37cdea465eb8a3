"""The dashboard "Batching and device": batch sizes, waiting times and the speed of the device."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from service.observability.dashboards import queries as q
from service.observability.dashboards.board import Line, board
from service.observability.dashboards.charts import areas, bars, buckets, coloured, limit, lines
from service.observability.dashboards.figures import number, rows
from service.observability.dashboards.panels import (
    COUNT,
    PICTURES,
    SECONDS,
    SHARE,
    TIMES,
    legend_table,
    of_models,
    queries,
    steps,
)

_DEVICE = "topfive_device_seconds_total"
_PROFILED = "topfive_profiled_device_seconds_total"
_PHASES = ("decode", "queue", "forward")
_PHASE_COLOURS = {"decode": "blue", "queue": "orange", "forward": "green"}
_SLOWER = steps("green", (1.2, "yellow"), (1.5, "red"))


def batching() -> Dashboard:
    """The dashboard. Is the device as fast as its profile, and are batches as large as the load allows?"""
    return board(
        "topfive-batching",
        "How large batches are, how long pictures wait, and whether the device is as fast as its profile.",
        {
            "Now": [_now()],
            "Batches": [_batches()],
            "Queue": [_queue()],
            "Device": [_device()],
            "Where the time goes": [_phases()],
        },
    )


def _now() -> Line:
    busiest = q.total(f"rate({_DEVICE}{{{q.MODEL}}}[{q.RATE}])", "deployment, replica")
    return Line(
        4,
        number(
            "Mean batch",
            "Mean number of pictures in a forward pass. About 1 means that the device has time to spare; the number "
            "grows with the load, up to the largest batch.",
            q.mean("topfive_batch_size"),
            COUNT,
            steps("text"),
            1,
        ),
        number(
            "Pictures",
            "Pictures per second that the device processes.",
            q.rate("topfive_batch_size_sum"),
            PICTURES,
            steps("text"),
            1,
        ),
        number(
            "Busiest device",
            "Share of the time in which forward passes occupy the device, for the busiest process. From 90 % on there "
            "is no room left: queues grow, and the router refuses pictures.",
            f"max({busiest})",
            SHARE,
            steps("green", (0.75, "yellow"), (0.9, "red")),
            0,
        ),
        number(
            "Against the profile",
            "Time that forward passes take, divided by what the profile says for an idle machine. On a GPU it should "
            "be about 1. On a CPU it rises under load, since decoding uses the same cores. A value above 1.2 under "
            "little load means that another program uses the machine, or that the profile is out of date ('topfive "
            "profile' measures again).",
            q.ratio(_DEVICE, _PROFILED),
            TIMES,
            _SLOWER,
            2,
        ),
        number(
            "Oldest in a queue",
            "Longest time that the first picture of any queue has waited. It should be shorter than the callers' "
            "budgets, and return to 0.",
            f"max(topfive_queue_oldest_seconds{{{q.MODEL}}})",
            SECONDS,
            steps("green", (1, "yellow"), (5, "red")),
        ),
        number(
            "Out of memory",
            "How often, in the time shown, a batch did not fit into device memory and the largest batch was halved. It"
            " should be 0: each halving is permanent.",
            q.increase("topfive_oom_splits_total", q.DEPLOYMENT, over=q.SHOWN),
            COUNT,
            steps("green", (0.5, "red")),
            0,
        ),
    )


def _batches() -> Line:
    cuts = areas(
        "Batches by what ended them",
        "Forward passes per second. 'drained': the batch took every picture that waited and had room for more. 'full':"
        " it had as many pictures as pay in one batch of that network, which may be one. 'deadline': it left out a "
        "picture that would have been late.",
        queries((q.rate("topfive_batches_total", by="cut"), "{{cut}}")),
        PICTURES,
    )
    return Line(
        9,
        buckets(
            "Batch sizes",
            "Number of batches of each size, by colour; each row reaches down to the row below. The upper rows light "
            "up under load.",
            q.increase("topfive_batch_size_bucket", by="le"),
            COUNT,
        ),
        of_models(
            lines(
                "Mean batch by model",
                "Mean number of pictures in a forward pass. Under load it grows as long as larger batches give more "
                "pictures per second, which the service finds out while it serves. A network that stays at 1 under "
                "load either gains nothing from batches on this device, as is common on a CPU, or its callers wait for"
                " each answer before they send the next picture.",
                queries((q.mean("topfive_batch_size", by="model"), "{{model}}")),
                COUNT,
            )
        ).legend(legend_table("mean", "max", "lastNotNull")),
        coloured(cuts, {"drained": "green", "full": "orange", "deadline": "red"}),
    )


def _queue() -> Line:
    phases = areas(
        "A picture's time by phase",
        "Mean seconds that a classified picture is decoded, waits for its forward pass, and is in it. As long as there"
        " is room to spare, the queue is the thinnest of the three.",
        queries(*((q.mean(f"topfive_{phase}_seconds"), phase) for phase in _PHASES)),
        SECONDS,
    )
    return Line(
        8,
        of_models(
            areas(
                "Queue by model",
                "Pictures that wait or are being decoded. Peaks should go away again; a steady rise means more load "
                "than the device can take.",
                queries((q.total(f"topfive_queue_length{{{q.MODEL}}}", "model"), "{{model}}")),
                COUNT,
            )
        ),
        of_models(
            lines(
                "Oldest picture by model",
                "How long the first picture of each queue has waited. A plateau means that a checkpoint is being "
                "loaded, or that a large batch of another network occupies the device.",
                queries((f"max by (model) (topfive_queue_oldest_seconds{{{q.MODEL}}})", "{{model}}")),
                SECONDS,
            )
        ),
        coloured(phases, _PHASE_COLOURS),
    )


def _device() -> Line:
    return Line(
        8,
        of_models(
            areas(
                "Device time by model",
                "Devices that forward passes occupy, by network: 100 % is one device that is always busy. The network "
                "with the largest share makes the others wait.",
                queries((q.some(q.rate(_DEVICE, by="model")), "{{model}}")),
                SHARE,
            )
        ),
        limit(
            of_models(
                lines(
                    "Forward passes against the profile",
                    "Time that forward passes take, divided by what the profile says for the same batches on an idle "
                    "machine. Above the dashed line the first predictions after a quiet time are off by more than a "
                    "fifth; they adapt under load.",
                    queries((q.ratio(_DEVICE, _PROFILED, by="model"), "{{model}}")),
                    TIMES,
                )
            )
            .decimals(2)
            .axis_soft_max(1.5),
            steps("transparent", (1.2, "orange")),
        ),
        of_models(
            areas(
                "Pictures by model",
                "Pictures per second that the device processes.",
                queries((q.some(q.rate("topfive_batch_size_sum", by="model")), "{{model}}")),
                PICTURES,
            )
        ),
        bars(
            "Out of memory",
            "Batches that did not fit into device memory. The panel should be empty.",
            queries((q.increase("topfive_oom_splits_total", q.DEPLOYMENT, "deployment"), "{{deployment}}")),
            COUNT,
        ),
    )


def _phases() -> Line:
    p95 = lines(
        "Phases, p95",
        "95 of 100 classified pictures take less time in each phase. A queue far above the forward pass means high "
        "load; decoding far above it means large pictures, or too few threads.",
        queries(*((q.quantile(0.95, f"topfive_{phase}_seconds"), phase) for phase in _PHASES)),
        SECONDS,
    )
    return Line(
        8,
        coloured(p95, _PHASE_COLOURS).legend(legend_table("mean", "max", "lastNotNull")),
        rows(
            "Phases by model",
            "Mean time that the pictures classified in the time shown spent in each phase. If a network's queue is "
            "more than a few times as long as its forward pass, other networks are in its way.",
            [q.mean(f"topfive_{phase}_seconds", by="model", over=q.SHOWN) for phase in _PHASES],
            {"model": "Model", "Value #A": "Decode", "Value #B": "Queue", "Value #C": "Forward"},
            SECONDS,
            "Model",
        ),
    )
