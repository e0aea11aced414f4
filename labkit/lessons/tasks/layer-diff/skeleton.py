# exercise: layer-diff
import os
import stat
import tarfile


def diff(upper, layer):
    """Write what an upper folder holds as a plain tar archive, a layer, to the path `layer`.

    Names are relative to `upper`; a folder stands before what is in it, names are sorted.
    Each entry has the file's mode, uid, gid and time (whole seconds), and its bytes, or where it points.
    A second name of the same file is a hard link to the first.
    A whiteout NAME becomes an empty file .wh.NAME beside its place; an opaque folder holds an
    empty file .wh..wh..opq.
    The same folder makes the same bytes, today and tomorrow.
    """
    ...
