"""What one piece of work changed: exactly that, on a machine where others work too."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_ground import until

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call
from labkit.lessons import Child
from labkit.lessons.xray import Xray
from labkit.observe import difference

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]

# Makes and loses namespaces, mounts, devices and processes as fast as it can, all of its own.
NOISE = """
while :; do
    unshare -m -u -n -p -f sh -c 'mount -t tmpfs noise /mnt; ip link add noise0 type veth; sleep 0.05'
done
"""


@pytest.fixture
def busy() -> Iterator[None]:
    """A machine on which somebody else, no descendant of ours, does the same kind of work."""
    words = ["unshare", "-m", "-p", "-f", "--kill-child", "sh", "-c", NOISE]
    started = subprocess.run(
        ["sh", "-c", f"setsid {shlex.join(words)} >/dev/null 2>&1 & echo $!"],
        capture_output=True,
        text=True,
        check=True,
    )
    time.sleep(0.2)
    yield
    pid = int(started.stdout)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0])


def leave() -> None:
    call("unshare", C.CLONE_NEWNS | C.CLONE_NEWUTS | C.CLONE_NEWPID)


def mount(place: str) -> None:
    call("mount", "tmpfs", place, "tmpfs", 0, None)


def kinds(seen: Any) -> list[tuple[str, str]]:
    """(sign, kind) of each change, in order."""
    return [(one.sign, one.kind) for one in seen.changes]


def test_exactly_what_the_work_made_is_told(busy: None, tmp_path: Path) -> None:
    """Unshare, mount a tmpfs, start sleep: one mount, three namespaces, one process, the child's move; no more."""
    with Xray() as ray:
        one = Child("work")
        one.do(leave)
        one.do(mount, str(tmp_path))
        one.spawn("sleep", "1000")
    with one:
        assert kinds(ray.seen) == [
            ("+", "mount"),
            ("+", "mount namespace"),
            ("+", "uts namespace"),
            ("+", "pid namespace"),
            ("+", "process"),
            ("~", "process"),
        ]
        said = {change.kind: change for change in ray.seen.changes if change.sign == "+"}
        assert said["mount"].name == str(tmp_path)
        assert said["process"].name.startswith("sleep (pid ") and said["process"].detail.startswith("pid 1 inside, ")
        assert str(os.stat(f"/proc/{one.pid}/ns/uts").st_ino) in said["uts namespace"].name
        assert "work (pid " in ray.seen.changes[-1].name
    assert difference.words(ray.seen.changes).startswith("1 mount, ")


def test_the_calls_are_those_of_the_work_and_no_others(tmp_path: Path) -> None:
    """In order, with their answers, a failed one too; the fence, the guardian and the snapshots are not among them."""
    with Xray() as ray, Child("work") as one:
        one.do(leave)
        with pytest.raises(OSError, match="mount"):
            one.do(mount, str(tmp_path / "nowhere"))
        one.do(mount, str(tmp_path))
    assert [str(made).partition("(")[0] + str(made).rpartition(" = ")[2] for made in ray.seen.calls] == [
        "unshare0",
        "mount-1 ENOENT",
        "mount0",
    ]


def test_what_ended_with_the_work_is_no_change(tmp_path: Path) -> None:
    """A child that came and went leaves nothing behind, and that is what is said."""
    with Xray() as ray, Child("work") as one:
        one.do(leave)
        one.do(mount, str(tmp_path))
    assert ray.seen.changes == []
    assert difference.words(ray.seen.changes) == "nothing changed"


def test_a_program_of_the_work_is_named_and_its_calls_are_not_claimed(busy: None, tmp_path: Path) -> None:
    """Its mount in the shared table is seen since its command line names the place; the record says what it lacks."""
    place = tmp_path / "here"
    place.mkdir()
    with Xray() as ray:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    subprocess.run(["umount", str(place)], check=True)
    assert [(one.sign, one.kind, one.name) for one in ray.seen.changes] == [("+", "mount", str(place))]
    assert ray.seen.calls == []
    assert f"mount -t tmpfs tmpfs {place}" in ray.seen.unseen


