"""no answer"""

# exercise: masquerade
from pathlib import Path


def way_out(bridge, subnet):
    """Called on the machine: let the containers of `bridge` reach the world, and change nothing else."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
