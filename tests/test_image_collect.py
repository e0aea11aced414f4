"""Does the store know who needs what, free exactly the rest, and survive being killed and a full disk?"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from image.making import archive, entry, small_layout, stored, tree

from labkit import cli
from labkit.errors import InUse, NotFound
from labkit.image import collect, crane, kit, tarball
from labkit.image.commit import commit
from labkit.image.drafts import PREFIX
from labkit.image.layers import chain_ids, layer_folders
from labkit.image.registry import serve
from labkit.image.store import Store

TREE = Path(__file__).parents[1]
SHARED, ONE, TWO = (archive(entry(name, data=os.urandom(20_000))) for name in ("shared", "one", "two"))
A, B = "localhost:1/a:1", "localhost:1/b:1"
KILLS = 20


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LABKIT_RUN", str(tmp_path / "run"))


@pytest.fixture
def store() -> Store:
    """Two images that share their lower layer."""
    stored(Store(), A, SHARED, ONE)
    stored(Store(), B, SHARED, TWO)
    return Store()


# --- who needs what ----------------------------------------------------------------------


def test_a_shared_blob_is_counted_for_both(store: Store) -> None:
    """The lower layer has two references, each upper one has one; nothing is garbage."""
    needs = collect.needs(store)
    assert needs[tarball.sha256(SHARED)] == {A, B}
    assert (needs[tarball.sha256(ONE)], needs[tarball.sha256(TWO)]) == ({A}, {B})
    assert set(needs) == {f"sha256:{path.name}" for path in store.blobs.iterdir()}
    assert collect.garbage(store) == []


@pytest.mark.root
def test_an_image_takes_only_its_own_along(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """labkit rmi frees what the other image does not need, unpacked layers too, and says so."""
    for name in (A, B):
        image = store.find(name)
        assert image is not None
        layer_folders(image)
    before = {path.name for path in store.blobs.iterdir()}
    assert cli.main(["rmi", A]) == 0
    said = capsys.readouterr().out
    gone = before - {path.name for path in store.blobs.iterdir()}
    assert len(gone) == 3 and all(name in said for name in gone)  # manifest, configuration, upper layer
    assert f"Untagged: {A}" in said and "Total reclaimed space: 0.1 MB" in said
    chain = chain_ids([tarball.sha256(SHARED), tarball.sha256(TWO)])
    assert {path.name for path in (store.folder.parent / "layers").iterdir()} == {name[7:] for name in chain}
    assert list(collect.verify(store)) == [] and set(store.names()) == {B}
    with pytest.raises(NotFound, match="no image"):
        collect.drop(store, A)


def test_pruning_frees_what_it_says(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """What lost its name some other way goes with labkit prune; --dry-run only tells."""
    store.untag(A)
    (store.blobs / f"{PREFIX}dead").write_bytes(b"half")
    size = sum(path.stat().st_size for path in store.blobs.iterdir() if not path.name.startswith("."))
    told = collect.prune(store, dry=True)
    assert cli.main(["prune", "--dry-run"]) == 0 and "Would delete: blob sha256:" in capsys.readouterr().out
    assert collect.prune(store) == told and len(told) == 3
    left = sum(path.stat().st_size for path in store.blobs.iterdir())
    assert size - left == sum(each.size for each in told)
    assert collect.prune(store) == [] and not list(store.folder.rglob(f"{PREFIX}*"))


def test_nothing_is_collected_during_a_pull(store: Store) -> None:
    """Blobs that are there already and not named yet are safe: pruning refuses until the pull ends."""
    store.untag(A)
    with store.in_use(), pytest.raises(InUse, match="cannot clean"):
        collect.prune(store)
    assert store.path(tarball.sha256(ONE)).exists()
    assert len(collect.prune(store)) == 3


@pytest.mark.root
def test_a_layer_under_a_mount_stays(store: Store, tmp_path: Path) -> None:
    """An overlay in some mount namespace keeps the folders that it stands on, though no name does."""
    image = store.find(A)
    assert image is not None
    folders = layer_folders(image)
    (tmp_path / "m").mkdir()
    lower = ":".join(str(each) for each in reversed(folders))
    script = 'mount -t overlay -o "ro,lowerdir=$1" none "$2" && echo up && read line'
    words = ["unshare", "-m", "--propagation", "private", "sh", "-ec", script, "sh", lower, str(tmp_path / "m")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"up\n"
        collect.drop(store, A)
        assert all(each.is_dir() for each in folders)
        holder.communicate(b"\n")
    assert {each.name for each in collect.prune(store)} == {f"sha256:{folders[1].name}"}  # the lower one is B's too


def test_what_is_wrong_with_a_store_is_found(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed bit and a missing blob are named; a whole store is said to be whole."""
    assert cli.main(["images", "--verify"]) == 0 and "every blob" in capsys.readouterr().out
    rotten, lost = store.path(tarball.sha256(ONE)), store.path(tarball.sha256(TWO))
    rotten.write_bytes(b"\0" + rotten.read_bytes()[1:])
    lost.unlink()
    assert cli.main(["images", "--verify"]) == 1
    said = capsys.readouterr().out
    assert f"sha256:{rotten.name} have changed" in said and f"{B} lacks sha256:{lost.name}" in said


# --- read by others ----------------------------------------------------------------------


def test_crane_pushes_the_store_as_it_is(store: Store, tmp_path: Path) -> None:
    """Several images as one index; all manifests arrive."""
    with serve() as address:
        name = crane.push(store.folder, f"{address}/both:1", collection=True)
        assert {each["digest"] for each in crane.index(name)["manifests"]} == set(store.names().values())


