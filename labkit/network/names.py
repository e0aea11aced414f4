"""Floor 2: the two files by which a container finds names: resolv.conf and hosts.

Owns: their text, and which name servers the machine itself asks.

Read: resolv.conf(5), hosts(5), systemd-resolved.service(8).
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path

# The machine's own file, then the one in which systemd-resolved lists its real servers.
RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def resolv_conf(gateways: Sequence[str] = ()) -> str:
    """The machine's name servers; one on its loopback cannot be reached from a container.

    gateways -- on a network with a name service: where that listens; it asks the machine's servers in its turn
    """
    if gateways:
        # ndots:0 -- a name of one label is a container's; the machine's search list comes after.
        return "".join([*(f"nameserver {each}\n" for each in gateways), *_search(RESOLV_CONFS), "options ndots:0\n"])
    for file in RESOLV_CONFS:
        reachable = [server for server in _servers(file) if not server.startswith("127.") and server != "::1"]
        if reachable:
            return "".join([*(f"nameserver {server}\n" for server in reachable), *_search((file,))])
    return "# this machine knows no name server that a container can reach\n"


def servers() -> list[str]:
    """Whom the machine asks; a process of the machine reaches those on its loopback too."""
    return next((found for found in map(_servers, RESOLV_CONFS) if found), [])


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _servers(file: Path) -> list[str]:
    """The addresses in one spelling; what is no address is left out, as the C library does."""
    found = []
    for line in _lines(file):
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            with contextlib.suppress(ValueError):
                found.append(str(ipaddress.ip_address(words[1])))
    return found


def _search(files: Sequence[Path]) -> list[str]:
    """The first file's search list."""
    found = ([line + "\n" for line in _lines(file) if line.startswith("search ") and line != "search ."]
             for file in files)  # fmt: skip
    return next((each for each in found if each), [])


def hosts(hostname: str, address: str | None) -> str:
    """localhost, and the container's own name."""
    own = f"{address}\t{hostname}\n" if address else f"127.0.1.1\t{hostname}\n"
    return "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + own
