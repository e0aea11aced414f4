# exercise: whiteouts
import os
import shutil
import tarfile


def apply(layer, root):
    """Apply a layer to the folder `root`, which holds the layers below it.

    layer -- path of a plain tar archive with files, folders and symbolic links
    root  -- path of a folder

    An entry .wh.NAME removes NAME; an entry .wh..wh..opq removes from its folder what came from
    below, and nothing that this layer brings. Neither of them is a file in `root` afterwards.
    """
    ...
