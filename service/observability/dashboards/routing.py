"""What the router decides: the lower half of memory and routing."""

from __future__ import annotations

from service.observability.dashboards import queries as q
from service.observability.dashboards.board import Line
from service.observability.dashboards.charts import areas, coloured, limit, lines
from service.observability.dashboards.panels import PICTURES, POINTS, TIMES, of_models, queries, steps


def decisions() -> Line:
    """Which networks, why, and who got none."""
    reasons = areas(
        "Decisions by reason",
        "Decisions a second: 'named' by the caller, the 'most accurate' network, or what stood in the way of a more "
        "accurate one. 'overloaded' grows when queues cost accuracy, 'not loaded' when the memory limit does, 'memory' "
        "when callers' budgets are small.",
        queries((q.rate("topfive_routed_total", by="reason"), "{{reason}}")),
        PICTURES,
    )
    shed = areas(
        "Shed by",
        "Pictures a second that were not classified for the load's sake: the 'router' refused, the 'queue' was full, "
        "or the 'deadline' could not be met any more. The router is the good one: it says no at once.",
        queries((q.rate("topfive_shed_total", q.DEPLOYMENT, "reason"), "{{reason}}")),
        PICTURES,
    )
    reason_colours = {
        "named": "blue",
        "most accurate": "green",
        "latency": "yellow",
        "memory": "purple",
        "overloaded": "red",
        "not loaded": "orange",
    }
    return Line(
        8,
        of_models(
            areas(
                "Decisions by model",
                "Pictures a second for which each network was picked, by the caller or by the router. Under load it "
                "moves towards faster networks.",
                queries((q.some(q.rate("topfive_routed_total", by="model")), "{{model}}")),
                PICTURES,
            )
        ),
        coloured(reasons, reason_colours),
        coloured(shed, {"router": "yellow", "queue": "orange", "deadline": "red"}),
    )


def predictions() -> Line:
    """How good the router predicts, and what the load costs in accuracy."""
    predicted = "topfive_predicted_ratio"
    within = steps("transparent", (0.8, "green"), (1.2, "orange"))
    return Line(
        8,
        limit(
            lines(
                "Actual over predicted",
                "Time from decision to answer over what was predicted. Good is a median between the dashed lines, "
                "within a fifth of 1; a p95 above 2 makes promises that are not kept.",
                queries((q.quantile(0.5, predicted), "median"), (q.quantile(0.95, predicted), "p95")),
                TIMES,
            )
            .decimals(2)
            .axis_soft_max(1.5),
            within,
        ),
        limit(
            of_models(
                lines(
                    "Actual over predicted by model, median",
                    "Above 1 a network takes longer than predicted, below 1 the router is too careful with it. One "
                    "line away from the others: its profile is out of date.",
                    queries((q.some(q.quantile(0.5, predicted, by="model")), "{{model}}")),
                    TIMES,
                )
            )
            .decimals(2)
            .axis_soft_max(1.5),
            within,
        ),
        lines(
            "Accuracy debt",
            "Top-1 percentage points that pictures lose to queues, mean and p95. It rises before anything is "
            "refused: the earliest sign that capacity is short.",
            queries(
                (q.mean("topfive_accuracy_debt", q.DEPLOYMENT), "mean"),
                (q.quantile(0.95, "topfive_accuracy_debt", q.DEPLOYMENT), "p95"),
            ),
            POINTS,
        ),
    )
