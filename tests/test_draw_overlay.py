"""The overlay's picture against the kernel: signs are read as it writes them, origins are where the bytes are."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings

from labkit.draw import overlay
from labkit.draw.merge import merge
from labkit.observe import mountinfo, stack
from labkit.observe.stack import File, Layer, Stack
from tests import draw_odd


def layers(*contents: tuple[File, ...]) -> Stack:
    """A stack of these, the bottom first."""
    return Stack(tuple(Layer(f"layer {number}", files) for number, files in enumerate(contents, 1)))


def test_the_upper_file_hides_the_lower_one() -> None:
    """One name, two layers: the upper one's size, and the lower one is hidden by it."""
    merged = merge(layers((File("a", "file", 1),), (File("a", "file", 2),)))
    assert merged.seen["a"].size == 2
    assert merged.hidden == {(0, "a"): 1}


def test_a_whiteout_hides_a_folder_and_all_in_it() -> None:
    """What was deleted is seen nowhere, though its bytes still lie below."""
    merged = merge(layers((File("d", "folder"), File("d/f", "file", 9)), (File("d", "whiteout"),)))
    assert merged.seen == {}
    assert merged.hidden == {(0, "d"): 1, (0, "d/f"): 1}


def test_an_opaque_folder_hides_what_lies_below_it_and_not_beside_it() -> None:
    """A folder that was deleted and made again shows only its new files."""
    below = (File("d/old", "file"), File("e/kept", "file"))
    merged = merge(layers(below, (File("d", "folder", opaque=True), File("d/new", "file"))))
    assert sorted(merged.seen) == ["d", "d/new", "e", "e/kept"]
    assert merged.hidden == {(0, "d"): 1, (0, "d/old"): 1}


def test_a_redirected_folder_shows_what_lies_below_under_its_old_name() -> None:
    """A renamed folder is one entry above; its files are still below, under the old name."""
    above = (File("new", "folder", redirect="old"), File("old", "whiteout"))
    merged = merge(layers((File("old/f", "file", 5),), above))
    assert merged.seen["new/f"].sources == ((0, "old/f"),)
    assert "old" not in merged.seen
    assert merged.shown[0, "old/f"] == "new/f"


def test_a_copy_of_metadata_takes_its_bytes_from_below() -> None:
    """After a chmod the name is above, the data below."""
    merged = merge(layers((File("f", "file", 5),), (File("f", "file", 5, metadata_only=True),)))
    assert merged.seen["f"].sources == ((1, "f"),)
    assert merged.seen["f"].data == (0, "f")


def test_the_picture_says_what_hides_what() -> None:
    """The twin has a line for each path: what is seen, and what each layer holds."""
    above = (File("etc/motd", "file", 3), File("secret", "whiteout"), File("var", "folder", opaque=True))
    text = overlay.origins(layers((File("etc/motd", "file", 5), File("secret", "file", 9), File("var/log", "file", 7)),
                                  above)).text.split("\n")  # fmt: skip
    assert [re.split(r"\s{2,}", line) for line in text] == [
        ["path", "merged view", "layer 2", "layer 1"],
        ["etc", "folder, merged, of layer 2, layer 1", "folder", "folder"],
        ["etc/motd", "from layer 2, file 3 B", "file, 3 B", "file, hidden by layer 2"],
        ["secret", "gone, whiteout in layer 2", "whiteout, deletes it below", "file, hidden by layer 2"],
        ["var", "folder, of layer 2", "opaque folder, hides what is below", "folder, hidden by layer 2"],
        ["var/log", "gone, opaque folder in layer 2", "-", "file, hidden by layer 2"],
    ]


