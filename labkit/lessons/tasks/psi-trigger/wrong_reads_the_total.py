"""the trigger is at 95 %"""

import time
from pathlib import Path


def wait_for_pressure(file, stall, window, patience):
    """Sleep until tasks in the cgroup had to wait, `stall` microseconds within `window` microseconds."""
    deadline = time.monotonic() + patience
    begin = None
    while time.monotonic() < deadline:
        total = int(Path(file).read_text().split()[4].partition("=")[2])
        begin = total if begin is None else begin
        if total - begin > 0:  # somebody waited, however little
            return True
        time.sleep(0.1)
    return False
