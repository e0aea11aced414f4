"""Is what labkit unpacks what umoci and podman's storage unpack, file by file; for a user namespace, and with holes?"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from image.hostile import CAP
from image.making import WHEN, archive, entry, folder, hardlink, symlink, tree

from labkit.errors import BadInput
from labkit.image import kit, model, tarball
from labkit.image.owners import Owners, Range
from labkit.image.store import REF_NAME, Image, Store
from labkit.image.unpack import apply, flatten

pytestmark = pytest.mark.root  # owners, devices and trusted.* attributes
NAME = "localhost/round:trip"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


# --- images ------------------------------------------------------------------------------


def _many() -> list[bytes]:
    """More than 10,000 files, in folders of a hundred."""
    chance = random.Random(7)
    entries = [folder(f"d{number:03}", uid=number, gid=number + 1, mode=0o750) for number in range(105)]
    entries += [
        entry(f"d{number % 105:03}/f{number:05}", data=chance.randbytes(number % 97), mode=chance.randrange(0o10000),
              uid=chance.randrange(70_000), gid=chance.randrange(70_000), mtime=chance.randrange(2_000_000_000))
        for number in range(10_500)
    ]  # fmt: skip
    return [archive(*entries)]


def _kinds() -> list[bytes]:
    """Everything that an entry can be, long names, attributes, times between seconds."""
    long = "/".join(["l" * 90] * 4)
    xattrs = {"SCHILY.xattr.security.capability": CAP.decode("utf-8", "surrogateescape"), "SCHILY.xattr.user.a": "b"}
    return [
        archive(
            folder("", uid=3, gid=4, mode=0o711),
            folder("d", mode=0o1777),
            folder("d/g", mode=0o2750, uid=9, gid=10),
            entry("d/su", data=b"su", mode=0o6755, uid=8, gid=8),
            entry("d/cap", data=b"cap", pax_headers=xattrs),
            hardlink("d/g/cap", "d/cap"),
            symlink("d/link", "../../../etc/passwd"),
            hardlink("d/twin", "d/link"),
            entry("d/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("d/disk", tarfile.BLKTYPE, devmajor=259, devminor=70_000, mode=0o660, gid=6),
            entry("d/pipe", tarfile.FIFOTYPE, mode=0o600),
            *(folder("/".join(["l" * 90] * depth)) for depth in range(1, 5)),
            entry(f"{long}/{'n' * 200}", data=b"long", pax_headers={"mtime": "1600000000.123456789"}),
            entry("nö\udcff", data=b"name"),
            folder("empty", mtime=0),
        )
    ]


def _stack() -> list[bytes]:
    """Layers that change, delete and cover each other."""
    return [
        archive(*(folder(name) for name in "abcd"), *(entry(f"{n}/{i}", data=b"1") for n in "abcd" for i in range(5)),
                entry("f", data=b"1"), symlink("s", "a"), hardlink("h", "f")),
        archive(entry("a/.wh.0"), entry("b/.wh..wh..opq"), entry("b/new", data=b"2"), entry(".wh.c"),
                entry("f", data=b"2", mode=0o400), entry("d", data=b"no folder any more"), entry(".wh.s")),
        archive(folder("c", mode=0o700), entry("c/again", data=b"3"), folder("s"), entry("s/x", data=b"3"),
                entry(".wh.h"), folder("d"), entry("d/back", data=b"3"), entry("a/.wh.absent")),
    ]  # fmt: skip


def _system() -> list[bytes]:
    """A real system's tree, as its own tar packs it: the headers and libraries of this machine's Python."""
    here = Path(os.__file__).parent
    words = ["tar", "-C", str(here), "--exclude=__pycache__", "--exclude=site-packages", "--exclude=test"]
    return [subprocess.run([*words, "--format=gnu", "-cf", "-", "."], capture_output=True, check=True).stdout]


IMAGES: dict[str, Callable[[], list[bytes]]] = {"many": _many, "kinds": _kinds, "stack": _stack, "system": _system}


def _layout(output: Path, layers: list[bytes]) -> Image:
    """An OCI layout of these layers, which is a store at the same time."""
    packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
    rootfs = {"type": "layers", "diff_ids": [tarball.sha256(layer) for layer in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": model.MANIFESTS[0], "config": kit.describe(model.CONFIGS[0], config),
         "layers": [kit.describe(GZIP, layer) for layer in packed]}
    ).encode()  # fmt: skip
    blobs = output / "blobs/sha256"
    blobs.mkdir(parents=True)
    for blob in (config, manifest, *packed):
        (blobs / tarball.sha256(blob)[7:]).write_bytes(blob)
    index = {**kit.describe(model.MANIFESTS[0], manifest), "annotations": {REF_NAME: NAME}}
    (output / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))
    (output / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    digest = tarball.sha256(manifest)
    return Image(NAME, digest, model.Manifest.read(json.loads(manifest)), model.Config.read(json.loads(config)),
                 Store(output))  # fmt: skip


@pytest.fixture
def here() -> Iterator[Path]:
    """A folder in memory: thousands of files are made several times; its path is short, as podman wants it."""
    # Not tempfile's own name: it may end in _, and then podman takes it for no image's name.
    place = Path("/dev/shm", f"lk{os.urandom(4).hex()}")
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place)


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest, here: Path) -> Image:
    return _layout(here / "layout", IMAGES[request.param]())


def _different(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    return {path: (ours.get(path), theirs.get(path)) for path in {*ours, *theirs} if ours.get(path) != theirs.get(path)}


def _flat(image: Image, root: Path) -> dict[str, Any]:
    root.mkdir()
    root.chmod(0o755)
    flatten(image, root)
    return tree(root)


def test_the_tree_is_umocis(image: Image, here: Path) -> None:
    """Mode, owner, time, content, target, links and attributes of every file."""
    ours = _flat(image, here / "ours")
    words = ["umoci", "raw", "unpack", "--image", f"{image.store.folder}:{NAME}", str(here / "theirs")]
    subprocess.run(words, check=True, capture_output=True)
    theirs = tree(here / "theirs")
    ours.pop("."), theirs.pop(".")  # its time is of nobody's making unless a layer says it
    assert _different(ours, theirs) == {} and len(ours) > 10


@pytest.mark.skipif(shutil.which("podman") is None, reason="podman, the peer, is not installed")
def test_the_tree_is_podmans(image: Image, here: Path) -> None:
    """The container storage's own unpacking, mounted by podman, shows the same files."""
    ours = _flat(image, here / "ours")
    podman = [
        "podman",
        "--runtime",
        "runc",
        "--root",
        f"{here}/store",
        "--runroot",
        f"{here}/run",
        "--storage-driver",
        "vfs",
    ]
    try:
        pulled = subprocess.run([*podman, "pull", "-q", f"oci:{image.store.folder}:{NAME}"],
                                capture_output=True, text=True)  # fmt: skip
        assert pulled.returncode == 0, pulled.stderr
        name = pulled.stdout.split()[-1]
        shown = subprocess.run([*podman, "image", "mount", name], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        theirs = tree(Path(shown.stdout.strip()))
        subprocess.run([*podman, "image", "umount", name], check=True, capture_output=True)
    finally:
        subprocess.run(["umount", "-l", f"{here}/store/vfs"], capture_output=True)
    ours, theirs = _without_folders_times(ours), _without_folders_times(theirs)
    assert _different(ours, theirs) == {} and len(ours) > 10


def _without_folders_times(found: dict[str, Any]) -> dict[str, Any]:
    """podman gives a folder that a layer only writes into the time of now; umoci and labkit leave it its own."""
    return {
        path: looks[:3] + looks[4:] if looks[0].startswith("0o4") else looks
        for path, looks in found.items()
        if path != "."
    }


# --- holes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))], ids=str
)
def test_gnu_tars_sparse_files_keep_their_holes(tmp_path: Path, how: list[str]) -> None:
    """All four ways of writing them: same bytes, and no more room on the disk; many pieces, and a hole at the end."""
    (tmp_path / "in").mkdir()
    with (tmp_path / "in/holes").open("wb") as file:
        for number in range(70):
            file.seek(number * 100_000)
            file.write(b"%d" % number * 999)
        file.truncate(9_000_000)
    (tmp_path / "in/behind").write_text("behind")
    words = ["tar", "-C", str(tmp_path / "in"), "-S", *how, "-cf", str(tmp_path / "a.tar"), "holes", "behind"]
    subprocess.run(words, check=True)
    (tmp_path / "out").mkdir()
    data = (tmp_path / "a.tar").read_bytes()
    assert len(data) < 1_000_000
    apply(tmp_path / "a.tar", "", tarball.sha256(data), tmp_path / "out", overlay=False)
    for name in ("holes", "behind"):
        same = [hashlib.sha256((tmp_path / side / name).read_bytes()).hexdigest() for side in ("in", "out")]
        assert same[0] == same[1]
    assert (tmp_path / "out/holes").stat().st_blocks * 512 < 2_000_000


