"""Floor 2: starting a network's name server, and finding it again.

Owns: the server's sockets until it runs, and its entry in the network's ledger, by which the
last container's end, the network's removal and `labkit reset` end it.

Read: labkit.network.owned, by which it is started; ipv6(7) and ip(7) on IP_FREEBIND.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import socket
import sys

from labkit.errors import InUse, LabError
from labkit.kernel import process
from labkit.kernel.ledger import Ledger
from labkit.network import ports
from labkit.network.owned import start_owned
from labkit.network.plan import Plan

ROLE = "names"
PORT = 53
IPV6_FREEBIND = 78  # include/uapi/linux/in6.h: an address may be bound while the kernel still tries it


def ensure(plan: Plan, ledger: Ledger) -> None:
    """Start the name server of a network on its gateway addresses, unless it runs.

    plan -- a network that has its gateway; ledger -- the network's, which will own the process
    The caller holds the plans' lock, so that two cannot start one at once.
    Raises LabError when dnspython is missing, InUse when somebody else serves names there.
    """
    for entry in ledger.entries():
        if entry.kind == "process" and entry.fields.get("role") == ROLE:
            if process.is_alive(int(entry.fields["pid"]), int(entry.fields["start"])):
                return
            ledger.forget(entry)  # it was killed from outside
    if importlib.util.find_spec("dns") is None:
        raise LabError(
            f"cannot serve names on the network {plan.name}",
            why="containers find one another by a name server that needs the Python package dnspython",
            next=f"{sys.executable} -m pip install dnspython; or use the default bridge, which has no names",
        )
    with contextlib.ExitStack() as held:
        listeners = [
            (protocol, held.enter_context(_listen(address, protocol)))
            for address in (plan.gateway, plan.gateway6)
            if address
            for protocol in ports.PROTOCOLS
        ]
        words = [plan.name, *(f"{protocol}:{listener.fileno()}" for protocol, listener in listeners)]
        sockets = [listener for _, listener in listeners]
        start_owned("labkit.network.dns_server", words, sockets, ledger, "process", role=ROLE)


def _listen(address: str, protocol: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, ports.PROTOCOLS[protocol])
    try:
        if ":" in address:
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        if protocol == "tcp":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, PORT))
        if protocol == "tcp":
            listener.listen(64)
    except OSError as error:
        listener.close()
        what = f"cannot serve names on {address}, port {PORT}/{protocol}"
        if error.errno == errno.EADDRINUSE:
            holder = ports.holder(ports.PortMapping(address, PORT, PORT, protocol))
            raise InUse(
                what,
                why=holder or "somebody listens there already",
                next="let that server listen on its own addresses only (dnsmasq: bind-interfaces), or stop it",
            ) from error
        raise LabError(what, why=str(error)) from error
    return listener
