"""Applied to a copy of the lower folder, does the layer give what the overlay showed, and the same bytes each time?"""

import hashlib
import os
import random
import shutil
import stat
import tarfile
from pathlib import Path

from labkit.errors import LabError
from labkit.image.unpack import apply
from labkit.kernel import mounts
from labkit.kernel.overlay import mount_overlay
from labkit.lessons.child import Child
from labkit.lessons.outcome import Wrong

WHEN = 1_500_000_000  # seconds since 1970


def build(lower, words):
    """The layer below: the same files wherever it is called."""
    for name in ("keep", "cleared", "cleared/deep", "plain"):
        (lower / name).mkdir(parents=True, exist_ok=True)
        for word in words[:3]:
            (lower / name / word).write_text(f"{name} {word}")
    for path in sorted(lower.rglob("*"), reverse=True):
        os.utime(path, (WHEN, WHEN))


def change(merged, words, dice):
    """What a container does; returns {path: look} of the stack afterwards."""
    (merged / "plain" / words[0]).unlink()
    shutil.rmtree(merged / "cleared")
    (merged / "cleared").mkdir()
    (merged / "cleared" / words[3]).write_text("new in a cleared folder")
    for word in words[4:9]:
        (merged / "plain" / word).write_text(word * dice.randint(1, 2000))
        os.chown(merged / "plain" / word, dice.randint(1000, 60000), dice.randint(1000, 60000))
    os.chmod(merged / "plain" / words[1], 0o4711)
    os.symlink(words[4], merged / "plain" / "pointer")
    os.link(merged / "plain" / words[4], merged / "twin")
    for path in [*merged.rglob("*"), merged]:
        os.utime(path, (WHEN + dice.randint(1, 10**6),) * 2, follow_symlinks=False)
    return looks(merged)


def looks(root):
    """{path: (what it is, what is in it, mode, owner, time, its first name)}."""
    found, first = {}, {}
    for path in sorted(root.rglob("*")):
        info, name = path.lstat(), str(path.relative_to(root))
        kind = stat.S_IFMT(info.st_mode)
        inner = os.readlink(path) if stat.S_ISLNK(kind) else path.read_text() if stat.S_ISREG(kind) else ""
        same = name if stat.S_ISDIR(kind) else first.setdefault(info.st_ino, name)
        mode, owner = oct(stat.S_IMODE(info.st_mode)), f"{info.st_uid}:{info.st_gid}"
        found[name] = (kind, inner, mode, owner, int(info.st_mtime), same)
    return found


def prepare(here, words, seed):
    """In the child: a lower folder, changed through a real overlay, which is then taken down again."""
    mounts.mount("tmpfs", here, "tmpfs")
    for name in ("lower", "upper", "work", "merged", "again"):
        (here / name).mkdir()
    build(here / "lower", words)
    mount_overlay(here / "merged", [here / "lower"], here / "upper", here / "work")
    try:
        return change(here / "merged", words, random.Random(seed))
    finally:
        mounts.unmount(here / "merged")


def shuffle(upper, dice):
    """Give a folder's entries another order: on tmpfs, a rename puts a file to the other end."""
    names = os.listdir(upper)
    dice.shuffle(names)
    for name in names:
        os.rename(upper / name, upper / "away")
        os.rename(upper / "away", upper / name)
        info = os.lstat(upper / name)
        if stat.S_ISDIR(info.st_mode):
            times = (info.st_atime_ns, info.st_mtime_ns)
            shuffle(upper / name, dice)
            os.utime(upper / name, ns=times)


