"""Floor 2: starting a server that outlives us, and that the ledger owns from its first moment.

Owns: the lifeline: a pipe from which the new process reads one byte before it serves.  We write it
when the ledger has the entry; a starter that dies before closes the pipe, and the server ends.

Read: pipe(7) on the end of a pipe; labkit.network.forward and .dns_server, which are started so.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from labkit.errors import explain
from labkit.kernel import process
from labkit.kernel.ledger import Ledger


def start_owned(
    module: str, words: Sequence[str], listeners: Sequence[socket.socket], ledger: Ledger, kind: str, **fields: str
) -> None:
    """Run `python -m MODULE LIFELINE WORDS...`, which inherits the listeners under their numbers.

    kind, fields -- of the ledger's entry, beside pid and start
    Raises LabError when it cannot be started; nothing of it is open or running then.
    """
    try:
        reading, writing = os.pipe()
        try:
            try:
                child = subprocess.Popen(
                    [sys.executable, "-m", module, str(reading), *words],
                    pass_fds=[reading, *(listener.fileno() for listener in listeners)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # or a pipe of the caller would stay open for as long as it lives
                    start_new_session=True,
                )
            finally:
                os.close(reading)
            child.returncode = 0  # its end is the ledger's business, not this object's
            ledger.record(kind, pid=child.pid, start=process.start_time(child.pid) or 0, **fields)
            os.write(writing, b"written down")
        finally:
            os.close(writing)
    except OSError as error:
        explain(error, f"cannot start {module}")
