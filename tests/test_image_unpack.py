"""Is a layer unpacked as the specification says, and can a hostile one reach anything outside?"""

from __future__ import annotations

import gzip
import os
import random
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from image.making import WHEN, archive, entry, folder, hardlink, symlink, tree, unpack

from labkit.errors import BadInput, LabError, Mismatch
from labkit.image import stream, tarball

pytestmark = pytest.mark.root  # owners, devices and trusted.* attributes


@pytest.fixture
def outside(tmp_path: Path) -> Any:
    """A folder beside the root that must look the same afterwards."""
    there = tmp_path / "outside"
    there.mkdir()
    (there / "secret").write_text("secret")
    (there / "sub").mkdir()
    before = _looks(there), sorted(os.listdir(tmp_path))
    yield there
    assert _looks(there) == before[0]
    assert sorted(set(os.listdir(tmp_path)) - {"root"}) == before[1]


def _looks(there: Path) -> list[tuple[Any, ...]]:
    seen = [(str(path), path.lstat()) for path in sorted([there, *there.rglob("*")])]
    return [(p, s.st_ino, s.st_mode, s.st_uid, s.st_nlink, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in seen]


# --- hostile -----------------------------------------------------------------------------


def test_dots_stay_inside(tmp_path: Path, outside: Path) -> None:
    """`..` at the root is the root, as it is for every process (umoci does the same)."""
    root = unpack(archive(entry("../outside/new", data=b"x"), entry("../secret", data=b"y")), tmp_path / "root")
    assert (root / "outside/new").read_bytes() == b"x"
    assert (root / "secret").read_bytes() == b"y"


def test_an_absolute_name_stays_inside(tmp_path: Path, outside: Path) -> None:
    """/x is x beneath the root."""
    root = unpack(archive(entry(f"{outside}/new", data=b"x")), tmp_path / "root")
    assert (root / str(outside).lstrip("/") / "new").read_bytes() == b"x"


@pytest.mark.parametrize("target", ["{outside}", "../outside", "../../../../../../../../{outside}"])
def test_writing_through_a_symlink_stays_inside(tmp_path: Path, outside: Path, target: str) -> None:
    """A link that points outside is kept as text, and leads nowhere but beneath the root."""
    link = symlink("door", target.format(outside=outside))
    for layer in ([link, entry("door/secret", data=b"x")], [link, folder("door/sub"), entry("door/sub/x", data=b"x")]):
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        try:
            unpack(archive(*layer), tmp_path / "root")
        except BadInput:
            pass  # the link leads to nothing inside: refused by name


def test_a_file_replaces_a_symlink(tmp_path: Path, outside: Path) -> None:
    """A file entry at a symlink's place takes its place; the link's target is not written."""
    root = unpack(archive(symlink("a", f"{outside}/secret"), entry("a", data=b"mine")), tmp_path / "root")
    assert not (root / "a").is_symlink() and (root / "a").read_bytes() == b"mine"


@pytest.mark.parametrize("target", ["../outside/secret", "{outside}/secret", "door/secret"])
def test_a_hard_link_outside_is_refused(tmp_path: Path, outside: Path, target: str) -> None:
    """Its target is looked for beneath the root only, and there it is not."""
    layer = archive(symlink("door", str(outside)), hardlink("stolen", target.format(outside=outside)))
    with pytest.raises(BadInput, match="stolen"):
        unpack(layer, tmp_path / "root")


def test_a_whiteout_outside_deletes_nothing(tmp_path: Path, outside: Path) -> None:
    """Deletions and opaque marks through a link that leads outside reach nothing there."""
    for name in ("door/.wh.secret", "door/.wh..wh..opq", "../outside/.wh.secret"):
        for overlay in (False, True):
            shutil.rmtree(tmp_path / "root", ignore_errors=True)
            try:
                unpack(archive(symlink("door", str(outside)), entry(name)), tmp_path / "root", overlay=overlay)
            except BadInput:
                pass


@pytest.mark.parametrize("name", ["..", "a/..", ".wh...", ".wh."])
def test_names_that_name_no_file_are_refused(tmp_path: Path, outside: Path, name: str) -> None:
    """An entry that is `..` itself, and the deletion of `..` or of nothing."""
    with pytest.raises(BadInput):
        unpack(archive(folder("a"), entry(name, data=b"")), tmp_path / "root")


@pytest.mark.parametrize("seed", range(40))
def test_no_archive_reaches_outside(tmp_path: Path, outside: Path, seed: int) -> None:
    """Random small archives of hostile names: they apply or are refused, and outside nothing moves."""
    dice = random.Random(seed)
    names = ["a", "b", "a/b", "a/b/c", "b/a", "../outside/secret", "a/../b", f"{outside}/secret", "../outside/sub/x"]
    # Never "/" or "..": if the guard ever broke, this test would do its damage to them.
    targets = [*names, str(outside), f"{outside}/sub", "../outside", "../outside/sub", "a/../../outside", "."]
    entries = []
    for _ in range(dice.randint(2, 9)):
        name, target = dice.choice(names), dice.choice(targets)
        head, _, tail = name.rpartition("/")
        hidden = f"{head}/.wh.{tail}" if head else f".wh.{tail}"
        makers = [
            lambda n=name: entry(n, data=b"x"),
            lambda n=name: folder(n),
            lambda n=name, t=target: symlink(n, t),
            lambda n=name, t=target: hardlink(n, t),
            lambda n=hidden: entry(n),
            lambda h=head: entry(f"{h}/.wh..wh..opq" if h else ".wh..wh..opq"),
        ]
        entries.append(dice.choice(makers)())
    try:
        unpack(archive(*entries), tmp_path / "root", overlay=dice.random() < 0.5)
    except LabError:
        pass


# --- true --------------------------------------------------------------------------------


def test_a_deletion_is_overlayfs_own_mark(tmp_path: Path) -> None:
    """A whiteout is a 0/0 character device, an opaque folder carries trusted.overlay.opaque."""
    layer = archive(entry(".wh.gone"), folder("d"), entry("d/.wh..wh..opq"), entry("d/new", data=b"x"))
    root = unpack(layer, tmp_path / "root", overlay=True)
    seen = (root / "gone").lstat()
    assert stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0
    assert os.getxattr(root / "d", "trusted.overlay.opaque") == b"y"
    assert (root / "d/new").read_bytes() == b"x"


def test_deleted_and_made_again_is_opaque(tmp_path: Path) -> None:
    """A folder that a layer deletes and makes anew hides what the layers below had in it."""
    root = unpack(archive(entry(".wh.d"), folder("d")), tmp_path / "root", overlay=True)
    assert os.getxattr(root / "d", "trusted.overlay.opaque") == b"y"


@pytest.mark.parametrize("overlay", [False, True])
def test_a_deletion_spares_what_its_own_layer_brought(tmp_path: Path, overlay: bool) -> None:
    """Whiteouts are of the layers below only, in whatever order the entries come."""
    layer = archive(entry("f", data=b"x"), entry(".wh.f"), entry("d/n", data=b"y"), entry(".wh.d"))
    root = unpack(layer, tmp_path / "root", overlay=overlay)
    assert (root / "f").read_bytes() == b"x" and (root / "d/n").read_bytes() == b"y"


def test_a_flat_deletion_deletes(tmp_path: Path) -> None:
    """Applied onto a lower layer, a whiteout removes its file, an opaque mark all that was there before."""
    root = unpack(archive(entry("a", data=b"1"), entry("d/x", data=b"1"), entry("d/e/y", data=b"1")), tmp_path / "root")
    unpack(archive(entry(".wh.a"), entry("d/new", data=b"2"), entry("d/.wh..wh..opq")), root)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["d", "d/new"]


def test_everything_that_tar_can_say_is_kept(tmp_path: Path) -> None:
    """Owner, mode, set-user-ID, time, long names, links, devices, capabilities; folders' times last."""
    long = "n" * 200
    cap = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep
    layer = archive(
        folder("d", uid=5, gid=6, mode=0o1770),
        entry(f"d/{long}", data=b"x" * 70_000, uid=1000, gid=1001, mode=0o4755),
        hardlink("d/same", f"d/{long}"),
        symlink("d/link", "/nowhere"),
        entry("d/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("d/fifo", tarfile.FIFOTYPE),
        entry(
            "d/ping",
            data=b"p",
            pax_headers={"SCHILY.xattr.security.capability": cap.decode("utf-8", "surrogateescape")},
        ),
    )
    root = unpack(layer, tmp_path / "root")
    seen = (root / "d" / long).lstat()
    assert (seen.st_uid, seen.st_gid, oct(seen.st_mode), seen.st_mtime) == (1000, 1001, "0o104755", WHEN)
    assert seen.st_nlink == 2 and (root / "d/same").lstat().st_ino == seen.st_ino
    assert os.readlink(root / "d/link") == "/nowhere"
    assert (root / "d/null").lstat().st_rdev == os.makedev(1, 3)
    assert os.getxattr(root / "d/ping", "security.capability") == cap
    above = (root / "d").lstat()
    assert (above.st_uid, above.st_gid, oct(above.st_mode), above.st_mtime) == (5, 6, "0o41770", WHEN)


def test_marks_of_overlayfs_cannot_be_forged(tmp_path: Path) -> None:
    """trusted.* in an archive is left out: it belongs to this machine's overlayfs."""
    root = unpack(
        archive(folder("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})), tmp_path / "root"
    )
    assert os.listxattr(root / "d") == []


def test_a_folder_may_become_a_file(tmp_path: Path) -> None:
    """A later entry of the same layer takes an earlier one's place, folder times notwithstanding."""
    root = unpack(archive(folder("a"), folder("a/b"), entry("a", data=b"x")), tmp_path / "root")
    assert (root / "a").read_bytes() == b"x"


def test_a_hard_link_to_itself_is_kept(tmp_path: Path) -> None:
    """Linking a file to its own name changes nothing."""
    root = unpack(archive(entry("a", data=b"x"), hardlink("a", "a")), tmp_path / "root")
    assert (root / "a").read_bytes() == b"x"


# --- bytes -------------------------------------------------------------------------------

PLAIN = archive(folder("d"), entry("d/f", data=os.urandom(1000) * 500))


def _zstd(plain: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=plain, capture_output=True, check=True).stdout


PACKERS = {
    "": lambda plain: plain,
    "gzip": gzip.compress,
    "zstd": _zstd,
}


@pytest.fixture(params=["library", "without"])
def libraries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the fast libraries of the extra `fast`, and without them."""
    if request.param == "without":
        monkeypatch.setattr(stream, "_library", lambda name: None)
    elif any(stream._library(name) is None for name in ("isal.isal_zlib", "zstandard")):
        pytest.skip("isal or zstandard, the optional fast libraries, are not installed")
    return str(request.param)


@pytest.mark.parametrize("how", PACKERS)
def test_every_compression_gives_the_same_tree(tmp_path: Path, how: str, libraries: str) -> None:
    """none, gzip and zstd of one archive unpack alike, and both digests are those of other programs."""
    packed = PACKERS[how](PLAIN)
    (tmp_path / "blob").write_bytes(packed)
    read = stream.PlainStream(tmp_path / "blob", how)
    assert read.drain() == (tarball.sha256(PLAIN), tarball.sha256(packed))
    assert tree(unpack(PLAIN, tmp_path / "packed", packed=packed, how=how)) == tree(unpack(PLAIN, tmp_path / "plain"))


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 64 << 20])
@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_bomb_swells_in_small_pieces(tmp_path: Path, how: str, size: int, libraries: str) -> None:
    """What a small file swells to is never in memory at once; all of it comes."""
    program = ["gzip", "-1"] if how == "gzip" else ["zstd", "-q"]
    (tmp_path / "plain").touch()
    os.truncate(tmp_path / "plain", size)
    with (tmp_path / "plain").open("rb") as plain, (tmp_path / "blob").open("wb") as packed:
        subprocess.run([*program, "-c"], stdin=plain, stdout=packed, check=True)
    total, largest = 0, 0
    read = stream.PlainStream(tmp_path / "blob", how)
    while piece := read.take(1 << 30):
        total, largest = total + len(piece), max(largest, len(piece))
    read.close()
    assert total == size and largest <= stream.LARGEST


def test_gzip_of_many_members_is_whole(tmp_path: Path, libraries: str) -> None:
    """pigz and estargz write several gzip members behind each other."""
    packed = b"".join(gzip.compress(PLAIN[at : at + 4096]) for at in range(0, len(PLAIN), 4096))
    assert (unpack(PLAIN, tmp_path / "root", packed=packed, how="gzip") / "d/f").stat().st_size == 500_000


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_layer_cut_short_is_damaged(tmp_path: Path, how: str, libraries: str) -> None:
    """Half of a compressed layer is an error, never half a tree."""
    packed = PACKERS[how](PLAIN)
    with pytest.raises(LabError):
        unpack(PLAIN, tmp_path / "root", packed=packed[: len(packed) // 2], how=how)


def test_zstd_without_the_program_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lacks zstd is told so, and what to install."""
    packed = _zstd(PLAIN)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(stream, "_library", lambda name: None)
    with pytest.raises(LabError, match=r"lacks zstd[\s\S]*apt-get install zstd"):
        unpack(PLAIN, tmp_path / "root", packed=packed, how="zstd")


def test_a_wrong_diff_id_names_both_hashes(tmp_path: Path) -> None:
    """The plain bytes are hashed on their way, and a difference shows what was promised and what came."""
    other = archive(entry("x", data=b"1"))
    with pytest.raises(Mismatch, match=r"promised sha256:[0-9a-f]{64}, but its bytes hash to sha256:[0-9a-f]{64}"):
        unpack(PLAIN, tmp_path / "root", packed=other)


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    """Garbage where a header should be is an error; Python's tarfile would stop there in silence."""
    plain = archive(entry("a", data=b"x"), entry("b", data=b"y"))
    with pytest.raises(BadInput, match="header"):
        unpack(plain[:1024] + b"garbage!" * 64 + plain[1536:], tmp_path / "root")


@pytest.mark.parametrize(
    "bad",
    [entry("n" * 300, data=b""), entry("a\0b", pax_headers={"path": "a\0b"}), entry("t", mtime=1 << 80)],
    ids=["name too long", "NUL", "time"],
)
def test_what_the_kernel_cannot_hold_is_named(tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes]) -> None:
    """Impossible entries are a LabError that names the entry, never a bare errno."""
    with pytest.raises(LabError, match=r"cannot unpack|impossible entry"):
        unpack(archive(bad), tmp_path / "root")
