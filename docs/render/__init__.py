"""The dashboards as pictures: ``python -m service.observability.render`` asks a running Prometheus what they show.

For who has no Grafana at hand, and for the documentation: the same JSON files, the same queries, drawn by matplotlib in
the look of Grafana. ``queries.py`` reads the files, ``prometheus.py`` asks, ``fields.py`` makes of the answer what a
panel draws. ``picture.py`` lays the panels out; ``numbers.py``, ``plots.py`` and ``tables.py`` draw them, with
``canvas.py``, ``legends.py``, ``theme.py`` and ``units.py``.
"""

from docs.render.queries import PanelQuery, Window, dashboards, panel_queries

__all__ = ["PanelQuery", "Window", "dashboards", "panel_queries"]
