# exercise: masquerade
import subprocess
from pathlib import Path


def way_out(bridge, subnet):
    """Called on the machine: let the containers of `bridge` reach the world, and change nothing else.

    bridge -- name of the bridge
    subnet -- the containers' addresses, such as "172.30.0.0/24"
    What leaves the machine, and comes from the subnet, carries the machine's own address. Nothing else does.
    """
    ...
