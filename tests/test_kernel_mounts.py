"""Mounts and overlays in a namespace of the test's own; a cause that an error names, mended, lets the call succeed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.kernel import mounts

needs_root = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")]

PRELUDE = """
import json, os, sys
from pathlib import Path
from labkit.errors import LabError
from labkit.kernel import mounts, overlay
here = Path(sys.argv[1])
def say(value): print(json.dumps(value), flush=True)
def said(function, *arguments):
    try:
        function(*arguments)
    except LabError as error:
        return str(error)
    return "done"
"""


def inside(folder: Path, program: str) -> list[Any]:
    """What a program says in a new mount namespace, whose mounts are private, line by line."""
    words = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", PRELUDE + textwrap.dedent(program)]
    done = subprocess.run([*words, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_unescape_is_the_inverse_of_the_kernels_escaping(path: str) -> None:
    """The kernel writes space, tab, line feed and backslash as three octal digits (fs/proc_namespace.c), # too."""
    escaped = "".join(f"\\{ord(one):03o}" if one in " \t\n\\#" else one for one in path)
    assert mounts.unescape(escaped) == path


NAMES = [
    "a b",
    "tab\there",
    "back\\slash",
    "käse",
    "line\nfeed",
    "next\x85line",
    "\\040",
    "form\ffeed",
    "return\r",
    "sep\u2028",
]


@pytest.mark.root
@needs_root[1]
def test_a_refused_context_is_told_in_the_kernels_words(tmp_path: Path) -> None:
    """The log of a mount context ends with the context: its words go along with the OSError."""
    program = """
    try:
        mounts.new("tmpfs", ("nonsense",))
    except OSError as error:
        say([error.errno, error.kernel_words, str(error)])
    """
    [(number, words, text)] = inside(tmp_path, program)
    assert number == 22 and "Unknown parameter 'nonsense'" in words and words in text and "fsconfig(" in text


@pytest.mark.root
@needs_root[1]
def test_mounts_on_strange_names_are_found(tmp_path: Path) -> None:
    """Spaces, umlauts, line feeds, what Python calls line ends: is_mounted sees each, and not its neighbours."""
    program = f"""
    found = []
    for name in {NAMES!r}:
        place = here / name
        place.mkdir()
        before = mounts.is_mounted(place)
        mounts.mount("strange", place, "tmpfs")
        found.append([before, mounts.is_mounted(place), mounts.is_mounted(str(place) + "x")])
    say(found)
    """
    assert inside(tmp_path, program) == [[[False, True, False]] * len(NAMES)]


@pytest.mark.root
@needs_root[1]
def test_each_obstacle_to_pivot_root_is_named_and_can_be_mended(tmp_path: Path) -> None:
    """Not a mount point; shared; mounted on a shared mount: in turn named, mended, and at last it succeeds."""
    program = """
    mounts.mount("above", here, "tmpfs")
    new = here / "new"
    new.mkdir()
    mounts.propagate(here, "shared")
    say(said(mounts.pivot, new))
    mounts.mount(str(new), new, None, ["rbind"])
    mounts.propagate(new, "shared")
    say(said(mounts.pivot, new))
    mounts.propagate(new, "private")
    (new / "mark").touch()
    say(said(mounts.pivot, new))
    mounts.propagate(here, "private")
    say(said(mounts.pivot, new))
    say(os.listdir("/"))
    """
    not_mounted, shared, above_shared, done, listing = inside(tmp_path, program)
    assert "is not a mount point: bind it to itself first" in not_mounted
    assert f"the mount on {tmp_path}/new is shared: make it private first" in shared
    assert f"the mount {tmp_path}, on which {tmp_path}/new is mounted, is shared" in above_shared
    assert (done, listing) == ("done", ["mark"])


