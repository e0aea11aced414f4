"""raised IsADirectoryError"""

import os
import shutil
import tarfile


def apply(layer, root):
    """Apply a layer to the folder `root`, which holds the layers below it."""
    brought = set()  # paths that this layer has, and the folders on the way to them

    def remove(path):
        if os.path.islink(path) or os.path.isfile(path):
            os.unlink(path)
        elif os.path.isdir(path):
            shutil.rmtree(path)

    def forget(folder):
        """Remove what came from below out of a folder."""
        for name in os.listdir(os.path.join(root, folder)):
            path = os.path.join(folder, name)
            if path not in brought:
                remove(os.path.join(root, path))
            elif os.path.isdir(os.path.join(root, path)) and not os.path.islink(os.path.join(root, path)):
                forget(path)

    with tarfile.open(layer) as archive:
        for entry in archive:
            folder, name = os.path.split(entry.name.rstrip("/"))
            if name == ".wh..wh..opq":
                forget(folder)
            elif name.startswith(".wh."):
                remove(os.path.join(root, folder, name.removeprefix(".wh.")))
            else:
                place = os.path.join(root, folder, name)
                if not (entry.isdir() and os.path.isdir(place) and not os.path.islink(place)):
                    pass
                archive.extract(entry, root, filter="fully_trusted")
                path = os.path.join(folder, name)
                while path:
                    brought.add(path)
                    path = os.path.dirname(path)
