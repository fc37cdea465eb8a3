"""Draws the Grafana dashboards as pictures, without Grafana: ``python -m docs.render``.

The documentation has such pictures. They come from the same JSON files and the same queries to a running Prometheus,
and matplotlib draws them in the style of Grafana. ``queries.py`` reads the files, ``prometheus.py`` sends the queries,
and ``fields.py`` turns the answers into named and coloured series. ``picture.py`` lays out the panels; ``numbers.py``,
``plots.py`` and ``tables.py`` draw them, with ``canvas.py``, ``legends.py``, ``theme.py`` and ``units.py``.
"""

from docs.render.queries import PanelQuery, Window, dashboards, panel_queries

__all__ = ["PanelQuery", "Window", "dashboards", "panel_queries"]
