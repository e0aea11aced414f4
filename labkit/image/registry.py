"""Floor 2: a registry of one's own on the loopback: `crane registry serve`.

Owns: starting it on a free port and ending it.

Read: the OCI distribution specification; crane registry serve --help.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import LabError, NotFound


@contextmanager
def serve(address: str = "127.0.0.1:0", disk: Path | None = None) -> Iterator[str]:
    """A running registry; yields its address, such as 127.0.0.1:40123. Gone afterwards.

    Raises NotFound without crane, LabError when it does not start.
    """
    command = ["crane", "registry", "serve", "--address", address]
    if disk is not None:
        disk.mkdir(parents=True, exist_ok=True)
        command += ["--disk", str(disk)]
    try:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise NotFound("the program crane is not installed", next="sh vagrant/install-crane.sh") from error
    assert child.stderr is not None
    try:
        said = ""
        for line in child.stderr:
            said += line
            if match := re.search(r"serving on port (\d+)", line):
                # It writes a line for each request; a full pipe would stop it after some 2000.
                threading.Thread(target=child.stderr.read, daemon=True).start()
                yield f"{address.rpartition(':')[0]}:{match[1]}"
                break
        else:
            raise LabError(f"cannot serve a registry on {address}", why=said.strip())
    finally:
        child.terminate()
        child.wait()
        child.stderr.close()
