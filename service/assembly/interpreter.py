"""Python's own settings in a process that serves, and those of the C library under it."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress

#: How long a thread may keep the interpreter's lock while another waits for it. Python's own 5 ms let a device that has
#: finished a batch of digits wait for longer than the batch took, and the event loop for threads that decode.
_SWITCH_S = 0.0005
#: How many objects more than before let the collector look for cycles: about as many as a thousand requests in flight
#: have. Python's own 700 makes it look every few requests, in vain: the path of a request makes no cycles.
_COLLECT_AFTER = 20_000
#: Memory of this many bytes or more goes back to the system when it is freed. By default glibc raises that size with
#: each such piece, up to 32 MiB, and keeps later ones: each thread that ever decoded a large picture would keep its
#: pixels, which Pillow holds in pieces of 16 MiB.
_GIVEN_BACK = 8 << 20
_M_MMAP_THRESHOLD = -3
#: Setting it ends the growth of another bound too: of how much free memory a heap keeps at its end. At its first
#: 128 KiB each decoded photograph would be given back, and its pages fetched anew for the next one.
_KEPT, _M_TRIM_THRESHOLD = 16 << 20, -1


def tune() -> None:
    """Makes threads take turns more often, the garbage collector look less often, and large memory go back."""
    sys.setswitchinterval(_SWITCH_S)
    _, *older = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *older)
    # Other C libraries than glibc have no such function, and do not keep so much.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK)
        ctypes.CDLL(None).mallopt(_M_TRIM_THRESHOLD, _KEPT)
