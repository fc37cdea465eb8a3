"""The tables at the end of the overview: what runs."""

from __future__ import annotations

from service.observability.dashboards import queries as q
from service.observability.dashboards.board import Line
from service.observability.dashboards.figures import rows
from service.observability.dashboards.panels import COUNT


def running() -> Line:
    """Alerts, checkpoints and versions."""
    return Line(
        7,
        rows(
            "Alerts",
            "Alerts that are pending or firing now. The panel should be empty; the rules have a runbook for each "
            "alert.",
            ["max by (alertname, severity, alertstate) (ALERTS)"],
            {"alertname": "Alert", "severity": "Severity", "alertstate": "State"},
            COUNT,
            "Alert",
        ).no_value("No alert is pending or firing."),
        rows(
            "Checkpoints",
            "What can be served here, and where its weights come from. 'trained: false' means random weights, which "
            "are only for load tests.",
            [f"max by (model, checkpoint, labels, trained, origin) (topfive_checkpoint_info{{{q.MODEL}}})"],
            {
                "model": "Model",
                "checkpoint": "Checkpoint",
                "labels": "Labels",
                "trained": "Trained",
                "origin": "Origin",
            },
            COUNT,
            "Model",
        ),
        rows(
            "Builds",
            "Processes by their versions. More than one row means that a new version is being rolled out.",
            [f"count by (version, python, torch, onnxruntime, ray) (topfive_build_info{{{q.DEPLOYMENT}}})"],
            {
                "version": "TopFive",
                "ray": "Ray",
                "torch": "PyTorch",
                "onnxruntime": "ORT",
                "python": "Python",
                "Value": "#",
            },
            COUNT,
            "TopFive",
        ),
        widths=(7, 11, 6),
    )
