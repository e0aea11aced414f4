"""Floor 2: a registry of one's own on the loopback: `crane registry serve`.

Owns: starting it on a free port and ending it: with the block that wanted it, and, when this process is
killed in it, with the thread that started it (setpriv sets that on its way to crane).

Read: the OCI distribution specification; crane registry serve --help; PR_SET_PDEATHSIG in prctl(2).
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from labkit.errors import LabError, NotFound

PATIENCE = 5  # seconds between asking it to end and killing it


@contextmanager
def serve(address: str = "127.0.0.1:0", disk: Path | None = None) -> Iterator[str]:
    """A running registry; yields its address, such as 127.0.0.1:40123. Gone afterwards.

    Raises NotFound without crane, LabError when it does not start.
    """
    if shutil.which("crane") is None:  # else setpriv would complain, in words of its own
        raise NotFound("the program crane is not installed", next="sh vagrant/install-crane.sh")
    command = ["setpriv", "--pdeathsig", "KILL", "crane", "registry", "serve", "--address", address]
    if disk is not None:
        disk.mkdir(parents=True, exist_ok=True)
        command += ["--disk", str(disk)]
    try:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise NotFound("the program setpriv is not installed", next="apt install util-linux") from error
    assert child.stderr is not None
    try:
        said = ""
        for line in child.stderr:
            said += line
            if match := re.search(r"serving on port (\d+)", line):
                # It writes a line for each request; a full pipe would stop it after some 2000.
                _drain(child.stderr)
                yield f"{address.rpartition(':')[0]}:{match[1]}"
                break
        else:
            raise LabError(f"cannot serve a registry on {address}", why=said.strip())
    finally:
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # whoever started us may have blocked SIGTERM, and crane inherits that
            child.kill()
            child.wait()
        child.stderr.close()


def _drain(pipe: IO[str]) -> None:
    """Read the pipe to its end, in a thread that takes no signal: the main one may be waiting for it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        threading.Thread(target=pipe.read, daemon=True).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
