"""cannot reach the machine: Network is unreachable"""

# exercise: hook-network
import subprocess


def attach(state):
    pid, notes = state["pid"], state["annotations"]
    for words in (
        f"ip link add host0 type veth peer name eth0 netns {pid}",
        f"ip address add {notes['net.machine']} dev host0",
        "ip link set host0 up",
        f"nsenter --target {pid} --net ip address add {notes['net.container']} dev eth0",
    ):
        subprocess.run(words.split(), check=True)