def test_crane_finds_nothing_wrong_with_what_is_written(tmp_path: Path) -> None:
    """An image of the kit's form and a commit on top of it: documents, sizes and both hashes of all layers."""
    small_layout(tmp_path / "layouts/small")
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/new").write_text("new")
    with serve() as address:
        kit.push(tmp_path / "layouts", address)
        base = Store().pull(f"{address}/small")
        made = commit(Store(), base, tmp_path / "upper", f"{address}/small:committed", "a test")
        crane.push(Store().folder, f"{address}/all:1", collection=True)
        for digest in (base.digest, made.digest):
            assert b"PASS" in crane.run("validate", "--remote", f"{address}/all@{digest}", what="validate")


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo, the peer, is not installed")
def test_skopeo_copies_out_of_the_store(store: Store, tmp_path: Path) -> None:
    """`skopeo copy oci:STORE:NAME` finds each image by its name, byte for byte."""
    for name, digest in store.names().items():
        words = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{store.folder}:{name}", f"dir:{tmp_path}/out"]
        subprocess.run(words, check=True)
        assert tarball.sha256((tmp_path / "out/manifest.json").read_bytes()) == digest


# --- killed ------------------------------------------------------------------------------

PULL_AND_UNPACK = """
import sys
from labkit.image.layers import layer_folders
from labkit.image.store import Store
print("up", flush=True)
layer_folders(Store().pull(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real registry with an image of four layers, 600 files."""
    here = tmp_path_factory.mktemp("layouts")
    chance = random.Random(4)
    layers = []
    for number in range(4):
        entries = [tarball.folder(f"d{number}"), tarball.file(".wh.nothing", "")]
        entries += [tarball.file(f"d{number}/f{n:03}", chance.randbytes(7000)) for n in range(150)]
        layers.append((f"layer {number}", entries))
    kit.layout(here / "many", "1.0", layers, {}, 1_700_000_000)
    with serve() as address:
        kit.push(here, address)
        yield f"{address}/many:1.0"


def _inside(folder: Path) -> dict[str, object]:
    """A layer's folder without the folder itself, which no entry of the layer describes."""
    return {path: looks for path, looks in tree(folder).items() if path != "."}


def _run(name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL_AND_UNPACK, name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _ended(child: subprocess.Popen[bytes]) -> int:
    child.communicate()
    return child.returncode


@pytest.mark.root
def test_killed_at_any_moment_the_next_run_completes(registry: str, tmp_path: Path) -> None:
    """SIGKILL at twenty random moments of pull and unpack: each time the store is sound, and in the end whole."""
    chance, data = random.Random(), tmp_path / "data"
    child = _run(registry)
    assert child.stdout is not None and child.stdout.readline() == b"up\n"
    began = time.monotonic()
    assert _ended(child) == 0
    whole = time.monotonic() - began
    expected = {path.name: _inside(path) for path in (data / "layers").iterdir()}
    killed = 0
    for _ in range(KILLS):
        if chance.random() < 0.5:
            shutil.rmtree(data)
        else:
            shutil.rmtree(data / "layers", ignore_errors=True)  # now more kills meet the unpacking
        child = _run(registry)
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        time.sleep(chance.uniform(0, whole))
        child.send_signal(signal.SIGKILL)
        killed += _ended(child) == -signal.SIGKILL
        assert list(collect.verify(Store())) == []
        for path in (data / "layers").glob("[!.]*"):
            assert _inside(path) == expected[path.name]  # a folder with a name is a whole one
    assert killed >= KILLS // 2
    assert _ended(_run(registry)) == 0
    assert {path.name: _inside(path) for path in (data / "layers").iterdir()} == expected
    assert list(collect.verify(Store())) == [] and collect.prune(Store()) == []
    assert not list(data.rglob(f"{PREFIX}*"))


# --- a full disk -------------------------------------------------------------------------

ON_A_SMALL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
from labkit.errors import LabError
from labkit.image import collect
from labkit.image.layers import layer_folders
from labkit.image.store import Store
data, name, size = Path(os.environ["LABKIT_DATA"]), sys.argv[1], sys.argv[2]
for place in sys.argv[3:]:
    (data / place).mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", data / place], check=True)
try:
    layer_folders(Store().pull(name))
    said = ["nothing", "", ""]
except LabError as error:
    said = [error.what, error.why, error.next]
drafts = [str(path) for path in data.rglob(".draft.*")]
named = [path.name for path in (data / "layers").glob("*")]
print(json.dumps({"said": said, "wrong": list(collect.verify(Store())), "drafts": drafts, "layers": named}))
"""


@pytest.mark.root
@pytest.mark.parametrize("place", ["images", "layers"])
def test_a_full_disk_leaves_nothing_half(registry: str, place: str) -> None:
    """A disk that is full in the middle of a blob or of a layer: what, why, what to do; nothing half is kept."""
    words = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", ON_A_SMALL_DISK, registry, "1m", place]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    what, why, next_ = seen["said"]
    assert "No space left on device" in why and ("blob" in what if place == "images" else "d0/f" in what or "d" in what)
    assert "df -h" in next_
    assert (seen["wrong"], seen["drafts"], seen["layers"]) == ([], [], [])


def test_a_folder_a_thousand_deep_is_removed(tmp_path: Path) -> None:
    """Deeper than Python recurses, and than descriptors last; a symlink in it is not followed."""
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/file").write_text("x")
    top = tmp_path / "top"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for number in range(1100):
        os.symlink(tmp_path / "keep", "link", dir_fd=fd)
        os.mkdir("d", dir_fd=fd)
        if number < 9:
            os.mkdir(".gone.0", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    collect.remove(top)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep"] and (tmp_path / "keep/file").exists()
