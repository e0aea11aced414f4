"""the kernel refused: Invalid argument"""

import os
import select


def wait_for_pressure(file, stall, window, patience):
    """Sleep until tasks in the cgroup had to wait, `stall` microseconds within `window` microseconds."""
    fd = os.open(file, os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, f"some {window} {stall}".encode())
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    return bool(poll.poll(patience * 1000))
