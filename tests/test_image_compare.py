"""Is the layer between two trees the change, all of it, the same each time, and the one that umoci finds?"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image.making import WHEN, archive, entry, folder, hardlink, symlink, tree

from labkit.image import kit, model, tarball
from labkit.image.compare import compare
from labkit.image.unpack import apply

pytestmark = pytest.mark.root  # owners and devices
NAME = "compare"
BASE = archive(
    folder("d"), folder("d/e"), *(entry(f"d/e/{n}", data=b"1") for n in range(4)), entry("f", data=b"1" * 100),
    entry("twin", data=b"2"), hardlink("twin2", "twin"), symlink("l", "f"), folder("whole"),
    entry("whole/x", data=b"x"),
    entry("kind", data=b"3"), folder("folder"), entry("folder/in", data=b"4"),
    entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
)  # fmt: skip


def _as_it_is(root: Path) -> None:
    """Nothing."""


def _everyday(root: Path) -> None:
    """Files and folders made, changed and deleted."""
    (root / "d/e/0").unlink()
    (root / "d/e/1").write_bytes(b"changed")
    (root / "new").mkdir()
    (root / "new/file").write_bytes(b"new")
    shutil.rmtree(root / "whole")


def _looks_only(root: Path) -> None:
    """Owners, modes, times and a symlink's target."""
    os.chown(root / "f", 5, 6)
    os.chmod(root / "d/e", 0o700)
    os.utime(root / "d/e/2", (WHEN + 9, WHEN + 9))
    (root / "l").unlink()
    (root / "l").symlink_to("d")


def _kinds(root: Path) -> None:
    """A file becomes a folder, a folder a file, a device another device."""
    (root / "kind").unlink()
    (root / "kind").mkdir()
    (root / "kind/in").write_bytes(b"in")
    shutil.rmtree(root / "folder")
    (root / "folder").write_bytes(b"a file")
    (root / "null").unlink()
    os.mknod(root / "null", 0o20644, os.makedev(1, 5))


def _same_size(root: Path) -> None:
    """Bytes that change while size and time stay: what a look at the clock does not find."""
    (root / "f").write_bytes(b"2" * 100)
    os.utime(root / "f", (WHEN, WHEN))


CHANGES: list[Callable[[Path], None]] = [_as_it_is, _everyday, _looks_only, _kinds, _same_size]


def _base(root: Path) -> Path:
    root.mkdir()
    root.chmod(0o755)
    (root.parent / "base.tar").write_bytes(BASE)
    apply(root.parent / "base.tar", "", tarball.sha256(BASE), root, overlay=False)
    return root


def _layer(before: Path, after: Path) -> bytes:
    out = io.BytesIO()
    compare(before, after, out)
    return out.getvalue()


def _settle(root: Path) -> None:
    """Whole seconds, as a layer has them; whatever was made now was made at one time."""
    for path in sorted(root.rglob("*"), reverse=True):
        when = WHEN if int(path.lstat().st_mtime) == WHEN else WHEN + 5
        if int(path.lstat().st_mtime) != WHEN + 9:
            os.utime(path, (when, when), follow_symlinks=False)


