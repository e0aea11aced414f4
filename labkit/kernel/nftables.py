"""Floor 1: nftables through its JSON interface: one transaction a change.

Owns: running `nft -j -f -`, reading the ruleset, and nft's words as our errors.

Read: libnftables-json(5), nft(8).
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from labkit.errors import LabError, NotFound

Statement = dict[str, Any]  # an object of libnftables-json(5); the schema is nft's


def apply(commands: list[Statement], what: str) -> None:
    """Do all commands or none. Raises LabError with nft's first line; NotFound without nft."""
    text = json.dumps({"nftables": commands})
    done = _nft(["-j", "-f", "-"], text)
    if done.returncode:
        raise LabError(what, why=f"nft says: {(done.stderr.strip() or 'nothing').splitlines()[0]}")


def ruleset(family: str = "", table: str = "") -> list[Statement]:
    """The objects of the whole ruleset, or of one table ([] when it does not exist)."""
    return listing(*(["table", family, table] if table else ["ruleset"]))


def listing(*words: str) -> list[Statement]:
    """The objects that `nft list WORDS` shows ([] when there are none, or no such table)."""
    done = _nft(["-j", "list", *words])
    if done.returncode:
        if "No such file" in done.stderr:
            return []
        raise LabError("cannot read the nft ruleset", why=done.stderr.strip().partition("\n")[0])
    found: list[Statement] = json.loads(done.stdout)["nftables"] if done.stdout.strip() else []
    return found


def _nft(arguments: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["nft", *arguments], input=text, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NotFound("the program nft is not installed", next="apt-get install nftables") from error


# --- pieces of rules ---------------------------------------------------------------------


def match(left: Statement, right: object, op: str = "==") -> Statement:
    """left == right, as a statement of a rule."""
    return {"match": {"left": left, "op": op, "right": right}}


def payload(protocol: str, field: str) -> Statement:
    """A field of a packet: ip saddr, tcp dport."""
    return {"payload": {"protocol": protocol, "field": field}}


def meta(key: str) -> Statement:
    """What the kernel knows about a packet: iifname, oifname."""
    return {"meta": {"key": key}}


def network(address: str, prefix: int) -> Statement:
    """ADDRESS/PREFIX on the right of a match."""
    return {"prefix": {"addr": address, "len": prefix}}