# --- user namespaces ---------------------------------------------------------------------

OWNERS = Owners([Range(0, 100_000, 1000)], [Range(0, 200_000, 1000)])
CAP_XATTR = {"SCHILY.xattr.security.capability": CAP.decode("utf-8", "surrogateescape")}
MINE = archive(folder("d", uid=5, gid=6), entry("d/f", data=b"x", uid=7, gid=8, mode=0o4711), symlink("l", "d"),
               entry("ping", data=b"p", pax_headers=CAP_XATTR))  # fmt: skip
# Everything is imported before: this interpreter may lie where the namespace's root cannot read.
INSIDE = """
import os, sys
from pathlib import Path
from labkit.errors import LabError
from labkit.image import stream, unpack
from labkit.kernel import constants, syscalls
syscalls.call("unshare", constants.CLONE_NEWUSER)
print("up", flush=True)
sys.stdin.readline()
os.setgroups([])
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
"""
LOOK = """
os.chdir(sys.argv[1])
print([(n, oct(os.lstat(n).st_mode), os.lstat(n).st_uid, os.lstat(n).st_gid) for n in ("d", "d/f", "l")],
      os.getxattr("ping", "security.capability").hex())
"""
UNPACK = """
try:
    unpack.apply(Path(sys.argv[1]), "", sys.argv[2], Path(sys.argv[3]), overlay=True)
except LabError as error:
    sys.exit(str(error))
"""


