"""Does a writable folder come back as a layer: the same tree when it is applied, and the same bytes each time?"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest
from image.making import archive, entry, folder, hardlink, stored, symlink, tree

from labkit.errors import BadInput
from labkit.image.commit import commit
from labkit.image.diff import diff
from labkit.image.store import Image, Store
from labkit.image.unpack import apply, flatten

needs_root = pytest.mark.root

CHANGES = """
import os, shutil, sys
from pathlib import Path
sys.path.insert(0, os.path.join(sys.argv[2], "tests"))
from image.making import tree
from labkit.kernel.overlay import mount_overlay
here = Path(sys.argv[1])
mount_overlay(here / "merged", [here / "lower"], here / "upper", here / "work")
os.chdir(here / "merged")
exec(sys.argv[3])
os.chdir("/")
print(repr(tree(here / "merged")))
"""


def changed(here: Path, lower: bytes, program: str, *namespaces: str) -> dict[str, object]:
    """Unpack `lower`, let a program change it through an overlay; the merged tree that it then saw."""
    for name in ("lower", "upper", "work", "merged"):
        (here / name).mkdir()
        (here / name).chmod(0o755)
    blob = here / "blob"
    blob.write_bytes(lower)
    apply(blob, "", "sha256:" + hashlib.sha256(lower).hexdigest(), here / "lower", overlay=True)
    words = ["unshare", "-m", *namespaces, "--propagation", "private", sys.executable, "-c", CHANGES, str(here)]
    words += [str(Path(__file__).parents[1]), textwrap.dedent(program)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen: dict[str, object] = eval(done.stdout)
    return seen


LOWER = archive(
    folder("d"),
    entry("d/one", data=b"1"),
    entry("d/two", data=b"2"),
    folder("e"),
    folder("e/deep"),
    entry("e/deep/file", data=b"deep"),
    entry("plain", data=b"plain"),
    entry("twin", data=b"twin"),
    hardlink("twin2", "twin"),
    symlink("link", "plain"),
)

EVERYTHING = """
os.unlink("d/one")                                   # a whiteout
shutil.rmtree("e"); os.mkdir("e"); open("e/new", "w").write("new")   # an opaque folder
os.chmod("plain", 0o4711); os.chown("plain", 7, 8)
os.unlink("link"); os.symlink("/somewhere/else", "link")
open("a", "w").write("a"); os.link("a", "b")
os.mknod("null", 0o20666, os.makedev(1, 3)); os.mkfifo("fifo")
open("twin", "a").write(" changed")
os.setxattr("plain", "user.note", b"kept \\xff")
for name in ("a", "e", "e/new", "d", ".", "twin", "fifo", "null"): os.utime(name, (1e9, 1e9))
os.utime("link", (1e9, 1e9), follow_symlinks=False)
"""


def image_of(store: Store, here: Path, program: str) -> tuple[Image, dict[str, object]]:
    """An image of LOWER, what the program makes of it committed on top, and what the program saw."""
    base = stored(store, "index.docker.io/library/base:latest", LOWER)
    seen = changed(here, LOWER, program)
    return commit(store, base, here / "upper", "base:two", "a test", 1_000_000_000), seen


def compared(seen: dict[str, object]) -> dict[str, object]:
    """Without the root itself, which a layer of Docker's does not carry either."""
    return {path: looks for path, looks in seen.items() if path != "."}


@needs_root
def test_a_commit_unpacks_to_what_was_seen(tmp_path: Path) -> None:
    """Every kind of change, through the kernel's overlay into a layer and back, is the same tree."""
    image, seen = image_of(Store(tmp_path / "store"), tmp_path, EVERYTHING)
    (tmp_path / "flat").mkdir()
    flatten(image, tmp_path / "flat")
    assert compared(tree(tmp_path / "flat")) == compared(seen)


@needs_root
@pytest.mark.parametrize("seed", range(4))
def test_random_changes_come_back(tmp_path: Path, seed: int) -> None:
    """Random deletions, new folders, writes and links, one after the other."""
    dice = random.Random(seed)
    steps = [
        'shutil.rmtree("d")',
        'os.makedirs("d", exist_ok=True); open("d/x", "w").write("x")',
        'os.path.exists("e/deep") and shutil.rmtree("e/deep")',
        'os.makedirs("e/deep/er", exist_ok=True)',
        'os.path.exists("plain") and os.unlink("plain")',
        'open("plain", "w").write("again")',
        'os.path.exists("twin") and not os.path.exists("d2") and os.link("twin", "d2")',
        'os.path.lexists("link") and os.rename("link", "link2")',
    ]
    dice.shuffle(steps)
    image, seen = image_of(Store(tmp_path / "store"), tmp_path, "\n".join(steps))
    (tmp_path / "flat").mkdir()
    flatten(image, tmp_path / "flat")
    mine = {path: looks[:3] + looks[4:] for path, looks in tree(tmp_path / "flat").items() if path != "."}
    assert mine == {path: looks[:3] + looks[4:] for path, looks in seen.items() if path != "."}  # type: ignore[index]


