"""The Grafana dashboards as code; ``python -m service.observability.dashboards`` writes the files that Grafana reads.

``overview.py`` (with ``running.py``), ``batching.py`` and ``memory.py`` (with ``routing.py``) are the dashboards, panel
by panel. They are made of panels that show how things are now (``figures.py``) or over time (``charts.py``). What all
panels have in common is in ``panels.py``, PromQL that comes up again and again in ``queries.py``. ``board.py`` puts
panels on the grid.

Only who changes a dashboard needs this package, and with it grafana-foundation-sdk, which is Grafana's own schema as
Python types. The service imports neither.
"""
