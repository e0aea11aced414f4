"""Ground floor: the folders on the machine's own disk in which the kit keeps its state.

Nothing of this lies in the shared project tree (design, decision 4).  Tests and
side-by-side set-ups move both folders with the environment.  An ordinary user's are
that user's own, where every such program keeps them.

Read: hier(7), the Filesystem Hierarchy Standard on /run and /var/lib; the XDG Base Directory specification.
"""

from __future__ import annotations

import os
from pathlib import Path


def data() -> Path:
    """What outlives a reboot: images, layers, writable layers.

    $LABKIT_DATA or /var/lib/labkit; of an ordinary user, ~/.local/share/labkit.
    """
    if (given := os.environ.get("LABKIT_DATA")) or os.geteuid() == 0:
        return Path(given or "/var/lib/labkit")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "labkit"


def run() -> Path:
    """What a reboot ends: containers, the ledger, locks.

    $LABKIT_RUN or /run/labkit; of an ordinary user, labkit in $XDG_RUNTIME_DIR.
    """
    if (given := os.environ.get("LABKIT_RUN")) or os.geteuid() == 0:
        return Path(given or "/run/labkit")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}") / "labkit"
