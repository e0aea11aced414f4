"""Are the lab's own images true, the same each time, and unpacked as umoci unpacks them?"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from image.making import tree
from test_image_names import validate_layout

from labkit.errors import LabError
from labkit.image import crane, kit, model, tarball
from labkit.image.layers import layer_folders
from labkit.image.registry import serve
from labkit.image.store import Image, Store
from labkit.image.unpack import flatten

NAMES = ["busybox", "nginx", "debian", "static"]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images that need no compiler, made from this machine's own distribution."""
    folder = tmp_path_factory.mktemp("kit")
    kit.build(folder, NAMES)
    return folder


def image(layout: Path) -> Image:
    """The one image of a layout, read as the store reads its own."""
    store = Store(layout)
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    manifest = model.Manifest.read(store.document(digest))
    return Image(layout.name, digest, manifest, model.Config.read(store.document(manifest.config.digest)), store)


def umoci(layout: Path, root: Path) -> None:
    """The same image by another program."""
    if shutil.which("umoci") is None:
        pytest.fail("umoci is missing: apt-get install umoci (make test installs it)")
    tag = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"][
        "org.opencontainers.image.ref.name"
    ]
    subprocess.run(["umoci", "raw", "unpack", "--image", f"{layout}:{tag}", str(root)], check=True, capture_output=True)


def in_root(root: Path, of: Image, command: list[str]) -> subprocess.CompletedProcess[str]:
    """A program of an unpacked image, with its environment and this machine's /dev and /proc."""
    script = 'for d in dev proc; do mount --rbind /$d "$0/$d"; done; exec chroot "$0" "$@"'
    environment = {"HOME": "/root", **dict(pair.split("=", 1) for pair in of.config.config["Env"])}
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(root), *command], capture_output=True, text=True, env=environment
    )


@pytest.mark.root
@pytest.mark.parametrize("name", NAMES)
def test_the_tree_is_umocis(layouts: Path, tmp_path: Path, name: str) -> None:
    """File by file: type, mode, owner, time, target, content, hard links, attributes."""
    (tmp_path / "ours").mkdir()
    flatten(image(layouts / name), tmp_path / "ours")
    umoci(layouts / name, tmp_path / "theirs")
    ours, theirs = tree(tmp_path / "ours"), tree(tmp_path / "theirs")
    assert ours.keys() == theirs.keys() and len(ours) > 50
    assert {path: (ours[path], theirs[path]) for path in ours if ours[path] != theirs[path] and path != "."} == {}


@pytest.mark.root
def test_stacked_folders_are_the_flat_tree(layouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's overlayfs, given the layer folders, shows what umoci's flat root holds."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    folders = layer_folders(image(layouts / "nginx"))
    assert len(folders) >= 3
    umoci(layouts / "nginx", tmp_path / "theirs")
    (tmp_path / "m").mkdir()
    # lowerdir lists the top first; the mount lives and dies with unshare's namespace
    script = 'mount -t overlay -o "ro,lowerdir=$1" none "$2" && cp -a "$2" "$3"'
    lower = ":".join(str(folder) for folder in reversed(folders))
    subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, "sh", lower, str(tmp_path / "m"), str(tmp_path / "seen")], check=True
    )

    def plain(root: Path) -> dict[str, Any]:
        return {path: facts[:5] for path, facts in tree(root).items() if path != "."}

    assert plain(tmp_path / "seen") == plain(tmp_path / "theirs")


@pytest.mark.parametrize("name", NAMES)
def test_the_layout_passes_the_specification(layouts: Path, name: str) -> None:
    """All documents of the kit's images validate."""
    validate_layout(layouts / name)


def test_the_same_packages_give_the_same_digests(layouts: Path, tmp_path: Path) -> None:
    """Built a second time, in another folder: no byte differs."""
    kit.build(tmp_path, NAMES)
    for name in NAMES:
        assert image(tmp_path / name).digest == image(layouts / name).digest


