"""Metrics, logs and traces of this process.

metrics.py        declares every metric
series.py         counters and histograms whose observations cost next to nothing
recorder.py       counts what happens to requests, and what a checkpoint's predictor does
gauges.py         reads queues, memory and readiness at a scrape
exposition.py     serves the metrics of this process, and adds up those of several
logs.py           log lines, and the access log
tracing.py        OpenTelemetry spans of a request
picture_spans.py  the spans of one picture: load, decode, queue, forward
"""