@settings(deadline=None)
@given(draw_odd.stacks())
def test_every_file_of_a_layer_is_shown_or_hidden(odd: Stack) -> None:
    """Nothing is forgotten: each name of each layer is seen somewhere, hidden by a layer, or a whiteout."""
    merged = merge(odd)
    for number, layer in enumerate(odd.layers):
        for path, kind in {file.path.strip("/"): file.kind for file in layer.files}.items():
            here = (number, path)
            assert (here in merged.shown) + (here in merged.hidden) == 1 or kind == "whiteout", here


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Two lower layers, an upper one and the merged view, in which people have worked."""
    for number in (1, 2):
        for name in ("kept", "changed", "deleted", "both", "chmodded", "dir/one", "dir/two", "moved/in", "gone/in",
                     "again/in", "file-then-dir"):  # fmt: skip
            if number == 1 or name in ("both", "dir/two", "moved/in"):
                place = tmp_path / f"layer{number}" / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(f"{name} of layer {number}")
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = (f"lowerdir={tmp_path}/layer2:{tmp_path}/layer1,upperdir={tmp_path}/upper,workdir={tmp_path}/work,"
               "redirect_dir=on,metacopy=on")  # fmt: skip
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], check=True)
    try:
        view = tmp_path / "merged"
        (view / "changed").write_text("changed above")
        (view / "deleted").unlink()
        (view / "chmodded").chmod(0o600)
        (view / "dir/two").rename(view / "dir/three")
        (view / "moved").rename(view / "dir/moved")
        subprocess.run(["rm", "-r", view / "gone", view / "again"], check=True)
        (view / "again").mkdir()
        (view / "again/new").write_text("new")
        (view / "file-then-dir").unlink()
        (view / "file-then-dir").mkdir()
        (view / "link").symlink_to("kept")
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts an overlay: needs root")
def test_the_kernel_shows_the_same(mounted: Path) -> None:
    """After writes, deletions, renames and a chmod: the same paths, kinds and sizes, and the bytes where we say."""
    folders = [mounted / "layer1", mounted / "layer2", mounted / "upper"]
    merged = merge(stack.read(folders[:2], folders[2]))
    view = mounted / "merged"
    there = {os.fspath(path.relative_to(view)) for path in view.rglob("*")}
    assert set(merged.seen) == there
    for path, seen in merged.seen.items():
        place = view / path
        kind = "link" if place.is_symlink() else "folder" if place.is_dir() else "file"
        assert seen.kind == kind, path
        if kind == "file":
            layer, name = seen.data or seen.sources[0]
            assert (folders[layer] / name).read_bytes() == place.read_bytes(), path
            assert seen.size == place.stat().st_size, path


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts an overlay: needs root")
def test_signs_are_read_as_the_kernel_wrote_them(mounted: Path) -> None:
    """A deletion is a whiteout, a folder made again opaque, a renamed one redirected, a chmod metadata alone."""
    (mount,) = [one for one in mountinfo.read() if one.place == os.fspath(mounted / "merged")]
    upper = {file.path: file for file in stack.of(mountinfo.layers(mount)).layers[-1].files}
    assert upper["deleted"].kind == upper["gone"].kind == "whiteout"
    assert upper["again"].opaque
    assert not upper["dir"].opaque
    assert upper["dir/moved"].redirect == "/moved"
    assert upper["chmodded"].metadata_only
    assert not upper["changed"].metadata_only


def test_folders_are_read_as_layers_without_root(tmp_path: Path) -> None:
    """Plain folders: files with their sizes, links, names that are no UTF-8; a missing folder is an error."""
    (tmp_path / "a" / "d").mkdir(parents=True)
    (tmp_path / "a" / "d" / "f").write_text("12345")
    (tmp_path / "a" / "l").symlink_to("d/f")
    (tmp_path / "a" / os.fsdecode(b"\xff")).write_text("")
    found = stack.read([tmp_path / "a"], names=["base"])
    assert found.layers == (Layer("base", (File("d", "folder"), File("d/f", "file", 5), File("l", "link"),
                                           File(os.fsdecode(b"\xff"), "file"))),)  # fmt: skip
    assert "from base, file 5 B" in overlay.origins(found).text
    with pytest.raises(FileNotFoundError):
        stack.read([tmp_path / "nothing"])


def test_a_folder_that_is_gone_is_still_a_folder_and_its_files_say_their_new_names() -> None:
    """The row of a renamed folder ends with a slash, and what lies in it is not cut to be named anew."""
    above = (File("www", "folder", redirect="srv"), File("srv", "whiteout"))
    below = (File("srv", "folder"), File("srv/notes", "folder"), File("srv/notes/one", "file", 2))
    picture = overlay.origins(layers(below, above))
    assert ">srv/<" in picture.svg and ">srv/notes/<" in picture.svg and ">srv/notes/one<" in picture.svg
    assert ">as www/notes/one<" in picture.svg and "…" not in picture.svg
