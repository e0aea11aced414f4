"""Floor 2: the container's end of its network, set up from inside its namespace.

Owns: loopback, the addresses and the default routes; and a socket in the namespace of a
container that runs already, for `labkit network connect`.

Read: rtnetlink(7), network_namespaces(7), setns(2); ip-sysctl.rst on accept_ra.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import NotFound, explain
from labkit.kernel import constants, rtnetlink
from labkit.kernel.attempts import attempt
from labkit.kernel.netlink import Netlink
from labkit.kernel.syscalls import call
from labkit.network.endpoint import Endpoint

SYSCTLS = Path("/proc/sys/net/ipv6/conf")  # of the network namespace that the reader is in


def configure(endpoint: Endpoint) -> None:
    """Everything up, the addresses on the device, the gateway as the way out."""
    with Netlink() as netlink:
        rtnetlink.set_up(netlink, socket.if_nametoindex("lo"))
        index = socket.if_nametoindex(endpoint.name)
        rtnetlink.add_address(netlink, index, endpoint.address, endpoint.prefix)
        if endpoint.address6:
            # The way out is known: another container that plays router shall not be believed.
            (SYSCTLS / endpoint.name / "accept_ra").write_text("0")
            rtnetlink.add_address(netlink, index, endpoint.address6, endpoint.prefix6)
        rtnetlink.set_up(netlink, index)
        for gateway in (endpoint.gateway, endpoint.gateway6):
            if gateway:
                rtnetlink.add_default_route(netlink, gateway)


@contextmanager
def visit(pid: int) -> Iterator[None]:
    """Be in the network namespace of process `pid` meanwhile; sockets opened there stay in it.

    Raises NotFound when the process is gone, LabError when its network may not be entered.
    Refused in a process with threads: see labkit.kernel.syscalls.
    """
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(pid)
        try:
            yield
        finally:
            call("setns", home, constants.CLONE_NEWNET)
    finally:
        os.close(home)


def _enter(pid: int) -> None:
    try:
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"process {pid} is gone, and its network with it") from error
    except OSError as error:
        explain(error, f"cannot look into the network of process {pid}")
    try:
        attempt(f"cannot enter the network of process {pid}", "setns", there, constants.CLONE_NEWNET)
    finally:
        os.close(there)
