"""Top floor: the check of furnish.

Owns: a folder with things to hide and to freeze, and how they look to a process that lives in it.
Read: null(4), mount(2) on MS_BIND and MS_REMOUNT, statvfs(3).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from labkit.lessons.ground import Ground
from labkit.lessons.outcome import Wrong
from labkit.observe import mountinfo

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def check(furnish: Callable[[str, list[str], list[str]], None], lab: Ground) -> None:
    """Look through /proc/PID/root at the devices, the hidden and the frozen paths."""
    root, secret = lab.folder(), lab.token()
    (root / "dev").mkdir()
    masked = [root / lab.token(), root / lab.token()]
    masked[0].write_text(secret)
    masked[1].mkdir()
    (masked[1] / secret).touch()
    frozen = root / lab.token()
    frozen.mkdir()
    (frozen / "file").write_text(secret)
    caller = lab.child("caller")
    caller.do(furnish, str(root), [str(path) for path in masked], [str(frozen)])
    inside = Path(f"/proc/{caller.pid}/root")
    table = {mount.place: mount for mount in mountinfo.read(caller.pid)}
    devices(inside / str(root)[1:] / "dev", root / "dev", table.get(str(root / "dev")))
    for path in masked:
        hidden(inside / str(path)[1:], path, secret)
    mount = table.get(str(frozen))
    if mount is None:
        raise Wrong(
            "the frozen folder can still be written to: no mount of its own lies on it, whose flags could say ro"
        )
    if not mount.read_only:
        raise Wrong(f"the frozen folder can still be written to: its mount says {','.join(mount.options)}. "
                    "A bind looks at no other flag")  # fmt: skip
    if (inside / str(frozen)[1:] / "file").read_text() != secret:
        raise Wrong("the frozen folder no longer shows its file")
    if not os.access(frozen / "file", os.W_OK) or os.statvfs(frozen).f_flag & os.ST_RDONLY:
        raise Wrong("the folder is read-only for the machine too")


def devices(inside: Path, image: Path, mount: mountinfo.Mount | None) -> None:
    """Whether /dev holds the six devices, on a file system of its own."""
    if found := sorted(image.iterdir()):
        raise Wrong(f"{found[0].name} lies in the folder itself, and not on a tmpfs over it: "
                    "it will be there for everybody who uses this root")  # fmt: skip
    names = sorted(path.name for path in inside.iterdir())
    if len(names) > 30 or (mount is not None and mount.kind == "devtmpfs"):
        raise Wrong(f"it gives all devices of the machine away: {len(names)} names in /dev")
    for name in DEVICES:
        try:
            here, there = os.stat(f"/dev/{name}"), (inside / name).stat()
        except FileNotFoundError:
            raise Wrong(f"/dev/{name} is missing; there are: {' '.join(names) or 'none'}") from None
        if not stat.S_ISCHR(there.st_mode) or there.st_rdev != here.st_rdev:
            raise Wrong(f"/dev/{name} is not the device {os.major(here.st_rdev)}:{os.minor(here.st_rdev)}, "
                        f"but {stat.filemode(there.st_mode)}")  # fmt: skip
    if mount is None or mount.kind != "tmpfs":
        raise Wrong("/dev is no tmpfs")


def hidden(inside: Path, outside: Path, secret: str) -> None:
    """Whether a masked path shows nothing inside, and all outside."""
    if outside.is_dir():
        if not (outside / secret).exists():
            raise Wrong("the masked folder's file is gone for the machine too")
        if inside.is_dir() and (names := os.listdir(inside)):
            raise Wrong(f"the masked folder still shows {names[0]}")
    else:
        if outside.read_text() != secret:
            raise Wrong("the masked file is gone for the machine too")
        if inside.is_file() and inside.read_text() == secret:
            raise Wrong("the masked file can still be read")
