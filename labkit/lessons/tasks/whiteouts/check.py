"""Top floor: the check of whiteouts.

Owns: two layers with random names, and what the second must leave of the first.
Read: the OCI image specification, layer ("Applying Changesets", "Whiteouts").
"""

from __future__ import annotations

import io
import os
import tarfile

from labkit.image import tarball
from labkit.lessons.outcome import Wrong


def check(apply, lab):
    """The function runs in a child on a folder of ours; then the folder is read."""
    here = lab.folder()
    root = here / "root"
    root.mkdir()
    names = {word: f"{word}-{lab.token()}" for word in ("gone", "folder", "kept", "link", "again", "box", "new")}
    below(root, names, lab.token())
    before = tree(root)
    text = lab.token()
    entries, wanted = above(names, text, before)
    plain(here / "layer.tar", entries)
    lab.call(apply, str(here / "layer.tar"), str(root))
    judge(tree(root), wanted, names)


def below(root, names, text):
    """What the layers below have left."""
    for path in ("gone", "kept"):
        (root / names[path]).write_text(text)
    for path in ("folder", "again", "box"):
        (root / names[path] / "deep").mkdir(parents=True)
        (root / names[path] / "deep" / "old").write_text(text)
        (root / names[path] / "old").write_text(text)
    (root / names["link"]).symlink_to(names["box"])


def above(names, text, before):
    """(the entries of the layer, in its own order; the tree that must come of it)."""
    again, new = names["again"], names["new"]
    entries = [
        tarball.folder(again),
        tarball.folder(f"{again}/deep"),
        tarball.file(f"{again}/deep/{new}", text),
        tarball.file(f"{again}/.wh..wh..opq", ""),
        tarball.file(f"{again}/{new}", text),
        tarball.file(f".wh.{names['gone']}", ""),
        tarball.file(f".wh.{names['folder']}", ""),
        tarball.file(f".wh.{names['link']}", ""),
        tarball.folder(names["box"]),
        tarball.file(f"{names['box']}/deep", text),  # a file, where a folder was
        tarball.file(new, text),
    ]
    wanted = {
        names["kept"]: before[names["kept"]],
        names["box"]: "folder",
        f"{names['box']}/old": before[f"{names['box']}/old"],
        f"{names['box']}/deep": text,
        again: "folder",
        f"{again}/deep": "folder",
        f"{again}/deep/{new}": text,
        f"{again}/{new}": text,
        new: text,
    }
    return entries, wanted


def plain(path, entries):
    """The archive, in the order given: marks stand behind files of the same folder."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            entry.header.mtime = 1_600_000_000
            archive.addfile(entry.header, io.BytesIO(entry.data))


def tree(root):
    """{path: text of the file, "folder", or where a link points}."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = os.fspath(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "folder" if path.is_dir() else path.read_text()
    return found


def judge(found, wanted, names):
    """Say the first thing that is not as it must be, the reason first."""
    again, box = names["again"], names["box"]
    if marks := [path for path in found if os.path.basename(path).startswith(".wh.")]:
        raise Wrong(f"{marks[0]} is a file in the root now: a whiteout is a mark, not a file")
    if box not in found or f"{box}/old" not in found:
        raise Wrong(f"{box}/old is gone: the layer deletes {names['link']}, a symbolic link to {box}, not its target")
    for word in ("gone", "folder", "link"):
        if names[word] in found:
            raise Wrong(f"{names[word]} is still there; the layer has .wh.{names[word]}")
    own = [path for path in wanted if path.startswith(f"{again}/") and path not in found]
    if own:
        raise Wrong(f"{own[0]} is missing: the layer itself brings it, an opaque folder loses what is *below* alone")
    if old := [path for path in found if path.startswith(f"{again}/") and path not in wanted]:
        raise Wrong(f"{old[0]} still shows; {again} is opaque, so nothing of the layers below is seen in it")
    odd = sorted(path for path in {*found, *wanted} if found.get(path) != wanted.get(path))
    if odd:
        what = found.get(odd[0], "nothing")
        raise Wrong(f"{odd[0]} is {what!r}, and must be {wanted.get(odd[0], 'nothing')!r}")
