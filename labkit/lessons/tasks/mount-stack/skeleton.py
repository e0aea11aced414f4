# exercise: mount-stack
import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def stack(target, lower, upper, work):
    """Mount an overlay on the folder `target`, with the new mount interface.

    lower -- the folders of the layers, the bottom first, as an image lists them
    upper -- the folder that takes every write
    work  -- an empty folder on the same file system as `upper`

    call("fsopen", "overlay", C.FSOPEN_CLOEXEC) is the first step. Close every descriptor that you open.
    """
    ...
