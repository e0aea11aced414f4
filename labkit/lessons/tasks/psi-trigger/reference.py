# exercise: psi-trigger
import os
import select


def wait_for_pressure(file, stall, window, patience):
    """Sleep until tasks in the cgroup had to wait, `stall` microseconds within `window` microseconds."""
    fd = os.open(file, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(fd, f"some {stall} {window}".encode())
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        return bool(poll.poll(patience * 1000))
    finally:
        os.close(fd)
