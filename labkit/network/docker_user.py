"""Floor 2: living beside dockerd: the chain that Docker leaves to others.

dockerd sets the policy of `ip filter FORWARD` to drop.  An accept in a table of ours does not
help: each base chain of a hook judges for itself, and one drop is final.  Docker's own way out
is the chain DOCKER-USER, which its FORWARD asks first and never writes to.

Owns: our rules in that chain, each in the network's ledger, written with the program that
dockerd itself uses; where there is no such chain, nothing is done.

Read: Docker's "Packet filtering and firewalls"; iptables(8); nft(8) on base chains.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from labkit.errors import LabError
from labkit.kernel.ledger import Ledger

CHAIN = "DOCKER-USER"
PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
# Legacy iptables keeps its tables elsewhere; the kernel names those that this namespace has.
LEGACY = {"ip": Path("/proc/net/ip_tables_names"), "ip6": Path("/proc/net/ip6_tables_names")}
MARK = ["-m", "comment", "--comment", "labkit"]


def _rules(bridge: str) -> list[list[str]]:
    """What shall stand at the chain's top, in order."""
    return [
        # Docker fences its own networks off behind this chain: we do not open them.
        ["-i", bridge, "-o", "docker0", *MARK, "-j", "RETURN"],
        ["-i", bridge, "-o", "br-+", *MARK, "-j", "RETURN"],
        ["-i", bridge, *MARK, "-j", "ACCEPT"],
        # What may come in, the table `inet labkit` decides.
        ["-o", bridge, *MARK, "-j", "ACCEPT"],
    ]


def present(family: str, tables: Iterable[tuple[str, str]]) -> bool:
    """Whether this machine has Docker's chain, without making a table by asking.

    family -- ip or ip6; tables -- (family, name) of the nft tables that there are.
    """
    legacy = LEGACY[family]
    if (family, "filter") not in tables and not (legacy.exists() and "filter" in legacy.read_text().split()):
        return False
    program = shutil.which(PROGRAMS[family])
    return bool(program) and _run(str(program), "-n", "-L", CHAIN).returncode == 0


def let_through(bridge: str, tables: Iterable[tuple[str, str]], ledger: Ledger) -> None:
    """Where dockerd drops what is forwarded, let our bridge's packets pass; nothing where it does not.

    Raises LabError with iptables' words.
    """
    for family, program in PROGRAMS.items():
        if not present(family, tables):
            continue
        for number, rule in enumerate(_rules(bridge), 1):
            ledger.record("iptables", program=program, chain=CHAIN, rule=" ".join(rule))
            done = _run(program, "-I", CHAIN, str(number), *rule)
            if done.returncode:
                raise LabError(f"cannot write into Docker's chain {CHAIN}", why=done.stderr.strip().partition("\n")[0])


def is_let_through(ledger: Ledger) -> bool:
    """Whether that has been done for the network of this ledger."""
    return any(entry.kind == "iptables" for entry in ledger.entries())


def _run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    # -w: wait for whoever else is changing rules at this moment, as dockerd does at its start.
    return subprocess.run([program, "-w", *words], capture_output=True, text=True)
