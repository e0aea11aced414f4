"""a symbolic link in the upper folder"""

import os
import stat
import tarfile


def diff(upper, layer):
    """Write what an upper folder holds as a plain tar archive, a layer, to the path `layer`."""
    first = {}  # inode number: the first name of that file

    def walk(folder):
        for name in sorted(os.listdir(os.path.join(upper, folder))):
            path = os.path.join(folder, name)
            yield path
            if stat.S_ISDIR(os.lstat(os.path.join(upper, path)).st_mode):
                yield from walk(path)

    def add(archive, path):
        place = os.path.join(upper, path)
        info = os.lstat(place)
        header = tarfile.TarInfo(path)
        header.mode, header.uid, header.gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
        header.mtime = int(info.st_mtime)
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            folder, name = os.path.split(path)
            header.name, header.mode = os.path.join(folder, f".wh.{name}"), 0o644
        elif stat.S_ISDIR(info.st_mode):
            header.type = tarfile.DIRTYPE
        elif first.setdefault(info.st_ino, path) != path:
            header.type, header.linkname = tarfile.LNKTYPE, first[info.st_ino]
        elif os.path.isfile(place):
            header.size = os.stat(place).st_size
            with open(place, "rb") as data:
                archive.addfile(header, data)
            return
        else:
            return  # sockets, pipes and devices: a real tool keeps the last two
        archive.addfile(header)
        if header.isdir() and opaque(place):
            mark = tarfile.TarInfo(os.path.join(path, ".wh..wh..opq"))
            mark.mtime = header.mtime
            archive.addfile(mark)

    def opaque(place):
        try:
            return os.getxattr(place, "trusted.overlay.opaque") == b"y"
        except OSError:  # it has no such attribute
            return False

    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in walk(""):
            add(archive, path)
