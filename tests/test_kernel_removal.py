"""A tree is removed whole, and what is mounted in it is not touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from labkit.kernel.removal import remove

PRELUDE = """
import json, os, sys
from pathlib import Path
from labkit.kernel import mounts
from labkit.kernel.removal import remove
here = Path(sys.argv[1])
def said():
    try:
        remove(here / "tree")
    except OSError as error:
        print(json.dumps([type(error).__name__, error.errno, str(error)]))
    else:
        print(json.dumps("removed"))
"""


def inside(folder: Path, program: str) -> Any:
    """What a program says last in a new mount namespace."""
    words = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", PRELUDE + textwrap.dedent(program)]
    done = subprocess.run([*words, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A tree to be removed, and something else with a file in it."""
    (tmp_path / "tree/a/b/c").mkdir(parents=True)
    (tmp_path / "tree/file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/precious").write_text("precious")
    return tmp_path


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")
@pytest.mark.parametrize("where", ["tree", "tree/a", "tree/a/b", "tree/a/b/c"])
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_what_is_mounted_in_it_stays(ground: Path, where: str, kind: str) -> None:
    """A bind of the same file system or another one, at the top or deep down: refused, and nothing in it is gone."""
    mount = 'mounts.mount(here / "other", {0}, None, ["bind"])' if kind == "bind" else (
        'mounts.mount("tmpfs", {0}, "tmpfs", []); Path({0}, "precious").write_text("precious")')  # fmt: skip
    seen = inside(ground, f"""
        where = here / {where!r}
        {mount.format("where")}
        seen = os.open(where, os.O_RDONLY)
        said()
        print(json.dumps([Path(f"/proc/self/fd/{{seen}}/precious").read_text(), "again"]))
    """)  # fmt: skip
    assert seen == ["precious", "again"]
    assert (ground / "tree").is_dir() and (ground / "other/precious").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")
def test_it_says_what_is_in_the_way_and_goes_once_that_is_unmounted(ground: Path) -> None:
    """The error names the folder; after umount the same call removes the rest."""
    program = 'mounts.mount(here / "other", here / "tree/a", None, ["bind"])\nsaid()\n'
    name, _, text = inside(ground, program)
    assert name == "OSError" and "'a'" in text and "mounted there" in text
    assert inside(ground, program + 'mounts.unmount(str(here / "tree/a"))\nsaid()\n') == "removed"
    assert not (ground / "tree").exists()


@pytest.mark.parametrize("absolute", [True, False])
def test_a_tree_is_removed_by_its_path_or_from_a_folder(ground: Path, absolute: bool) -> None:
    """By an absolute path, or by a name below an open folder; a link in it is removed, not followed."""
    (ground / "tree/a/link").symlink_to(ground / "other")
    if absolute:
        remove(ground / "tree")
    else:
        folder = os.open(ground, os.O_RDONLY)
        remove("tree", dir_fd=folder)
        os.close(folder)
    assert sorted(path.name for path in ground.iterdir()) == ["other"]
    assert (ground / "other/precious").exists()


def test_the_top_must_not_be_a_link(ground: Path) -> None:
    """A link to a folder is removed itself."""
    (ground / "link").symlink_to(ground / "other")
    remove(ground / "link")
    assert not (ground / "link").is_symlink() and (ground / "other/precious").exists()
