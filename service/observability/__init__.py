"""Prometheus's configuration and rules, and Grafana's dashboards. The service does not import this package."""