@pytest.mark.root
@needs_root[1]
@pytest.mark.parametrize(
    ("attempt", "cause", "mend"),
    [
        ('mounts.mount("x", here / "none", "tmpfs")', "the mount point", '(here / "none").mkdir()'),
        ('mounts.mount(str(here / "src"), here, None, ["bind"])', "the source", '(here / "src").mkdir()'),
        ('mounts.mount("x", here, kind[0])', "has no file system nosuchfs", 'kind[0] = "tmpfs"'),
        (
            'mounts.mount("/etc/passwd", here / "t", None, ["bind"])',
            "one of source and target is a folder",
            '(here / "t").rmdir(); (here / "t").touch()',
        ),
        (
            'mounts.propagate(here, "shared")',
            "it is not a mount point",
            'mounts.mount(str(here), here, None, ["bind"])',
        ),
        ("overlay.mount_overlay(here, [], here, here)", "at least one lower", None),
        (
            'overlay.mount_overlay(here / "t", [here / "low"], here / "up", here / "work")',
            "low is not a folder",
            '[(here / name).mkdir() for name in ("low", "up", "work")]',
        ),
    ],
)
def test_each_cause_of_a_failed_mount_mended(tmp_path: Path, attempt: str, cause: str, mend: str | None) -> None:
    """The message names it; without it the same call succeeds."""
    program = f"""
    (here / "t").mkdir()
    kind = ["nosuchfs"]
    say(said(lambda: {attempt}))
    {mend or "pass"}
    say(said(lambda: {attempt}))
    """
    first, second = inside(tmp_path, program)
    assert cause in first and first.startswith(("cannot ", "an overlay"))
    assert mend is None or second == "done"


@pytest.mark.root
@needs_root[1]
def test_an_overlay_shows_the_top_most_file_and_writes_up(tmp_path: Path) -> None:
    """Bottom first in the call; both ways of asking the kernel agree; odd characters in folder names are no trouble."""
    program = """
    for number, mount in enumerate((overlay.mount_overlay, overlay._mount_by_string)):
        base = here / f"with:colon,comma {number}"
        low, high, up, work, place = (base / name for name in ("low", "high", "up", "work", "place"))
        for folder in (low, high, up, work, place):
            folder.mkdir(parents=True)
        (low / "both").write_text("low")
        (high / "both").write_text("high")
        (low / "only").write_text("low")
        mount(place, [low, high], up, work)
        (place / "new").write_text("new")
        say([(place / "both").read_text(), (place / "only").read_text(), os.listdir(up), os.listdir(high)])
    """
    first, second = inside(tmp_path, program)
    assert first == second == ["high", "low", ["new"], ["both"]]


@pytest.mark.root
@needs_root[1]
def test_two_hundred_layers_are_stacked(tmp_path: Path) -> None:
    """More than a page of mount options: the new mount interface takes them one by one, the old call says why not."""
    program = """
    layers = [here / ("layer" * 8) / str(number) for number in range(200)]
    for folder in (*layers, here / "up", here / "work", here / "place"):
        folder.mkdir(parents=True)
    (layers[0] / "deepest").touch()
    say(said(overlay._mount_by_string, here / "place", layers, here / "up", here / "work"))
    say(said(overlay.mount_overlay, here / "place", layers, here / "up", here / "work"))
    say(os.listdir(here / "place"))
    """
    old, new, listing = inside(tmp_path, program)
    assert "takes one page of options" in old and "6.5" in old
    assert (new, listing) == ("done", ["deepest"])


@pytest.mark.root
@needs_root[1]
def test_a_covered_mount_is_not_found(tmp_path: Path) -> None:
    """find() answers with a tree that can be reached, not with one that another mount hides."""
    program = """
    mounts.mount("first", here, "ramfs")
    say(str(mounts.find("ramfs")))
    mounts.mount("over", here, "tmpfs")
    say(str(mounts.find("ramfs")))
    """
    first, second = inside(tmp_path, program)
    assert first == str(tmp_path) and second == "None"
