"""What a server's processes use, those that left their parent among them."""

from __future__ import annotations

import subprocess
import sys

from processes import Tree

#: Computes, and starts a process in a session of its own, as Ray's daemons are.
_PARENT = """
import subprocess, sys, time
while time.process_time() < 0.2:
    pass
subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], start_new_session=True)
time.sleep(60)
"""
#: Computes, and when it is told to, starts another process and ends.
_CHILD = """
import os, subprocess, sys, time
while time.process_time() < 0.2:
    pass
print(os.getpid(), time.process_time(), flush=True)
sys.stdin.readline()
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
"""
#: Says who it is once its parent has ended.
_GRANDCHILD = """
import os, sys, time
while os.getppid() == int(sys.argv[1]):
    time.sleep(0.01)
print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_cpu_time_is_that_of_all_processes_and_none_is_left() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, _CHILD, _GRANDCHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        tree = Tree(parent.pid)
        try:
            child, computed_s = parent.stdout.readline().split()
            assert {process.pid for process in tree.refresh()} == {parent.pid, int(child)}
            # Clocks of the kernel tick a hundred times a second.
            before = tree.cpu_s()
            assert before >= 0.2 + float(computed_s) - 0.03
            parent.kill()
            parent.wait()
            parent.stdin.write("\n")
            parent.stdin.flush()
            # Its parent and the parent's parent have ended; the session tells whose it is.
            grandchild = int(parent.stdout.readline())
            assert grandchild in {process.pid for process in tree.refresh()}
            assert tree.cpu_s() >= before
        finally:
            tree.end()
    assert tree.refresh() == []
