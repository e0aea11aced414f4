"""`labkit guest copy|status|log`, and what learners save through JupyterLab."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TREE, Lab

ODD = ["a b.txt", "it's.txt", "-n", "ü€.txt", "new\nline", "$HOME", "*", 'say "x"']


@pytest.fixture
def place(lab: Lab) -> Iterator[str]:
    """A folder of the machine's own disk, for one test."""
    path = f"/root/copy-{secrets.token_hex(4)}"
    lab.text("mkdir", path)
    yield path
    lab.text("rm", "-rf", path)


@pytest.mark.parametrize("name", ODD)
def test_a_file_goes_in_and_comes_out(lab: Lab, place: str, name: str, tmp_path: Path) -> None:
    """With any name: its bytes, its mode and its name are the same after both ways."""
    data = os.urandom(70000)
    source = tmp_path / "in" / name
    source.parent.mkdir()
    source.write_bytes(data)
    source.chmod(0o750)
    (tmp_path / "out").mkdir()
    # By its absolute path: a bare -n would be an option.
    assert lab.guest("copy", str(source), f"guest:{place}/").returncode == 0
    assert lab.run("cat", f"{place}/{name}").stdout == data
    done = lab.guest("copy", f"guest:{place}/{name}", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    back = tmp_path / "out" / name
    assert back.read_bytes() == data
    assert back.stat().st_mode & 0o777 == 0o750
    assert back.stat().st_uid == os.getuid()


def test_a_folder_goes_in_and_comes_out(lab: Lab, place: str, tmp_path: Path) -> None:
    """With its subfolders, symlinks and empty folders; an existing target takes it in, a new name renames it."""
    source = tmp_path / "work"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "deep" / "er" / "file").write_text("x")
    (source / "link").symlink_to("deep/er/file")
    assert lab.guest("copy", str(source), f"guest:{place}").returncode == 0
    assert lab.text("cat", f"{place}/work/link") == "x"
    assert lab.guest("copy", str(source), f"guest:{place}/renamed").returncode == 0
    assert lab.guest("copy", f"guest:{place}/renamed", str(tmp_path / "back")).returncode == 0
    found = {str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*")}
    assert found == {"deep", "deep/er", "deep/er/file", "empty", "link"}
    assert os.readlink(tmp_path / "back" / "link") == "deep/er/file"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("/nonexistent", "guest:/root/"),
        ("guest:/nonexistent", "."),
        ("a", "b"),
        ("guest:a", "guest:b"),
        ("guest:/", "."),
    ],
)
def test_a_copy_that_cannot_be_is_said(lab: Lab, source: str, target: str, tmp_path: Path) -> None:
    """No such file, both sides here, both sides there, no name: an error in words, and nothing is made."""
    done = lab.guest("copy", source, target, cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.strip() != "" and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_status_is_what_the_kernel_says(lab: Lab) -> None:
    """The process of --json is QEMU's, its ports are those that JupyterLab and sshd answer on; no token is in it."""
    done = lab.guest("status", "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert (said["started"], said["answers"]) == ("make lab", True)
    assert Path(f"/proc/{said['pid']}/comm").read_text().startswith("qemu-system")
    assert said["port"] == lab.record.port
    assert lab.record.token not in done.stdout
    assert lab.record.token not in lab.guest("status").stdout


def test_the_log_has_the_services_words(lab: Lab) -> None:
    """`labkit guest log` shows the three services; --console what the machine's kernel and QEMU said."""
    done = lab.guest("log")
    assert done.returncode == 0
    assert "Jupyter" in done.stdout
    assert lab.guest("log", "--console").returncode == 0


def test_a_notebook_saved_in_jupyterlab_is_in_the_checkout(lab: Lab) -> None:
    """Saved over the interface that the browser uses: here with the checkout's owner; and edits here are seen there."""
    name = f"saved-{secrets.token_hex(4)}.ipynb"
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "first"}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    here, url = TREE / "notebooks" / name, f"/api/contents/notebooks/{name}"
    try:
        body = {"type": "notebook", "format": "json", "content": notebook}
        status, answer = lab.ask(url, token=lab.record.token, body=body, method="PUT")
        assert status == 201, answer
        assert json.loads(here.read_text())["cells"][0]["source"] in ("first", ["first"])
        assert (here.stat().st_uid, here.stat().st_gid) == (TREE.stat().st_uid, TREE.stat().st_gid)
        cell["source"] = "edited on the host"
        here.write_text(json.dumps(notebook))
        status, answer = lab.ask(url, token=lab.record.token)
        assert status == 200
        assert json.loads(answer)["content"]["cells"][0]["source"] == "edited on the host"
        assert not list(here.parent.glob(".ipynb_checkpoints"))
    finally:
        here.unlink(missing_ok=True)
    assert lab.ask(url, token=lab.record.token)[0] == 404
