"""Python's own settings in a process that serves."""

from __future__ import annotations

import gc
import sys

#: How long a thread may keep the interpreter's lock while another waits for it. Python's own 5 ms let a device that has
#: finished a batch of digits wait for longer than the batch took, and the event loop for threads that decode.
_SWITCH_S = 0.0005
#: How many objects more than before let the collector look for cycles: about as many as a thousand requests in flight
#: have. Python's own 700 makes it look every few requests, in vain: the path of a request makes no cycles.
_COLLECT_AFTER = 20_000


def tune() -> None:
    """Makes threads take turns more often, and the garbage collector look less often."""
    sys.setswitchinterval(_SWITCH_S)
    _, *older = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *older)
