"""Batching and device: how pictures become batches, how long they wait, and what the device makes of them."""

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
    """Does the device work as fast as measured, and are batches as large as the load lets them be?"""
    return board(
        "topfive-batching",
        "How pictures become batches, how long they wait, and whether the device is as fast as its profile says.",
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
            "Pictures in a forward pass. About 1 is a device with time to spare; it grows with the load, up to the "
            "largest batch.",
            q.mean("topfive_batch_size"),
            COUNT,
            steps("text"),
            1,
        ),
        number(
            "Pictures",
            "Pictures a second through the device.",
            q.rate("topfive_batch_size_sum"),
            PICTURES,
            steps("text"),
            1,
        ),
        number(
            "Busiest device",
            "Share of the time in which forward passes hold the device, in the process where that is most. From "
            "90 % on there is no room: queues grow, and the router refuses.",
            f"max({busiest})",
            SHARE,
            steps("green", (0.75, "yellow"), (0.9, "red")),
            0,
        ),
        number(
            "Against the profile",
            "Time that forward passes take over what the profile says of a machine that does nothing else. On a GPU "
            "good is about 1. On a CPU it rises under load, since decoding takes its share of the same cores. When "
            "there is little load, above 1.2 something else uses the machine, or the profile is out of date ('topfive "
            "profile' measures anew).",
            q.ratio(_DEVICE, _PROFILED),
            TIMES,
            _SLOWER,
            2,
        ),
        number(
            "Oldest in a queue",
            "How long the first picture of any queue has been waiting. Good is less than the budgets that callers "
            "give, and that it comes back to 0.",
            f"max(topfive_queue_oldest_seconds{{{q.MODEL}}})",
            SECONDS,
            steps("green", (1, "yellow"), (5, "red")),
        ),
        number(
            "Out of memory",
            "Times, in what is shown, that a batch did not fit into device memory and the largest batch was halved. "
            "Good is 0: each one makes batches smaller for good.",
            q.increase("topfive_oom_splits_total", q.DEPLOYMENT, over=q.SHOWN),
            COUNT,
            steps("green", (0.5, "red")),
            0,
        ),
    )


def _batches() -> Line:
    cuts = areas(
        "Batches by what ended them",
        "Forward passes a second: 'drained' took all that waited, with room for more; 'full' held as many pictures as "
        "pay in one batch of that network, which may be a single one; 'deadline' left a picture out that would have "
        "been late; 'bisected' are halves of a batch that failed.",
        queries((q.rate("topfive_batches_total", by="cut"), "{{cut}}")),
        PICTURES,
    )
    return Line(
        9,
        buckets(
            "Batch sizes",
            "How many batches of each size there were, by colour; each row reaches down to the one below. The upper "
            "rows light up when there is load.",
            q.increase("topfive_batch_size_bucket", by="le"),
            COUNT,
        ),
        of_models(
            lines(
                "Mean batch by model",
                "Pictures in a forward pass. Under load it grows as far as larger batches give more pictures a second, "
                "which the service finds out while it serves. A network that stays at 1 under load gains nothing from "
                "batches on this device, as many do on a CPU, or its callers wait for an answer before they send the "
                "next picture.",
                queries((q.mean("topfive_batch_size", by="model"), "{{model}}")),
                COUNT,
            )
        ).legend(legend_table("mean", "max", "lastNotNull")),
        coloured(cuts, {"drained": "green", "full": "orange", "deadline": "red", "bisected": "purple"}),
    )


def _queue() -> Line:
    phases = areas(
        "A picture's time by phase",
        "Mean seconds that a classified picture spends being decoded, waiting for its forward pass, and in it. With "
        "room to spare the queue is the thinnest of the three.",
        queries(*((q.mean(f"topfive_{phase}_seconds"), phase) for phase in _PHASES)),
        SECONDS,
    )
    return Line(
        8,
        of_models(
            areas(
                "Queue by model",
                "Pictures that wait, or are being decoded. Good are peaks that go away; a slope is more load than the "
                "device can take.",
                queries((q.total(f"topfive_queue_length{{{q.MODEL}}}", "model"), "{{model}}")),
                COUNT,
            )
        ),
        of_models(
            lines(
                "Oldest picture by model",
                "How long the first picture of each queue has been waiting. A plateau is a checkpoint being loaded, or "
                "a device held by a large batch of another network.",
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
                "Devices that forward passes hold, by network: 100 % is one device that is always busy. Who takes the "
                "most is who makes the others wait.",
                queries((q.some(q.rate(_DEVICE, by="model")), "{{model}}")),
                SHARE,
            )
        ),
        limit(
            of_models(
                lines(
                    "Forward passes against the profile",
                    "Time that they take over what the profile says of the same batches on a machine that does nothing "
                    "else. Above the dashed line the first predictions after a quiet time are off by more than a "
                    "fifth; they adapt while there is load.",
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
                "Pictures a second through the device.",
                queries((q.some(q.rate("topfive_batch_size_sum", by="model")), "{{model}}")),
                PICTURES,
            )
        ),
        bars(
            "Out of memory",
            "Batches that did not fit into device memory, when they happened. Good is an empty panel.",
            queries((q.increase("topfive_oom_splits_total", q.DEPLOYMENT, "deployment"), "{{deployment}}")),
            COUNT,
        ),
    )


def _phases() -> Line:
    p95 = lines(
        "Phases, p95",
        "95 of 100 classified pictures take less in each phase. A queue far above the forward pass is load; decoding "
        "far above it is large pictures, or too few threads.",
        queries(*((q.quantile(0.95, f"topfive_{phase}_seconds"), phase) for phase in _PHASES)),
        SECONDS,
    )
    return Line(
        8,
        coloured(p95, _PHASE_COLOURS).legend(legend_table("mean", "max", "lastNotNull")),
        rows(
            "Phases by model",
            "Mean time in each phase of the pictures classified in what is shown. Compare a network's queue with its "
            "forward pass: more than a few times as long is a network that others are in the way of.",
            [q.mean(f"topfive_{phase}_seconds", by="model", over=q.SHOWN) for phase in _PHASES],
            {"model": "Model", "Value #A": "Decode", "Value #B": "Queue", "Value #C": "Forward"},
            SECONDS,
            "Model",
        ),
    )
