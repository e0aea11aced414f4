"""still in the user namespace it came from"""

import os


def become_root():
    try:
        os.setuid(0)
    except PermissionError:
        pass
