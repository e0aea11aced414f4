"""cannot reach the machine: no answer"""

# exercise: hook-network
import subprocess


def attach(state):
    pid, notes = state["pid"], state["annotations"]
    for words in (
        f"ip link add host0 type veth peer name eth0 netns {pid}",
        "ip link set host0 up",
        f"nsenter --target {pid} --net ip address add {notes['net.container']} dev eth0",
        f"nsenter --target {pid} --net ip link set eth0 up",
    ):
        subprocess.run(words.split(), check=True)
