"""Top floor: what a learner wrote outside the shared tree, taken out of a machine before it goes.

Owns: the copy of /root and /home/learner into lab-keepsakes/ of the checkout, at `make
down`, at `make lab FRESH=1`, and when a machine is found dead.  A machine that still
answers is asked; from one that was wrecked, its disk is read without it.

Read: debugfs(8) on rdump, e2fsck(8), qemu-img(1).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from labkit.errors import LabError
from labkit.lab import preflight, reach, state
from labkit.lab.state import Machine

HOMES = ("root", "home/learner")
# What programs write for themselves, and nobody misses.
PROGRAMS = (".cache", ".config", ".ipython", ".jupyter", ".local", ".ssh", ".npm", ".lesshst", ".python_history",
            ".bash_history", ".wget-hsts", ".bash_logout", "__pycache__", ".ipynb_checkpoints")  # fmt: skip
FOLDER = "lab-keepsakes"
PACKAGES = {"qemu-img": "qemu-utils", "e2fsck": "e2fsprogs", "debugfs": "e2fsprogs"}
MENDED = 3  # of e2fsck: 1 and 2 are errors that it found and mended
# What debugfs says where nothing is lost: an ordinary user gives no file away; a home may have been removed.
OF_ANOTHER = "Operation not permitted while changing ownership"
ABSENT = "File not found by ext2_lookup"


def keep(machine: Machine) -> Path | None:
    """Copy the homes' files that the image did not bring; the folder they are in, or None when there are none.

    Raises LabError where they cannot be read or written: then the machine must stay.
    """
    if not _overlay().exists():
        return None
    draft = state.folder() / "keepsakes"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if not (state.alive(machine.pid, machine.started) and _from_machine(draft)):
        _from_disk(draft)
    baked = (Path(machine.image) / "root.img").stat().st_mtime
    kept = 0
    for path in sorted(draft.rglob("*"), reverse=True):  # a folder comes after what is in it
        relative = path.relative_to(draft)
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        elif (
            not (path.is_symlink() or path.is_file())  # a socket, a device: nothing that was written
            or set(relative.parts) & set(PROGRAMS)
            or path.lstat().st_mtime <= baked
        ):
            path.unlink()
        else:
            kept += 1
    if not kept:
        shutil.rmtree(draft, ignore_errors=True)
        return None
    target = state.TREE / FOLDER / time.strftime("%Y-%m-%d-%H%M%S")
    try:
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(draft, target, symlinks=True)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)  # half of it would look like all
        raise _unread(str(error)[:300], f"look at the room in {state.TREE}") from error
    shutil.rmtree(draft)
    return target


def _from_machine(draft: Path) -> bool:
    """Ask a machine that answers; False when it does not."""
    if not _responds():
        return False
    excluded = [f"--exclude={name}" for name in PROGRAMS]
    # tar on this side too: it keeps a symlink's target from being written through, and Python's own
    # filter for that is younger (3.11.4) than the Python of Debian 12.
    words = ["tar", "-C", str(draft), "--no-same-owner", "--no-same-permissions", "-xf", "-"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as receiver:
        status = reach.execute(["tar", "-C", "/", *excluded, "-cf", "-", *HOMES], folder="/",
                               stdin=subprocess.DEVNULL, stdout=receiver.stdin)  # fmt: skip
    # 1: a file changed while it was read, and has been read all the same.
    return status in (0, 1) and receiver.returncode == 0


def _responds() -> bool:
    try:
        way = reach.find()
        return subprocess.run([*reach.ssh(way, "-n", "-T", "-o", "ConnectTimeout=15"), "sync"],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=30).returncode == 0  # fmt: skip
    except (subprocess.TimeoutExpired, OSError):
        return False


def _overlay() -> Path:
    """What was written in the machine: its throw-away disk."""
    return state.folder() / "overlay.qcow2"


def _from_disk(draft: Path) -> None:
    """Read the homes from the machine's disk: a wrecked machine's work is not lost.

    Raises LabError where they cannot be read. A home that the learner removed is none.
    """
    shutil.rmtree(draft)  # rdump makes its folders, and refuses those that a broken copy has left
    raw = state.folder() / "disk.raw"
    try:
        # -U: QEMU may still hold it.  The copy's journal is played first, as at any boot.
        _run(0, "qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", _overlay(), raw)
        _run(MENDED, "e2fsck", "-fy", raw)
        for home in HOMES:
            into = (draft / home).parent
            into.mkdir(parents=True, exist_ok=True)
            # debugfs ends with 0 whatever happens: what it says and what it wrote count.
            said = _run(None, "debugfs", "-R", f'rdump /{home} "{into}"', raw)
            wrong = [line for line in said.splitlines() if not line.startswith("debugfs 1") and OF_ANOTHER not in line]
            if any(ABSENT in line for line in wrong):
                continue
            if wrong or not (draft / home).is_dir():
                raise _unread(f"debugfs on /{home}: {wrong[0] if wrong else 'nothing was written'}")
    finally:
        raw.unlink(missing_ok=True)


def _run(most: int | None, *words: str | Path) -> str:
    """Run a program, and return its complaints; LabError when it is not there or ends with more than `most`."""
    path = f"{os.environ.get('PATH', '')}:{preflight.ADMIN}"
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              env={**os.environ, "PATH": path, "LC_ALL": "C"})  # fmt: skip
    except FileNotFoundError:
        raise _unread(f"there is no {words[0]} here", f"sudo apt-get install {PACKAGES[str(words[0])]}") from None
    if most is not None and not 0 <= done.returncode <= most:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise _unread(f"{words[0]} ended with {done.returncode}: {said[-1] if said else 'it said nothing'}")
    return done.stderr


def _unread(why: str, first: str = "") -> LabError:
    first = first or f"look at the room in {state.folder()}"
    return LabError(
        "cannot copy what was written in the machine's homes, so the machine stays",
        why=why,
        next=f"{first}, then once more; or lose it: labkit lab down --discard",
    )
