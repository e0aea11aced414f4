"""is a character device 0:0"""

import os
import tarfile


def diff(upper, layer):
    """Write what an upper folder holds as a plain tar archive."""
    with tarfile.open(layer, "w") as archive:
        for name in sorted(os.listdir(upper)):
            archive.add(os.path.join(upper, name), name)
