"""How labkit-runtime begins: all code of a verb from one file, believed only while it is true."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.runtime import entry, program
from labkit.runtime.life import words

TREE = Path(__file__).resolve().parents[1]
# Of the library, what costs a container's start milliseconds and gives it nothing.
HEAVY = {"ctypes", "resource", "types", "typing", "enum", "re", "pathlib", "json", "argparse", "socket", "signal",
         "contextlib", "functools", "collections", "shutil", "dataclasses", "subprocess", "inspect",
         "logging"}  # fmt: skip


class Copy:
    """The kit in a folder of its own, and its program."""

    def __init__(self, folder: Path) -> None:
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(TREE / "labkit", folder / "labkit", ignore=skip)
        self.folder = folder
        self.program = folder / "labkit-runtime"
        program.write(str(self.program), str(folder))

    def asked(self) -> str:
        """What `list` says where there are no containers: the names of its columns."""
        words = [self.program, "--root", self.folder / "state", "list"]
        return subprocess.run(words, env={}, stdout=subprocess.PIPE, text=True, check=True).stdout

    @property
    def bundle(self) -> Path:
        """The one file."""
        (found,) = (self.folder / "labkit/runtime/__pycache__").glob("*.list.bundle")
        return found


SAID = "BUNDLE"


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """A copy that was started once."""
    made = Copy(tmp_path)
    assert SAID in made.asked()
    return made


def test_the_second_start_takes_the_bundle(copy: Copy) -> None:
    """With the sources' times and sizes as they were, their text is not looked at."""
    file = copy.folder / "labkit/runtime/life/store.py"
    about, text = file.stat(), file.read_text()
    file.write_text("#" * len(text.encode()))
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert SAID in copy.asked()


def test_a_changed_source_is_seen(copy: Copy) -> None:
    """A start after an edit runs what was written."""
    file = copy.folder / "labkit/runtime/life/store.py"
    file.write_text(file.read_text() + "\nprint('edited')\n")
    assert "edited" in copy.asked() and SAID in copy.asked()


@pytest.mark.parametrize(("mode", "believed"), [(0o644, True), (0o664, False), (0o646, False)])
def test_a_bundle_that_others_may_write_is_not_believed(copy: Copy, mode: int, believed: bool) -> None:
    """Code in it could be anybody's."""
    entries = marshal.loads(copy.bundle.read_bytes())
    code = compile("print('planted')", "planted", "exec")
    entries.append(("labkit.planted", False, *entries[0][2:5], code))
    copy.bundle.write_bytes(marshal.dumps(entries))
    copy.bundle.chmod(mode)
    assert ("planted" in copy.asked()) is believed


@pytest.mark.parametrize("text", [b"", b"nonsense", marshal.dumps([1]), marshal.dumps([("a",)])])
def test_a_damaged_bundle_is_not_believed(copy: Copy, text: bytes) -> None:
    """A disk that was full, or another Python's."""
    copy.bundle.write_bytes(text)
    assert SAID in copy.asked()


def test_the_program_names_an_interpreter_that_can_run_it(copy: Copy) -> None:
    """Outright: no shim and no link, with ctypes' and json's C halves, and new enough."""
    path = copy.program.read_text().partition("\n")[0].removeprefix("#!").split()[0]
    assert path == program.interpreter() == os.path.realpath(path)
    with open(path, "rb") as file:
        assert file.read(4) == b"\x7fELF"
    subprocess.run([path, "-IS", "-c", program.FIT], check=True)


def test_without_a_fitting_interpreter_of_the_machines_it_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No /usr/bin/python3, one that fails, or one that is too old."""
    for one in ("/no/python3", "/bin/false"):
        monkeypatch.setattr(program, "DISTRIBUTIONS", one)
        assert program.interpreter() == os.path.realpath(sys.executable)


def test_a_start_imports_nothing_heavy() -> None:
    """Of Python's library only what a container cannot be made without."""
    modules = ["entry", "life.command", "life.verbs", "life.maker", "become.execute", "become.ready", "files.seal",
               "files.root", "files.devices", "groups.cgroupfs", "groups.shared"]  # fmt: skip
    imports = ", ".join(f"labkit.runtime.{name}" for name in modules)
    code = f"import sys; sys.path.append({str(TREE)!r}); import {imports}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_the_verbs_are_the_command_lines() -> None:
    """The copies of the two tables that are needed before anything is imported say what the tables say."""
    assert {one.name for one in words.VERBS} == entry.VERBS
    assert {name for flag in words.GLOBAL if flag.kind != "switch" for name in flag.names} == entry.VALUED


@pytest.mark.parametrize(
    ("line", "verb"),
    [
        ("create one", "create"),
        ("--log /l --log-format json create --bundle /b one", "create"),
        ("--root foo --debug state one", "state"),
        ("--root run state one", "state"),
        ("--root=run state one", "state"),
        ("--root --log list", "list"),
        ("exec one run", "exec"),
        ("--help", "none"),
        ("", "none"),
    ],
)
def test_a_bundle_is_named_by_the_verb(line: str, verb: str) -> None:
    """And never by a flag's value: an engine writes flags first, and its verbs would share one bundle."""
    assert entry.verb(line.split()) == verb


def test_engines_verbs_have_bundles_of_their_own(copy: Copy) -> None:
    """With the flags that containerd and dockerd write before the verb."""
    given = ["--root", str(copy.folder / "state"), "--log-format", "json"]
    subprocess.run([copy.program, *given, "features"], env={}, stdout=subprocess.DEVNULL, check=True)
    names = {path.name.split(".")[-2] for path in copy.bundle.parent.glob("*.bundle")}
    assert names == {"list", "features"}
