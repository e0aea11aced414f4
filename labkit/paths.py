"""Ground floor: the folders on the machine's own disk in which the kit keeps its state.

Nothing of this lies in the shared project tree (design, decision 4).  Tests and
side-by-side set-ups move both folders with the environment.

Read: hier(7), the Filesystem Hierarchy Standard on /run and /var/lib.
"""

from __future__ import annotations

import os
from pathlib import Path


def data() -> Path:
    """What outlives a reboot: images, layers, writable layers.  $LABKIT_DATA or /var/lib/labkit."""
    return Path(os.environ.get("LABKIT_DATA", "/var/lib/labkit"))


def run() -> Path:
    """What a reboot ends: containers, the ledger, locks.  $LABKIT_RUN or /run/labkit."""
    return Path(os.environ.get("LABKIT_RUN", "/run/labkit"))