def test_a_mount_of_somebody_else_in_the_shared_table_is_not_the_works(tmp_path: Path) -> None:
    """Made meanwhile by a process that the work did not start."""
    place = tmp_path / "theirs"
    place.mkdir()
    script = f'read go; mount -t tmpfs x "{place}"; echo done; read stop; umount "{place}"'
    other = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin and other.stdout
    # It is below this process, as everything in a test is: what it holds alone would count, the shared table does not.
    with Xray() as ray:
        other.stdin.write("go\n")
        other.stdin.flush()
        assert other.stdout.readline() == "done\n"
    other.communicate("stop\n")
    assert [one for one in ray.seen.changes if one.kind == "mount"] == []


NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "labkit.lessons")
shell.run_cell('''%%xray
from labkit.lessons import Child
one = Child("cell")
one.do(lambda: print("from the cell"))
one.spawn("sleep", "1000")
''')
shell.run_cell("one.close()")
shell.run_cell('''%%xray
raise ValueError("from the cell")
''')
"""


def test_the_magic_runs_the_cell_in_the_notebooks_names_and_shows_the_picture() -> None:
    """What the cell prints comes first; a cell that raises is shown too, and raises."""
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, timeout=60)
    first, _, rest = done.stdout.partition("what changed in the kernel:")
    assert first.splitlines()[0] == "from the cell"
    assert "+ sleep (pid " in rest and "(sleep)" in rest
    assert "nothing that a snapshot shows" in rest
    assert re.sub("\x1b[^m]*m", "", done.stdout).rstrip().endswith("ValueError: from the cell")


def labkit(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "labkit", *words], capture_output=True, text=True, timeout=60)


def test_the_command_shows_a_tree_and_ends_with_a_programs_status(tmp_path: Path) -> None:
    """labkit xray PID lists the namespaces that lsns lists; labkit xray -- COMMAND ends as the command does."""
    with Child("box") as one:
        one.do(leave)
        inside = one.spawn("sleep", "1000")
        done = labkit("xray", str(inside))
        listed = subprocess.run(["lsns", "-n", "-o", "NS", "-p", str(inside)], capture_output=True, text=True)
        assert done.returncode == 0 and listed.stdout.split()
        assert [
            inode for inode in listed.stdout.split() if inode not in labkit("xray", str(inside), "--json").stdout
        ] == []
        assert "sleep" in done.stdout
    done = labkit("xray", "--", "sh", "-c", "exit 7")
    assert done.returncode == 7 and "nothing that a snapshot shows" in done.stdout
    assert labkit("xray", "99999999").returncode == 125


def test_watching_prints_what_comes_and_ends_when_the_process_does() -> None:
    """A program that the watched process starts is told; the end of the process ends the watch."""
    with Child("watched") as one:
        script = [sys.executable, "-m", "labkit", "xray", str(one.pid), "--watch", "--interval", "0.05"]
        with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as watch:
            assert watch.stdout is not None
            assert watch.stdout.readline().startswith("watching 1 process")
            one.spawn("sleep", "1000")
            assert "+ process sleep" in watch.stdout.readline()
            one.close()
            assert "there is no process" in watch.stdout.read()
            assert watch.wait(20) == 0


def test_an_extension_is_loaded_by_its_package() -> None:
    """%load_ext labkit.lessons registers the magics."""
    from labkit import lessons

    class Shell:
        def __init__(self) -> None:
            self.names: list[str] = []

        def register_magic_function(self, function: Any, magic_kind: str, magic_name: str) -> None:
            self.names.append(f"{magic_kind} {magic_name}")

    shell = Shell()
    lessons.load_ipython_extension(shell)
    assert "cell xray" in shell.names
