# exercise: cni-plugin
import ipaddress
import subprocess
from pathlib import Path


def plugin(environment, config):
    """Do what environment["CNI_COMMAND"] says; return the dictionary that a plugin prints as JSON.

    environment -- CNI_COMMAND (ADD or DEL), CNI_CONTAINERID, CNI_NETNS (path of a network namespace), CNI_IFNAME
    config      -- cniVersion, name, bridge, subnet ("10.1.0.0/24"), gateway ("10.1.0.1"), dataDir (an empty folder)

    ADD: device CNI_IFNAME in the namespace, up, with a free address of the subnet; a default route by the gateway;
    its other end a port of the bridge, which has the gateway's address. Returns
    {"cniVersion": ..., "interfaces": [{"name": ..., "sandbox": CNI_NETNS}],
     "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}]}
    DEL: all of it is gone, and the address is free again. Also when there is nothing to remove. Returns {}.
    """
    ...
