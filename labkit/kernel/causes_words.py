"""Floor 1: the kernel's own words about a call that failed: a mount context's log, new lines of /dev/kmsg.

Owns: reading both.  What the kernel says comes before anything that we find out.
/dev/kmsg is for root (CAP_SYSLOG where kernel.dmesg_restrict is 1); elsewhere nothing is heard.

Read: fsopen(2), fsconfig(2), Documentation/ABI/testing/dev-kmsg.
"""

from __future__ import annotations

import os

ALSO = {"overlay": "overlayfs: "}  # file system: how its lines begin too, beside its name


def context_log(context: int) -> str:
    """What the kernel wrote into the log of a mount context (fsopen), one message a read."""
    words = []
    while True:
        try:
            said = os.read(context, 4096).decode(errors="replace").strip()
            # "e overlay: ...": the first letter is the weight (error, warning, information).
            words.append(said[2:] if said[:2] in ("e ", "w ", "i ") else said)
        except OSError:  # ENODATA: the log is empty
            return "; ".join(words)


class Listener:
    """Lines of the kernel's log that appear from now on, about one kind of file system."""

    def __init__(self, kind: str) -> None:
        self.prefixes = (f"{kind}: ", ALSO.get(kind, f"{kind}: "))
        self.fd = -1
        if not kind:  # nothing to listen for
            return
        try:
            self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self.fd, 0, os.SEEK_END)
        except OSError:
            self.close()

    def heard(self) -> str:
        """The new lines that begin with the file system's name, joined by semicolons."""
        found = []
        while self.fd >= 0:
            try:
                record = os.read(self.fd, 8192).decode(errors="replace")
            except BrokenPipeError:
                continue  # the ring went past us
            except OSError:  # EAGAIN: nothing more
                break
            text = record.partition(";")[2].partition("\n")[0]
            if text.startswith(self.prefixes):
                found.append(text)
        return "; ".join(dict.fromkeys(found))

    def close(self) -> None:
        """Stop listening."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
