"""the container has no device eth0"""

# exercise: hook-network
import subprocess


def attach(state):
    notes = state["annotations"]
    for words in (
        "ip link add host0 type veth peer name eth0",
        f"ip address add {notes['net.machine']} dev host0",
        "ip link set host0 up",
        f"ip address add {notes['net.container']} dev eth0",
        "ip link set eth0 up",
    ):
        subprocess.run(words.split(), check=True)
