"""An ordinary user's numbers and folders; what the containers of one do is tests/guest/test_rootless_run.py's."""

from __future__ import annotations

import itertools
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from labkit import cli
from labkit.errors import Refused
from labkit.kernel import namespaces
from labkit.runtime import rootless

NAME = pwd.getpwuid(os.geteuid()).pw_name


@given(some.lists(some.tuples(some.integers(1, 1 << 20), some.integers(1, 1 << 16)), min_size=1, max_size=5))
def test_the_mapping_has_no_holes(tmp_path_factory: pytest.TempPathFactory, ranges: list[tuple[int, int]]) -> None:
    """0 is the user, and every range goes on where the one before ends."""
    file = tmp_path_factory.getbasetemp() / "subuid"
    file.write_text("".join(f"{NAME}:{start}:{count}\n" for start, count in ranges))
    found = rootless.numbers(file, 1500)
    assert found[0] == {"containerID": 0, "hostID": 1500, "size": 1}
    assert [(one["hostID"], one["size"]) for one in found[1:]] == ranges
    for one, after in itertools.pairwise(found):
        assert after["containerID"] == one["containerID"] + one["size"]


def test_name_and_number_count_and_others_do_not(tmp_path: Path) -> None:
    """subuid(5) has both; a damaged line is nobody's."""
    (tmp_path / "subuid").write_text(f"someone:1:9\n{NAME}:100:10\nbroken\n{os.geteuid()}:200:20\n{NAME}:1\n\n")
    assert [one["hostID"] for one in rootless.numbers(tmp_path / "subuid", 7)] == [7, 100, 200]


@pytest.mark.parametrize("text", [None, "", "someone:1:65536\n"])
def test_no_numbers_is_said_with_the_remedy(tmp_path: Path, text: str | None) -> None:
    """The file is missing, is empty, or knows others."""
    if text is not None:
        (tmp_path / "subuid").write_text(text)
    with pytest.raises(Refused) as refused:
        rootless.numbers(tmp_path / "subuid", 7)
    assert "usermod --add-subuids" in refused.value.next and NAME in refused.value.why


def test_a_user_namespace_is_told_from_the_machines_own() -> None:
    """unshare makes one with a single number; this process is in the machine's."""
    code = "from labkit.kernel import namespaces; print(namespaces.nested())"
    tree = Path(__file__).resolve().parents[1]
    words = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tree)})
    assert (done.stdout, namespaces.nested()) == ("True\n", False), done.stderr


PATHS = "import os; os.geteuid = lambda: 1500\nfrom labkit import paths\nprint(paths.data(), paths.run())"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "/h/.local/share/labkit /run/user/1500/labkit"),
        ({"XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": "/r"}, "/d/labkit /r/labkit"),
        ({"LABKIT_DATA": "/one", "LABKIT_RUN": "/two", "XDG_RUNTIME_DIR": "/r"}, "/one /two"),
    ],
)
def test_a_users_folders_are_the_users_own(given: dict[str, str], expected: str) -> None:
    """As the XDG specification has them; what is set for the kit wins."""
    environment = {"HOME": "/h", "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run([sys.executable, "-c", PATHS], env=environment | given, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr


def test_verbs_of_containers_are_verbs() -> None:
    """A misspelt one would ask an ordinary user for root."""
    assert set(cli.VERBS) > cli.OF_CONTAINERS
