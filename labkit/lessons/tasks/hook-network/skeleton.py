# exercise: hook-network
import subprocess


def attach(state):
    """Give the container of this state a network; what raises makes the hook fail, and the container with it.

    The machine's end of the cable is called host0 and has the address state["annotations"]["net.machine"];
    the container's is eth0, with state["annotations"]["net.container"]: both as 10.1.2.3/24.
    """
    ...
