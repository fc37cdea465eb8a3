"""The Grafana dashboards as code; ``python -m service.observability.dashboards`` writes the files that Grafana reads.

``overview.py`` (with ``running.py``), ``batching.py`` and ``memory.py`` (with ``routing.py``) define the dashboards,
panel by panel. ``figures.py`` has the types of panels that show the present, ``charts.py`` those that show the past
too. ``panels.py`` has what all panels share, ``queries.py`` the PromQL that several panels use, and ``board.py`` puts
panels on the grid.

Only developers who change a dashboard need this package and grafana-foundation-sdk, which is Grafana's schema as Python
types. The service imports neither.
"""