def _in_userns(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A program of root's in a user namespace with OWNERS' ids, mapped from outside by this process."""
    with subprocess.Popen(
        [sys.executable, "-c", INSIDE + program, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None and child.stdout.readline() == "up\n"
        for kind, ranges in (("uid", OWNERS.users), ("gid", OWNERS.groups)):
            Path(f"/proc/{child.pid}/{kind}_map").write_text(" ".join(map(str, ranges[0])))
        out, err = child.communicate("\n")
    return subprocess.CompletedProcess(words, child.returncode, out, err)


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A folder that another user can reach."""
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(path.stat().st_mode | 0o011)
    return tmp_path


def test_owners_are_moved_for_a_user_namespace(open_path: Path) -> None:
    """Unpacked outside for its ids: from inside the owners are the layer's, and capabilities are its root's."""
    (open_path / "root").mkdir()
    (open_path / "root").chmod(0o755)
    (open_path / "blob").write_bytes(MINE)
    apply(open_path / "blob", "", tarball.sha256(MINE), open_path / "root", overlay=False, owners=OWNERS)
    assert (open_path / "root/d/f").stat().st_uid == 100_007
    done = _in_userns(LOOK, str(open_path / "root"))
    assert done.returncode == 0, done.stderr
    expected = [("d", "0o40755", 5, 6), ("d/f", "0o104711", 7, 8), ("l", "0o120777", 0, 0)]
    assert done.stdout == f"{expected} {CAP.hex()}\n"


def test_an_owner_whom_the_namespace_lacks_is_refused_by_name(tmp_path: Path) -> None:
    """uid 1000 of a namespace of a thousand."""
    with pytest.raises(BadInput, match=r"user 1000, whom[\s\S]*0 to 999[\s\S]*/etc/subuid"):
        OWNERS.user(1000)
    assert (OWNERS.user(999), OWNERS.group(0)) == (100_999, 200_000)


def test_root_of_a_user_namespace_unpacks_for_itself(open_path: Path) -> None:
    """Inside one: owners are right, deletions are marks, opaque folders have the mark that users may set."""
    layer = archive(folder("d", uid=5, gid=6), entry("d/f", data=b"x", uid=7, gid=8), entry(".wh.gone"),
                    entry("d/.wh..wh..opq"))  # fmt: skip
    blob, root = open_path / "blob", open_path / "root"
    blob.write_bytes(layer)
    root.mkdir()
    os.chown(root, 100_000, 200_000)
    root.chmod(0o755)
    done = _in_userns(UNPACK, str(blob), tarball.sha256(layer), str(root))
    assert done.returncode == 0, done.stderr
    assert [(root / "d/f").stat().st_uid, (root / "d/f").stat().st_gid] == [100_007, 200_008]
    assert (root / "gone").lstat().st_rdev == 0 and os.getxattr(root / "d", "user.overlay.opaque") == b"y"
    assert (root / "d/f").stat().st_mtime == WHEN
    # What only the machine's root may make is refused by name.
    for bad in (entry("mem", tarfile.CHRTYPE, devmajor=1, devminor=1), entry("x", uid=5000)):
        blob.write_bytes(archive(bad))
        done = _in_userns(UNPACK, str(blob), tarball.sha256(archive(bad)), str(root))
        assert done.returncode == 1 and f"cannot unpack '{bad[0].name}'" in done.stderr
        assert "user namespace" in done.stderr
