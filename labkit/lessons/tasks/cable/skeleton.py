# exercise: cable
import socket

RTM_NEWLINK = 16  # the message's type: make or change a link
NLM_F_CREATE, NLM_F_EXCL = 0x400, 0x200
IFF_UP = 1
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_PID = 3, 10, 18, 19
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2  # inside IFLA_LINKINFO
VETH_INFO_PEER = 1  # inside IFLA_INFO_DATA


def cable(bridge, outside, inside, pid):
    """Lay a cable from the bridge into the network of process `pid`.

    bridge  -- name of the bridge; made when it is not there, and up
    outside -- name of the veth's end here: a port of the bridge, and up
    inside  -- name of the end over there
    link(flags), attribute(kind, value) and ask(kind, flags, body) stand above.
    """
    ...
