"""Are the lab's own images true, the same each time, and unpacked as umoci unpacks them?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from image.making import tree
from test_image_names import validate_layout

from labkit.errors import LabError
from labkit.image import kit, model
from labkit.image.layers import layer_folders
from labkit.image.registry import serve
from labkit.image.store import Image, Store
from labkit.image.unpack import flatten

NAMES = ["busybox", "nginx"]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both images, made from this machine's own distribution."""
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
    """busybox and nginx find their libraries and files with nothing but the image as root."""
    for name, command, said in (
        ("busybox", ["sh", "-c", "ls /etc"], "passwd"),
        ("nginx", ["nginx", "-t"], "successful"),
    ):
        root = tmp_path / name
        root.mkdir()
        flatten(image(layouts / name), root)
        script = 'for d in dev proc; do mount --rbind /$d "$0/$d"; done; exec chroot "$0" "$@"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, str(root), *command],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        assert done.returncode == 0 and said in done.stdout + done.stderr, done.stderr


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
