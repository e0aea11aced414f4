"""Top floor: what a notebook writes with a percent sign: %load_ext labkit.lessons, then %%xray.

Owns: the cell magic: run the cell as it is, then show what it changed in the kernel.

Read: IPython's documentation on defining custom magics.
"""

from __future__ import annotations

from typing import Any

from labkit.draw import changes
from labkit.lessons.xray import Xray
from labkit.observe import difference


def load(shell: Any) -> None:
    """Register the magics with an IPython shell; twice is once."""

    def xray(line: str, cell: str) -> None:
        """%%xray: run the cell, then show what it changed in the kernel and which system calls made it so."""
        with Xray() as ray:
            done = shell.run_cell(cell)
        show(ray)
        done.raise_error()

    shell.register_magic_function(xray, magic_kind="cell", magic_name="xray")


def show(ray: Xray) -> None:
    """One sentence, the picture, and what the record cannot tell."""
    from IPython.display import display

    print(difference.words(ray.seen.changes))
    display(changes.changes(ray.seen.changes, ray.seen.calls))  # type: ignore[no-untyped-call]
    if ray.seen.unseen:
        print(ray.seen.unseen)
