"""Measures how much load each network bears, and writes the report. ``topfive loadtest`` is its command."""
