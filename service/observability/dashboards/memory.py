"""The dashboard "Memory and routing": what is in memory and what it is worth, and what the router decides."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import common as common_schema

from service.observability.dashboards import queries as q
from service.observability.dashboards.board import Line, board
from service.observability.dashboards.charts import areas, bars, dashed, in_powers_of_ten, lines, states
from service.observability.dashboards.figures import bar_gauges, dial, number, shares
from service.observability.dashboards.panels import (
    BYTES,
    COUNT,
    PICTURES,
    POINTS,
    SECONDS,
    SHARE,
    of_models,
    queries,
    steps,
)
from service.observability.dashboards.routing import decisions, predictions

_RESIDENT = f"topfive_resident_bytes{{{q.MODEL}}}"
_ALL_RESIDENT = q.total(f"topfive_resident_bytes{{{q.ANY_MODEL}}}")
_LIMIT = q.total(f"topfive_memory_limit_bytes{{{q.DEPLOYMENT}}}")
_GIB = 2**30


def memory() -> Dashboard:
    """The dashboard. Is what is in device memory worth its bytes, and are the router's predictions right?"""
    return board(
        "topfive-memory",
        "What is in device memory and whether it is worth its bytes; what the router decides and predicts.",
        {
            "Now": [_now()],
            "Memory": [_memory(), _worth(), _moves()],
            "Routing": [decisions(), predictions()],
        },
    )


def _now() -> Line:
    vgg16 = q.total(f'topfive_resident_bytes{{model="vgg16",{q.DEPLOYMENT}}}')
    shed, pictures = q.rate("topfive_shed_total", q.DEPLOYMENT), q.rate("topfive_pictures_total", q.ANY_MODEL)
    return Line(
        5,
        number(
            "Resident",
            "Device memory of the loaded checkpoints, by the ledger of residency.",
            q.total(_RESIDENT),
            BYTES,
            steps("text"),
        ),
        dial(
            "Memory limit used",
            "Resident bytes of all networks, divided by the limit. A full memory is intended as long as there are few "
            "evictions: then every network that callers ask for fits.",
            f"{_ALL_RESIDENT} / {_LIMIT}",
            steps("green", (0.8, "yellow"), (0.95, "orange")),
        ),
        dial(
            "VGG-16's share",
            "VGG-16's share of all resident bytes, whichever models are selected. It is the largest of the classic "
            "networks: near 100 % there is no room for others.",
            f"{q.or_zero(vgg16)} / {_ALL_RESIDENT}",
            steps("green", (0.5, "yellow"), (0.8, "red")),
        ),
        number(
            "Evictions",
            "Checkpoints that were unloaded to make room for others in the time shown. It should be 0; many evictions "
            "mean that networks take turns in a memory that is too small for them.",
            q.or_zero(q.increase("topfive_evictions_total", f'{q.MODEL},reason="room"', over=q.SHOWN)),
            COUNT,
            steps("green", (1, "yellow"), (10, "red")),
            0,
        ),
        number(
            "Shed",
            "Pictures that were not classified because of the load, divided by all pictures. It should be 0; more than"
            " a few per cent for long means that capacity is missing.",
            f"{shed} / {pictures}",
            SHARE,
            steps("green", (0.01, "yellow"), (0.05, "red")),
            2,
        ),
        number(
            "Accuracy debt",
            "Mean top-1 percentage points that pictures lose to queues: a faster, less accurate network answered than "
            "their budget would have allowed on an idle machine. It should be near 0.",
            q.mean("topfive_accuracy_debt", q.DEPLOYMENT),
            POINTS,
            steps("green", (1, "yellow"), (5, "red")),
            2,
        ),
    )


def _memory() -> Line:
    resident = of_models(
        areas(
            "Resident bytes by model",
            "Device memory of each loaded checkpoint, stacked, below the limit (dashed). VGG-16 has a colour of its "
            "own. A step down is an eviction, a step up a load.",
            queries((q.total(_RESIDENT, "model"), "{{model}}"), (_LIMIT, "limit")),
            BYTES,
        )
    )
    return Line(
        9,
        dashed(resident, "limit", "orange").line_interpolation(common_schema.LineInterpolation.STEP_AFTER),
        of_models(
            shares(
                "Who holds the memory",
                "Resident bytes by network, now. Compare with 'Pictures a second per GiB': a network with many bytes "
                "and few pictures should make room for others.",
                q.some(q.total(_RESIDENT, "model")),
                "{{model}}",
                BYTES,
            )
        ),
        of_models(
            bar_gauges(
                "Footprints",
                "Measured bytes that each network needs at its largest batch, loaded or not. Two networks whose bars "
                "together are longer than the memory limit cannot be loaded at once.",
                f"max by (model) (topfive_footprint_bytes{{{q.MODEL}}})",
                "{{model}}",
                BYTES,
            )
        ),
        widths=(12, 6, 6),
    )


def _worth() -> Line:
    through = q.rate("topfive_batch_size_sum", by="model")
    return Line(
        8,
        states(
            "Residency",
            "When each network was in memory. Short pieces in turn mean that networks evict each other: raise the "
            "limit, or offer fewer networks.",
            f"max by (model) ({_RESIDENT} > bool 0)",
            "{{model}}",
            {"1": ("loaded", "semi-dark-green"), "0": ("not loaded", "#2c2f36")},
        ),
        in_powers_of_ten(
            of_models(
                lines(
                    "Pictures a second per GiB",
                    "Pictures per second for each GiB (2^30 bytes) that the network occupies: what its memory is "
                    "worth. The network with the lowest line is the first to unload.",
                    queries((q.some(f"{through} / ({q.some(q.total(_RESIDENT, 'model'))}) * {_GIB}"), "{{model}}")),
                    PICTURES,
                    lowest=None,
                )
            )
        ),
    )


def _moves() -> Line:
    load_time = "topfive_load_seconds"
    return Line(
        7,
        bars(
            "Loads",
            "Checkpoints loaded into memory, by result. A few after a start are normal; 'failed' never is.",
            queries(
                (q.some(q.increase("topfive_loads_total", by="model, result")), "{{model}} {{result}}"),
            ),
            COUNT,
        ).no_value("Nothing was loaded in this time."),
        bars(
            "Evictions",
            "Checkpoints that were unloaded: to make 'room' for another one, or because somebody 'asked'. The panel "
            "should be empty.",
            queries(
                (q.some(q.increase("topfive_evictions_total", by="model, reason")), "{{model}} {{reason}}"),
            ),
            COUNT,
        ).no_value("Nothing was evicted in this time."),
        of_models(
            bar_gauges(
                "Load time",
                "Mean time to load a checkpoint and warm it up, since the processes started. The first picture after "
                "an eviction waits this long.",
                f"{q.total(f'{load_time}_sum{{{q.MODEL}}}', 'model')} / "
                f"({q.some(q.total(f'{load_time}_count{{{q.MODEL}}}', 'model'))})",
                "{{model}}",
                SECONDS,
            )
        ),
    )