def test_nginx_is_set_up_as_its_users_expect(layouts: Path) -> None:
    """Three layers or more, its port, its signal, its command, and a history line a layer."""
    nginx = image(layouts / "nginx")
    assert len(nginx.manifest.layers) >= 3 and len(nginx.config.history) == len(nginx.manifest.layers)
    assert nginx.config.config["ExposedPorts"] == {"80/tcp": {}}
    assert nginx.config.config["StopSignal"] == "SIGQUIT"
    assert nginx.config.config["Cmd"] == ["nginx", "-g", "daemon off;"]


@pytest.mark.root
def test_its_programs_run_in_their_own_root(layouts: Path, tmp_path: Path) -> None:
    """busybox, nginx and debian find their libraries and files with nothing but the image as root."""
    for name, command, said in (
        ("busybox", ["sh", "-c", "ls /etc"], "passwd"),
        ("nginx", ["nginx", "-t"], "successful"),
        (
            "debian",
            ["bash", "-c", "useradd app && id app && dpkg -S /usr/bin/ls | grep coreutils"],
            "coreutils: /usr/bin/ls",
        ),
    ):
        root = tmp_path / name
        root.mkdir()
        flatten(image(layouts / name), root)
        done = in_root(root, image(layouts / name), command)
        assert done.returncode == 0 and said in done.stdout + done.stderr, done.stderr


def test_debian_says_which_package_each_file_is_from(layouts: Path, tmp_path: Path) -> None:
    """dpkg of this machine reads the database that was written: every package is there, with files that are."""
    flatten(image(layouts / "debian"), tmp_path)
    query = ["dpkg-query", f"--admindir={tmp_path}/var/lib/dpkg"]
    shown = subprocess.run([*query, "-f", "${db:Status-Status} ${Package}\n", "-W"], capture_output=True, text=True)
    packages = [line.removeprefix("installed ") for line in shown.stdout.splitlines()]
    assert {"bash", "coreutils", "dpkg", "libc6"} < set(packages) and not shown.stderr, shown
    for package in packages:
        listed = subprocess.run([*query, "-L", package], capture_output=True, text=True, check=True).stdout
        for path in listed.split("\n")[1:-1]:
            assert os.path.lexists(f"{tmp_path}{path}"), (package, path)


def test_static_has_what_a_program_looks_for_and_no_program(layouts: Path, tmp_path: Path) -> None:
    """Users, zones and certificates; nothing that could be executed, and no library."""
    flatten(image(layouts / "static"), tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if path.stat().st_mode & 0o111 or ".so" in path.name] == []
    bundle = (tmp_path / "etc/ssl/certs/ca-certificates.crt").read_text()
    names = ssl.create_default_context(cadata=bundle).get_ca_certs()
    assert len(names) == bundle.count("BEGIN CERT") > 100
    assert (tmp_path / "usr/share/zoneinfo/Europe/Berlin").read_bytes().startswith(b"TZif")
    assert "\nnonroot:x:65532:65532:" in (tmp_path / "etc/passwd").read_text()
    assert stat.S_IMODE((tmp_path / "tmp").stat().st_mode) == 0o1777


def changed(path: Path) -> tuple[int, int]:
    """When a file's bytes and its attributes were changed: overlayfs would have copied it up for either."""
    found = path.lstat()
    return found.st_mtime_ns, found.st_ctime_ns


@pytest.mark.root
@pytest.mark.long
def test_golang_has_one_digest_and_a_cache_that_go_believes(tmp_path: Path) -> None:
    """Compiled twice, the cache too has the same bytes; in its root, go build compiles the program alone."""
    for turn in ("one", "two"):
        kit.build(tmp_path / turn, ["golang"])
    golang = image(tmp_path / "one/golang")
    assert image(tmp_path / "two/golang").digest == golang.digest
    root = tmp_path / "root"
    root.mkdir()
    flatten(golang, root)
    cache = {path: changed(path) for path in (root / "root/.cache/go-build").rglob("*-[ad]")}
    shutil.copytree("notebooks/files/go-hello", root / "src")
    done = in_root(root, golang, ["sh", "-c", "cd /src && go build -x -trimpath -o app ./cmd/api"])
    assert re.findall(r"/compile -o \S+ .*?-p (\S+)", done.stderr) == ["main"], done.stderr
    assert [path for path, seen in cache.items() if changed(path) != seen] == [], "go touched its cache"


