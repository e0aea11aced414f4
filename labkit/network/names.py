"""Floor 2: the two files by which a container finds names: resolv.conf and hosts.

Owns: their text.

Read: resolv.conf(5), hosts(5), systemd-resolved.service(8).
"""

from __future__ import annotations

from pathlib import Path

# The machine's own file, then the one in which systemd-resolved lists its real servers.
RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def resolv_conf() -> str:
    """The machine's name servers; one on its loopback cannot be reached from a container."""
    for file in RESOLV_CONFS:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        servers = [line.split()[1] for line in lines if line.startswith("nameserver ") and len(line.split()) > 1]
        reachable = [server for server in servers if not server.startswith("127.") and server != "::1"]
        if reachable:
            search = [line for line in lines if line.startswith("search ") and line != "search ."]
            return "\n".join([f"nameserver {server}" for server in reachable] + search) + "\n"
    return "# this machine knows no name server that a container can reach\n"


def hosts(hostname: str, address: str | None) -> str:
    """localhost, and the container's own name."""
    own = f"{address}\t{hostname}\n" if address else f"127.0.1.1\t{hostname}\n"
    return "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + own
