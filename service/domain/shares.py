"""Shares: when one caller has many pictures in the service."""

from __future__ import annotations

#: A caller with more pictures than this in one place has many of them there. One with fewer is let be: a page of a few
#: pictures, or a program with a few threads.
FEW = 4
