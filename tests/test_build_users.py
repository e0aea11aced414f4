"""Whose a copied file becomes: --chown and USER, looked up in the lists of an image that may lie."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.errors import NotFound
from labkit.image.build.users import numbers

ASK = """
import os, sys
from labkit.errors import NotFound
from labkit.image.build.users import numbers
try:
    print(numbers(sys.argv[2], os.open(sys.argv[1], os.O_PATH)))
except NotFound as error:
    print(error.what)
"""


def test_names_are_found_and_numbers_need_no_list(tmp_path: Path) -> None:
    """A user's group is the one that its line names; a number is its own group."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n")
    (tmp_path / "etc/group").write_text("staff:x:50:\n")
    root = os.open(tmp_path, os.O_PATH)
    try:
        assert [numbers(text, root) for text in ("web", "web:staff", "7", "7:8")] == [
            (33, 34),
            (33, 50),
            (7, 7),
            (7, 8),
        ]
        with pytest.raises(NotFound, match="no group 'web'"):
            numbers("7:web", root)
    finally:
        os.close(root)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(".", path)])
@pytest.mark.parametrize(("file", "text", "said"), [("passwd", "web", "no user 'web'"), ("group", "0:web", "no group")])
def test_a_list_that_is_no_file_is_none(
    tmp_path: Path, make: Callable[[Path], None], file: str, text: str, said: str
) -> None:
    """A pipe in its place is not waited for, a folder not read: the name is not listed."""
    (tmp_path / "etc").mkdir()
    make(tmp_path / "etc" / file)
    words = [sys.executable, "-c", ASK, str(tmp_path), text]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and said in done.stdout, done.stderr