@needs_root
def test_umoci_reads_the_commit_the_same(tmp_path: Path) -> None:
    """Another program unpacks the committed image to the same tree, and finds nothing to complain of."""
    store = Store(tmp_path / "store")
    image, _ = image_of(store, tmp_path, EVERYTHING)
    (tmp_path / "flat").mkdir()
    flatten(image, tmp_path / "flat")
    index = json.loads((store.folder / "index.json").read_text())
    for one in index["manifests"]:  # umoci takes no colon in a tag
        one["annotations"] = {"org.opencontainers.image.ref.name": one["annotations"][
            "org.opencontainers.image.ref.name"].rpartition(":")[2]}  # fmt: skip
    (store.folder / "index.json").write_text(json.dumps(index))
    words = ["umoci", "raw", "unpack", "--image", f"{store.folder}:two", str(tmp_path / "theirs")]
    subprocess.run(words, check=True, capture_output=True)
    assert compared(tree(tmp_path / "theirs")) == compared(tree(tmp_path / "flat"))


@needs_root
def test_a_commit_leaves_its_base_as_it_was(tmp_path: Path) -> None:
    """The base keeps its name, its layers stand first in the new image, and the sums are of the right bytes."""
    store = Store(tmp_path / "store")
    image, _ = image_of(store, tmp_path, EVERYTHING)
    base = store.find("base")
    assert base is not None and image.manifest.layers[:-1] == base.manifest.layers
    packed = store.path(image.manifest.layers[-1].digest).read_bytes()
    assert len(packed) == image.manifest.layers[-1].size
    assert image.config.diff_ids[-1] == "sha256:" + hashlib.sha256(gzip.decompress(packed)).hexdigest()
    assert image.config.history[-1]["created_by"] == "a test"


def test_the_same_folder_makes_the_same_layer(tmp_path: Path) -> None:
    """Neither the order in which files were made nor today's date is in it."""
    layers = []
    for order in (["a", "b", "c"], ["c", "a", "b"]):
        upper = tmp_path / "-".join(order)
        upper.mkdir()
        for name in order:
            (upper / name).write_text(name)
            os.utime(upper / name, (1e9 + 0.25, 1e9 + 0.25))
        out = io.BytesIO()
        diff(upper, out)
        layers.append(out.getvalue())
    assert layers[0] == layers[1]


def listed(out: io.BytesIO) -> dict[str, tarfile.TarInfo]:
    out.seek(0)
    with tarfile.open(fileobj=out) as layer:
        return {one.name: one for one in layer.getmembers()}


@needs_root
def test_deletions_have_their_names_from_the_specification(tmp_path: Path) -> None:
    """A whiteout is an empty file .wh.NAME beside the place, an opaque folder holds .wh..wh..opq."""
    changed(tmp_path, LOWER, EVERYTHING)
    out = io.BytesIO()
    diff(tmp_path / "upper", out)
    entries = listed(out)
    assert entries["d/.wh.one"].isreg() and entries["d/.wh.one"].size == 0
    assert "e/.wh..wh..opq" in entries and "d/.wh..wh..opq" not in entries
    assert not any("overlay" in key for one in entries.values() for key in one.pax_headers)


def test_the_marks_of_a_users_overlay_are_deletions_too(tmp_path: Path) -> None:
    """An overlay that is mounted with `userxattr` marks with user.overlay.*, which root's never has."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/new").write_text("new")
    os.setxattr(tmp_path / "d", "user.overlay.opaque", b"y")
    (tmp_path / "gone").touch()
    os.setxattr(tmp_path / "gone", "user.overlay.whiteout", b"")
    out = io.BytesIO()
    diff(tmp_path, out)
    assert list(listed(out)) == ["d", "d/.wh..wh..opq", "d/new", ".wh.gone"]


@needs_root
def test_the_kernels_marks_in_a_user_namespace_are_read(tmp_path: Path) -> None:
    """What an ordinary user's overlay holds after rm and mkdir is the same layer as root's."""
    program = 'os.unlink("d/one"); shutil.rmtree("e"); os.mkdir("e"); open("e/new", "w").close()'
    changed(tmp_path, LOWER, program, "--user", "--map-root-user")
    assert "trusted.overlay.opaque" not in os.listxattr(tmp_path / "upper/e")
    out = io.BytesIO()
    diff(tmp_path / "upper", out)
    assert list(listed(out)) == ["d", "d/.wh.one", "e", "e/.wh..wh..opq", "e/new"]


@needs_root
@pytest.mark.parametrize("place", ["trusted", "user"])
@pytest.mark.parametrize("mark", ["redirect", "metacopy"])
def test_half_a_file_is_no_layer(tmp_path: Path, mark: str, place: str) -> None:
    """A folder whose content is still in the layers below is refused by name, not written as empty."""
    (tmp_path / "moved").mkdir()
    os.setxattr(tmp_path / "moved", f"{place}.overlay.{mark}", b"old")
    with pytest.raises(BadInput, match=mark):
        diff(tmp_path, io.BytesIO())


@needs_root
def test_a_socket_is_left_out(tmp_path: Path) -> None:
    """Tar knows no sockets, and a socket nobody listens on is of no use in an image."""
    import socket

    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
    out = io.BytesIO()
    diff(tmp_path, out)
    assert listed(out) == {}
