"""nobody has moved it"""

# exercise: cable
import os
import socket
import struct

RTM_NEWLINK = 16  # the message's type: make or change a link
NLM_F_CREATE, NLM_F_EXCL = 0x400, 0x200
IFF_UP = 1
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_PID = 3, 10, 18, 19
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2  # inside IFLA_LINKINFO
VETH_INFO_PEER = 1  # inside IFLA_INFO_DATA


def link(flags):
    """What a message about a link begins with: family, type, index, the flags, and which flags to change."""
    return struct.pack("=BxHiII", 0, 0, 0, flags, flags)


def attribute(kind, value):
    """One attribute: its length, its kind, its value, and zeros up to a multiple of four."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def ask(kind, flags, body):
    """Send one message to the kernel, and read its answer: an error number, 0 for done."""
    message = struct.pack("=IHHII", 16 + len(body), kind, flags | 0x1 | 0x4, 1, 0) + body  # REQUEST, ACK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(message)
        (error,) = struct.unpack_from("=i", kernel.recv(4096), 16)
    if error:
        raise OSError(-error, os.strerror(-error))
    return message


def cable(bridge, outside, inside, pid):
    """Lay a cable from the bridge into the network of process `pid`."""
    up = link(IFF_UP)
    kind = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "bridge"))
    try:
        ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, up + attribute(IFLA_IFNAME, bridge) + kind)
    except FileExistsError:
        pass  # another container has made it
    peer = link(0) + attribute(IFLA_IFNAME, inside)
    data = attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer))
    kind = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "veth") + data)
    port = attribute(IFLA_IFNAME, outside) + attribute(IFLA_MASTER, socket.if_nametoindex(bridge))
    ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, up + port + kind)
