"""A visit to a container's network: in, and out again; and one that is refused."""

from __future__ import annotations

import subprocess
import sys

REFUSED = """
import os
from labkit.errors import LabError
from labkit.kernel import causes
from labkit.kernel.syscalls import recording
from labkit.network import inside
if os.geteuid() == 0:
    os.setuid(65534)
before = os.listdir("/proc/self/fd")
with recording() as calls:
    try:
        with inside.visit(os.getpid()):
            print("entered")
    except LabError as error:
        print(error)
print([one.name for one in calls], os.listdir("/proc/self/fd") == before)
"""


def test_a_visit_that_is_refused_is_explained_once() -> None:
    """An ordinary user: the first setns is told with its cause, no second one is tried, no descriptor stays open."""
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told, seen = done.stdout.rstrip().rsplit("\n", 1)
    assert "cannot enter the network of process" in told and "CAP_SYS_ADMIN" in told
    assert seen == "['setns'] True"
