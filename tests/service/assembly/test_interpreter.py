"""How Python runs in a process that serves."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from service.assembly.interpreter import tune


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    interval_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(interval_s)
    gc.set_threshold(*thresholds)


def test_threads_pass_on_the_interpreters_lock_sooner_than_by_default() -> None:
    sys.setswitchinterval(0.005)  # Python's own
    tune()
    assert 0 < sys.getswitchinterval() <= 0.005 / 5


def test_the_garbage_collector_looks_less_often_and_at_old_objects_as_before() -> None:
    gc.set_threshold(700, 10, 11)  # Python's own are 700, 10 and 10
    tune()
    youngest, *older = gc.get_threshold()
    assert youngest >= 10 * 700
    assert older == [10, 11]


def test_a_thread_that_held_a_large_picture_gives_its_memory_back() -> None:
    """In a process of its own, since the setting stays. Pieces are as large as Pillow's."""
    kept = subprocess.run([sys.executable, "-c", _KEEPING], capture_output=True, text=True, check=True, timeout=60)
    assert int(kept.stdout) < 40_000_000


_KEEPING = """
import ctypes, psutil, threading
from service.assembly.interpreter import tune
tune()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
size = 16 << 20
def hold():
    for _ in range(2):
        pieces = [libc.malloc(size) for _ in range(6)]
        for piece in pieces:
            ctypes.memset(piece, 1, size)
        # Something small behind them, as there always is, holds the end of the thread's memory.
        small.append(libc.malloc(1000))
        for piece in pieces:
            libc.free(piece)
small = []
before = psutil.Process().memory_info().rss
threads = [threading.Thread(target=hold) for _ in range(4)]
for thread in threads:
    thread.start()
    thread.join()
print(psutil.Process().memory_info().rss - before)
"""
