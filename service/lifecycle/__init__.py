"""Starts, watches, stops and lists the services of this machine, without importing Ray."""
