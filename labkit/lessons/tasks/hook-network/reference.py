# exercise: hook-network
import subprocess


def attach(state):
    """Give the container of this state a network."""
    pid, notes = state["pid"], state["annotations"]
    inside = f"nsenter --target {pid} --net"
    for words in (
        f"ip link add host0 type veth peer name eth0 netns {pid}",
        f"ip address add {notes['net.machine']} dev host0",
        "ip link set host0 up",
        f"{inside} ip address add {notes['net.container']} dev eth0",
        f"{inside} ip link set eth0 up",
    ):
        subprocess.run(words.split(), check=True)
