"""The lower half of the dashboard "Memory and routing": decisions of the router and its predictions."""

from __future__ import annotations

from service.observability.dashboards import queries as q
from service.observability.dashboards.board import Line
from service.observability.dashboards.charts import areas, coloured, limit, lines
from service.observability.dashboards.panels import PICTURES, POINTS, TIMES, of_models, queries, steps


def decisions() -> Line:
    """Which networks are chosen and why, and how many pictures are refused."""
    reasons = areas(
        "Decisions by reason",
        "Decisions per second: 'named' by the caller, the 'most accurate' network, or the reason why it was not a more "
        "accurate one. 'overloaded' grows when queues cost accuracy, 'not loaded' when the memory limit does, 'memory' "
        "when callers' budgets are small.",
        queries((q.rate("topfive_routed_total", by="reason"), "{{reason}}")),
        PICTURES,
    )
    shed = areas(
        "Shed by",
        "Pictures per second that were not classified because of the load: the 'router' refused, the 'queue' was full, "
        "or the 'deadline' could not be met any more. A refusal by the router is the best of the three: it is quick.",
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
                "Pictures per second for which each network was chosen, by the caller or by the router. Under load it "
                "moves towards faster networks.",
                queries((q.some(q.rate("topfive_routed_total", by="model")), "{{model}}")),
                PICTURES,
            )
        ),
        coloured(reasons, reason_colours),
        coloured(shed, {"router": "yellow", "queue": "orange", "deadline": "red"}),
    )


def predictions() -> Line:
    """How good the predictions of the router are, and what the load costs in accuracy."""
    predicted = "topfive_predicted_ratio"
    within = steps("transparent", (0.8, "green"), (1.2, "orange"))
    return Line(
        8,
        limit(
            lines(
                "Actual over predicted",
                "Time from the decision to the answer, divided by the predicted time. The median should be between the"
                " dashed lines, within a fifth of 1; a p95 above 2 means promises that are not kept.",
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
                    "Above 1 a network takes longer than predicted, below 1 the router is too careful with it. If one "
                    "line is away from the others, the profile of that network is out of date.",
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
            "Top-1 percentage points that pictures lose to queues, mean and p95. It rises before pictures are refused:"
            " the earliest sign that capacity is short.",
            queries(
                (q.mean("topfive_accuracy_debt", q.DEPLOYMENT), "mean"),
                (q.quantile(0.95, "topfive_accuracy_debt", q.DEPLOYMENT), "p95"),
            ),
            POINTS,
        ),
    )