def check(function, lab):
    """The child makes the changes and calls the function; the layer is read and applied out here."""
    here, flat = Path(lab.folder()), Path(lab.folder())
    words = [f"{number}{lab.token(5)}" for number in range(9)]
    random.Random(lab.token()).shuffle(words)
    child = lab.child()
    seen = Child.do(child, prepare, here, words, lab.token())
    child.do(function, str(here / "upper"), str(here / "layer.tar"))
    outside = Path(f"/proc/{child.pid}/root{here}")
    entries = read(outside / "layer.tar")
    judge_entries(entries, outside, words)
    build(flat, words)
    try:
        data = (outside / "layer.tar").read_bytes()
        apply(outside / "layer.tar", "", "sha256:" + hashlib.sha256(data).hexdigest(), flat, overlay=False)
    except LabError as error:
        raise Wrong(f"the layer cannot be applied: {error}") from error
    compare(looks(flat), seen)
    Child.do(child, shuffle, here / "upper", random.Random(lab.token()))
    child.do(function, str(here / "upper"), str(here / "again.tar"))
    if (outside / "again.tar").read_bytes() != data:
        order = [one.name for one in read(outside / "again.tar").values()] != [one.name for one in entries.values()]
        raise Wrong(
            "the same folder, its names listed by the kernel in another order, makes another layer"
            + (": the entries stand in another order too. Sort the names" if order else "")
        )


def read(path):
    """{name: entry} of the archive, in its own order."""
    if not path.exists():
        raise Wrong("the function returned, and there is no file at the path `layer`")
    try:
        with tarfile.open(path) as archive:
            return {os.path.normpath(entry.name): entry for entry in archive}
    except (OSError, tarfile.TarError) as error:
        raise Wrong(f"what was written to `layer` is no tar archive: {error}") from error


def judge_entries(entries, outside, words):
    """What can be said of single entries, in the words of the layer's specification."""
    deleted, folder = f"plain/{words[0]}", "cleared"
    for name, entry in entries.items():
        if entry.name.startswith("/") or name.startswith(("..", "tmp", "var", "home")):
            raise Wrong(f"the layer has an entry {entry.name}: names must be relative to the upper folder")
        if entry.ischr() and (entry.devmajor, entry.devminor) == (0, 0):
            raise Wrong(f"the entry {name} is a character device 0:0, overlayfs's mark; a layer says .wh.NAME instead")
    if f".wh.{deleted}" in entries:
        raise Wrong(f"in .wh.{deleted} the .wh. stands before the whole path; it belongs before the last part of it")
    mark = f"plain/.wh.{words[0]}"
    if mark not in entries:
        raise Wrong(f"{deleted} was deleted, and the layer has no entry {mark}: once it is applied, the file is back")
    if not entries[mark].isreg() or entries[mark].size:
        raise Wrong(f"the entry {mark} must be an empty regular file")
    if f"{folder}/.wh..wh..opq" not in entries:
        raise Wrong(
            f"the folder was removed and made again: {folder} is opaque. The layer has no entry "
            f"{folder}/.wh..wh..opq: once it is applied, {folder}/{words[1]} is back"
        )
    pointer = entries.get("plain/pointer")
    if pointer is None or not pointer.issym() or pointer.linkname != words[4]:
        kind = "missing" if pointer is None else f"of type {pointer.type!r}, {pointer.size} bytes"
        raise Wrong(f"plain/pointer is a symbolic link in the upper folder (to {words[4]}); in the layer it is {kind}")
    names = (f"plain/{words[4]}", "twin")
    if sum(entry.islnk() for name, entry in entries.items() if name in names) != 1:
        raise Wrong(f"{names[0]} and twin are one file in the upper folder (the same inode), and two in the layer")


def compare(applied, seen):
    """The tree with the layer applied, and the tree that the overlay showed."""
    parts = (
        "it is another kind of file",
        "its content differs",
        "its mode is {}, not {}",
        "it belongs to {}, not to {}",
        "it has the time {}, not {}",
        "its other names are not those of before",
    )
    for name in sorted(set(seen) | set(applied)):
        if name not in applied:
            raise Wrong(f"the stack showed {name}; with the layer applied to the lower folder it is missing")
        if name not in seen:
            raise Wrong(f"the stack did not show {name}; with the layer applied to the lower folder it is there")
        for said, one, other in zip(parts, applied[name], seen[name], strict=True):
            if one != other:
                raise Wrong(f"with the layer applied, {name} is not what the stack showed: {said.format(one, other)}")