def _again(before: Path, layer: bytes, root: Path) -> dict[str, Any]:
    """The tree that the layer makes of a copy of `before`."""
    subprocess.run(["cp", "-a", str(before), str(root)], check=True)
    (root.parent / "layer.tar").write_bytes(layer)
    apply(root.parent / "layer.tar", "", tarball.sha256(layer), root, overlay=False)
    return {path: looks for path, looks in tree(root).items() if path != "."}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_the_layer_makes_the_second_tree_of_the_first(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Applied onto the first it gives the second, file by file; written again it has the same bytes."""
    before, after = _base(tmp_path / "before"), _base(tmp_path / "after")
    change(after)
    _settle(after)
    layer = _layer(before, after)
    assert layer == _layer(before, after)
    assert _again(before, layer, tmp_path / "again") == {p: looks for p, looks in tree(after).items() if p != "."}


def test_no_change_is_an_empty_layer(tmp_path: Path) -> None:
    """Two equal trees: an archive with nothing in it."""
    with tarfile.open(fileobj=io.BytesIO(_layer(_base(tmp_path / "a"), _base(tmp_path / "b")))) as layer:
        assert layer.getnames() == []


def test_a_new_name_brings_all_names_along(tmp_path: Path) -> None:
    """A hard link to a file of a lower layer: the file comes again, with every name, and they stay one file."""
    before, after = _base(tmp_path / "before"), _base(tmp_path / "after")
    os.link(after / "twin", after / "d/twin3")
    with tarfile.open(fileobj=io.BytesIO(_layer(before, after))) as layer:
        assert {"twin", "twin2", "d/twin3"} <= set(layer.getnames())
    root = tmp_path / "again"
    _again(before, _layer(before, after), root)
    assert (root / "twin").stat().st_nlink == 3


@pytest.mark.parametrize("seed", range(5))
def test_random_changes_come_back(tmp_path: Path, seed: int) -> None:
    """Random files, folders, links and deletions, ten steps of them."""
    dice = random.Random(seed)
    before, after = _base(tmp_path / "before"), _base(tmp_path / "after")
    for step in range(10):
        everything = sorted(after.rglob("*"))
        path = dice.choice(everything) if everything else after / "x"
        places = [p for p in (after, *everything) if p.is_dir() and not p.is_symlink()]
        new = dice.choice(places) / f"n{step}"
        how = dice.choice(["delete", "write", "folder", "link", "symlink", "mode"])
        if how == "delete":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        elif how == "write":
            new.write_bytes(dice.randbytes(9))
        elif how == "folder":
            new.mkdir()
        elif how == "link" and path.is_file() and not path.is_symlink():
            os.link(path, new)
        elif how == "symlink":
            new.symlink_to("somewhere")
        elif how == "mode" and path.exists() and not path.is_symlink():
            path.chmod(0o751)
    _settle(after)
    layer = _layer(before, after)
    assert _again(before, layer, tmp_path / "again") == {p: looks for p, looks in tree(after).items() if p != "."}


# --- umoci -------------------------------------------------------------------------------


def _members(layer: bytes) -> dict[str, tuple[Any, ...]]:
    """What a layer says of each name; the time of a deletion is nobody's."""
    with tarfile.open(fileobj=io.BytesIO(layer), encoding="utf-8") as opened:
        found = {}
        for one in opened.getmembers():
            data = opened.extractfile(one) if one.isreg() else None
            name = one.name.strip("/").removeprefix("./")
            when = 0 if ".wh." in name else int(one.mtime)
            found[name] = (one.type, oct(one.mode) if ".wh." not in name else "", one.uid, one.gid, when, one.linkname,
                           one.devminor, data.read() if data else b"")  # fmt: skip
        return found


@pytest.mark.parametrize("change", CHANGES[1:], ids=lambda change: change.__name__.strip("_"))
def test_umoci_calls_the_same_a_change(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """umoci repack of the same change has the same entries: names, kinds, modes, owners, times, bytes."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {},
         "rootfs": {"type": "layers", "diff_ids": [tarball.sha256(BASE)]}}
    ).encode()  # fmt: skip
    layers = [kit.describe("application/vnd.oci.image.layer.v1.tar", BASE)]
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": model.MANIFESTS[0], "layers": layers,
         "config": kit.describe(model.CONFIGS[0], config)}
    ).encode()  # fmt: skip
    blobs = tmp_path / "layout/blobs/sha256"
    blobs.mkdir(parents=True)
    for blob in (config, manifest, BASE):
        (blobs / tarball.sha256(blob)[7:]).write_bytes(blob)
    named = {**kit.describe(model.MANIFESTS[0], manifest), "annotations": {"org.opencontainers.image.ref.name": NAME}}
    (tmp_path / "layout/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (tmp_path / "layout/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    image = ["--image", f"{tmp_path}/layout:{NAME}"]
    subprocess.run(["umoci", "unpack", *image, str(tmp_path / "bundle")], check=True, capture_output=True)
    before, after = _base(tmp_path / "before"), tmp_path / "bundle/rootfs"
    change(after)
    _settle(after)
    ours = _members(_layer(before, after))
    subprocess.run(["umoci", "repack", *image, str(tmp_path / "bundle")], check=True, capture_output=True)
    index = json.loads((tmp_path / "layout/index.json").read_text())
    made = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    layer = gzip.decompress((blobs / made["layers"][-1]["digest"][7:]).read_bytes())
    theirs = _members(layer)
    # umoci writes the root too, and deletions below a folder that became a file.
    theirs.pop(".", None), theirs.pop("folder/.wh.in", None)
    assert ours == theirs and ours
    assert _again(before, layer, tmp_path / "again") == {p: looks for p, looks in tree(after).items() if p != "."}