def test_a_blob_of_two_images_lies_on_the_disk_once(tmp_path: Path) -> None:
    """After `share`, the layer that both have is one file; what only one has is left alone."""
    files = [tarball.file("a", "a" * 1000)]
    for name in ("one", "two"):
        kit.layout(tmp_path / name, "1", [("a", files)], {"Cmd": [name]}, 1_700_000_000)
    kit.share(tmp_path)
    kit.share(tmp_path)
    (layer,) = {path.name for path in tmp_path.glob("one/blobs/sha256/*")} & {
        path.name for path in tmp_path.glob("two/blobs/sha256/*")
    }
    assert (tmp_path / "one/blobs/sha256" / layer).samefile(tmp_path / "two/blobs/sha256" / layer)
    assert sum(path.stat().st_nlink for path in tmp_path.glob("*/blobs/sha256/*")) == 2 * 2 + 4
    validate_layout(tmp_path / "two")


def test_pushed_and_pulled_it_is_the_same(layouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`labkit.image.kit push` gives :latest and :VERSION; pulled, both have the layout's digest."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    with serve() as address:
        done = subprocess.run(
            [sys.executable, "-m", "labkit.image.kit", "push", str(layouts), address], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        index = json.loads((layouts / "nginx/index.json").read_text())
        version = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        for tag in ("latest", version):
            assert Store().pull(f"{address}/nginx:{tag}").digest == image(layouts / "nginx").digest


def test_a_layout_whose_name_has_a_tag_is_that_tag(tmp_path: Path) -> None:
    """static:nonroot is one tag of static, beside its version and latest."""
    for name in ("static", "static:nonroot"):
        kit.layout(tmp_path / name, "13", [("a", [tarball.file("a", "a")])], {"Cmd": [name]}, 1_700_000_000)
    with serve() as address:
        kit.push(tmp_path, address)
        assert sorted(crane.ls(f"{address}/static")) == ["13", "latest", "nonroot"]
        assert crane.config(f"{address}/static:nonroot")["config"]["Cmd"] == ["static:nonroot"]


def test_a_package_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """apt's own words are in the message."""
    with pytest.raises(LabError, match=r"no-such-package-here[\s\S]*Unable to locate"):
        kit.fetch("no-such-package-here", tmp_path)


def test_the_commands_say_what_happened(layouts: Path, tmp_path: Path) -> None:
    """labkit pull and images succeed with a line each; a missing image is status 125, what, why, next."""
    state = {**os.environ, "LABKIT_DATA": str(tmp_path / "data"), "LABKIT_RUN": str(tmp_path / "run")}

    def labkit(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "labkit", *arguments], capture_output=True, text=True, env=state)

    with serve() as address:
        kit.push(layouts, address)
        assert f"{address}/busybox:latest" in labkit("pull", f"{address}/busybox").stdout
        assert f"{address}/busybox:latest" in labkit("images").stdout
        missing = labkit("pull", f"{address}/nothing")
    assert missing.returncode == 125
    assert "why:" in missing.stderr and "next:" in missing.stderr and "Traceback" not in missing.stderr


@pytest.mark.root
@pytest.mark.long
def test_unpacking_is_no_slower_than_umoci(layouts: Path, tmp_path: Path) -> None:
    """The median of seven runs each, interleaved, so that the machine's mood hits both."""
    ours, theirs = [], []
    for turn in range(7):
        (tmp_path / f"o{turn}").mkdir()
        started = time.perf_counter()
        flatten(image(layouts / "nginx"), tmp_path / f"o{turn}")
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        umoci(layouts / "nginx", tmp_path / f"t{turn}")
        theirs.append(time.perf_counter() - started)
    assert sorted(ours)[3] <= sorted(theirs)[3]
