# exercise: mend
import json
import subprocess
from pathlib import Path


def mend(pid, address, gateway, bridge, others):
    """Called on the machine: make the container's network work again, whatever of the seven is broken.

    pid     -- a process of the container; its device is eth0
    address -- the container's, such as "172.30.0.2/24"; nobody else should have it
    gateway -- the machine's address on the bridge; the name server is there too
    bridge  -- name of the bridge; its MTU is right
    others  -- a list: a process of each other container on the bridge
    Nothing that is right is taken away, and no rule or policy of somebody else.
    """
    ...
