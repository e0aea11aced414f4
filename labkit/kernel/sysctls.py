"""Floor 1: a setting of the machine's network that several need: switched on, and given back with care.

Owns: the ledger's entries of the kind `sysctl`, and the decision whether one is written back.  The
machine's forwarding is one value for all who route: whoever finds it on does not write it, and
nobody counts.  So it is written back only

    while the file still holds what we wrote: otherwise somebody has decided anew; and
    while there is no bridge that was not there before we wrote: whoever has made one since (Docker's
    docker0, libvirt's virbr0, a CNI plugin's cni0) found it on, and its guests rely on that.

It is left on then, as those programs themselves leave it.  Bridges that stand in a ledger do not count.

Read: Documentation/networking/ip-sysctl.rst on ip_forward; proc_sys(5).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.kernel.ledger import Ledger


def switch(ledger: Ledger, file: Path, value: str) -> None:
    """Write `value`, with an entry by which the value before comes back; nothing where it is so already."""
    before = file.read_text().strip()
    if before != value:
        ledger.record("sysctl", path=str(file), before=before, written=value, bridges=" ".join(sorted(bridges())))
        file.write_text(value)


def give_back(fields: dict[str, str | int]) -> None:
    """What `switch` wrote, for the ledger."""
    file = Path(str(fields["path"]))
    try:
        now = file.read_text().strip()
    except FileNotFoundError:  # of a device that has gone
        return
    # Entries without these two are of a labkit that did not look.
    if now != fields.get("written", now) or ("bridges" in fields and bridges() - set(str(fields["bridges"]).split())):
        return
    file.write_text(str(fields["before"]))


def bridges() -> set[str]:
    """The bridges of this network namespace that no ledger owns."""
    from labkit.kernel import rtnetlink
    from labkit.kernel.ledger import all_ledgers
    from labkit.kernel.netlink import Netlink

    own = {entry.fields["name"] for each in all_ledgers() for entry in each.entries() if entry.kind == "link"}
    with Netlink() as netlink:
        return {link.name for link in rtnetlink.links(netlink) if link.kind == "bridge"} - own
