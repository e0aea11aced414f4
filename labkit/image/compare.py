"""Floor 2: two trees into a layer: what makes the second one out of the first.

Owns: what counts as a change: another kind, mode, owner, time (to the second), attribute,
content or set of hard links.  It is what umoci finds by its hashes; Docker's overlay knows it
without looking, from the writable folder (labkit.image.diff).

Read: the OCI image specification, layer ("Change Types", "Representing Changes").
"""

from __future__ import annotations

import filecmp
import os
import stat
from pathlib import Path
from typing import IO

from labkit.image.diff import Writer, attributes

Looks = dict[str, os.stat_result]


def compare(before: Path, after: Path, output: IO[bytes]) -> None:
    """Write a plain tar that, applied onto `before`, makes `after`; nothing of the roots themselves.

    The same two trees make the same bytes.  A file that has several names comes with all of them
    as soon as one of them changed, since a layer cannot link into the layers below.
    Raises BadInput, OSError.
    """
    old, new = _looks(before), _looks(after)
    old_names, new_names = _names(old), _names(new)
    changed = {name for name in new if name not in old or _differ(before / name, old[name], after / name, new[name])}
    changed |= {name for name in new if name in old and old_names.get(name) != new_names.get(name)}
    for name in list(changed):
        changed.update(new_names.get(name, ()))
    gone = {name for name in old if name not in new and _parent_stays(name, old, new)}
    writer = Writer(output)
    for name in sorted(changed | gone, key=lambda name: name.split("/")):
        if name in gone:
            writer.delete(name)
        else:
            writer.add(after / name, name)
    writer.close()


def _looks(root: Path) -> Looks:
    """{path beneath the root: what lstat(2) says}, without recursion."""
    found: Looks = {}
    todo = [""]
    while todo:
        above = todo.pop()
        for name in os.listdir(root / above):
            path = f"{above}/{name}" if above else name
            found[path] = (root / path).lstat()
            if stat.S_ISDIR(found[path].st_mode):
                todo.append(path)
    return found


def _names(looks: Looks) -> dict[str, tuple[str, ...]]:
    """{path: all names of that file}, for files that have several."""
    groups: dict[tuple[int, int], list[str]] = {}
    for name, seen in looks.items():
        if seen.st_nlink > 1 and not stat.S_ISDIR(seen.st_mode):
            groups.setdefault((seen.st_dev, seen.st_ino), []).append(name)
    return {name: tuple(sorted(group)) for group in groups.values() if len(group) > 1 for name in group}


def _parent_stays(name: str, old: Looks, new: Looks) -> bool:
    """A deletion is said once: of the topmost thing that went, and not below what became another kind."""
    where = name.rpartition("/")[0]
    return not where or (where in new and stat.S_ISDIR(new[where].st_mode))


def _differ(old: Path, old_looks: os.stat_result, new: Path, new_looks: os.stat_result) -> bool:
    if (old_looks.st_mode, old_looks.st_uid, old_looks.st_gid, int(old_looks.st_mtime)) != (
        new_looks.st_mode, new_looks.st_uid, new_looks.st_gid, int(new_looks.st_mtime)
    ):  # fmt: skip
        return True
    if stat.S_ISREG(new_looks.st_mode) and (
        old_looks.st_size != new_looks.st_size or not filecmp.cmp(old, new, shallow=False)
    ):
        return True
    if stat.S_ISLNK(new_looks.st_mode) and os.readlink(old) != os.readlink(new):
        return True
    return old_looks.st_rdev != new_looks.st_rdev or _attributes(old) != _attributes(new)


def _attributes(path: Path) -> dict[str, bytes]:
    return {key: os.getxattr(path, key, follow_symlinks=False) for key in attributes(path)}
