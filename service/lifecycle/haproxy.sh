#!/bin/sh
# What Ray Serve starts in the place of HAProxy; see haproxy.py. The driver sets both variables.
exec "$TOPFIVE_PYTHON" -I -S "$TOPFIVE_HAPROXY" "$@"
