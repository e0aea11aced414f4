"""forwards nothing"""

# exercise: masquerade
import subprocess
from pathlib import Path


def way_out(bridge, subnet):
    """Called on the machine: let the containers of `bridge` reach the world, and change nothing else."""
    rules = f"""
    table ip way_out {{
        chain postrouting {{
            type nat hook postrouting priority srcnat
            ip saddr {subnet} oifname != "{bridge}" counter masquerade comment "way out"
        }}
    }}
    """
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
