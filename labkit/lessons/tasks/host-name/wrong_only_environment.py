"""no host name was set, neither the child's nor the machine's"""

import os


def rename(name: str) -> None:
    os.environ["HOSTNAME"] = name
