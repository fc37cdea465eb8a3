"""What an operator sees the service with: Prometheus's configuration and rules, and Grafana's dashboards."""
