# exercise: publish
import os
import socket
import subprocess
import threading


def publish(port, address, inner):
    """Called on the machine: its TCP port `port` leads to port `inner` of a container, whose address is `address`.

    From outside, at every address of the machine, and the container sees who calls.
    From the machine itself, at 127.0.0.1. The function returns, and the port stays open.
    """
    ...
