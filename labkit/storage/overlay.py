"""Floor 2: the root file system of a container as layers below a folder of its own.

Owns: the writable layer and overlayfs's work folder of each container, on the machine's
own disk.  The overlay itself is mounted inside the container's mount namespace, by the
runtime: no mount on the machine can be left behind, because there is none.

Read: Documentation/filesystems/overlayfs.rst (upper and work on one file system).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from labkit.kernel.ledger import Ledger
from labkit.kernel.overlay import mount_overlay


class Root(NamedTuple):
    """Layers (bottom first), the writable layer above them, and overlayfs's scratch folder."""

    lower: list[Path]
    upper: Path
    work: Path

    def mount(self, target: Path) -> None:
        """Show the stack as one tree on `target`, in this process's mount namespace."""
        mount_overlay(target, self.lower, self.upper, self.work)


def prepare(folder: Path, layers: list[Path], ledger: Ledger) -> Root:
    """Make the writable layer of a container in its own `folder`, which `ledger` then owns."""
    ledger.record("directory", path=str(folder))
    root = Root(layers, folder / "upper", folder / "work")
    for path in (folder, root.upper, root.work):
        path.mkdir(parents=True, exist_ok=True)
    # The writable layer's mode becomes the mode of / inside.
    root.upper.chmod(0o755)
    return root
