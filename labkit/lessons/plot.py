"""Top floor: a plot in the cgroup tree for a lesson, given back whatever happens in it.

Owns: one cgroup below the tree's root that hands the controllers on that a lesson asks for,
the ledger's entries for it, and clearing away what an interrupted lesson left.

Read: Documentation/admin-guide/cgroup-v2.rst, "Top-down Constraint".
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from labkit.kernel import cgroups
from labkit.kernel.ledger import Ledger, all_ledgers

OWNER = "plot-"  # of the ledger's files: plot-NAME


class Plot:
    """A cgroup whose children have controllers; all that runs in it ends with it.

        with Plot("lesson-05", ["memory", "pids"]) as plot:
            (plot.path / "one").mkdir()

    path  its folder
    """

    def __init__(self, name: str, controllers: Iterable[str]) -> None:
        """Make it; one of the same name that an interrupted lesson left is given back first.

        Raises Refused where version 2 lacks one of the controllers; LabError.
        """
        wanted = set(controllers)
        cgroups.require(wanted, {})
        top = cgroups.root()
        self.path: Path = top / name
        self._ledger = Ledger(OWNER + name)
        self.close()
        # Recorded first and in this order: given back in reverse, since a controller stays while a child hands it on.
        if missing := wanted - set((top / "cgroup.subtree_control").read_text().split()):
            self._ledger.record("controllers", path=str(top), names=" ".join(sorted(missing)))
            cgroups.enable(top, missing)
        self._ledger.record("cgroup", path=str(self.path))
        cgroups.create(self.path)
        cgroups.enable(self.path, wanted)

    def close(self) -> None:
        """Kill what runs in it and remove it, with all cgroups below. Twice is fine."""
        self._ledger.release_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sweep(prefix: str) -> list[str]:
    """Give back the plots called PREFIX-PID-... whose process has ended; their names."""
    found = []
    for ledger in all_ledgers():
        name = ledger.owner.removeprefix(OWNER)
        maker = name.removeprefix(prefix).split("-")[0]
        if ledger.owner != name and name.startswith(prefix) and maker.isdigit() and not Path(f"/proc/{maker}").exists():
            ledger.release_all()
            found.append(name)
    return found
