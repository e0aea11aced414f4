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

from labkit.lab import reach, state
from labkit.lab.state import Machine

HOMES = ("root", "home/learner")
# What programs write for themselves, and nobody misses.
PROGRAMS = (".cache", ".config", ".ipython", ".jupyter", ".local", ".ssh", ".npm", ".lesshst", ".python_history",
            ".bash_history", ".wget-hsts", ".bash_logout", "__pycache__", ".ipynb_checkpoints")  # fmt: skip
FOLDER = "lab-keepsakes"


def keep(machine: Machine) -> Path | None:
    """Copy the homes' files that the image did not bring; the folder they are in, or None when there are none.

    Raises LabError or OSError only where the copy itself cannot be written: then the machine must stay.
    """
    draft = state.folder() / "keepsakes"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if not (state.alive(machine.pid, machine.started) and _from_machine(draft)):
        _from_disk(draft, Path(machine.image))
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
    target.parent.mkdir(exist_ok=True)
    shutil.copytree(draft, target, symlinks=True)
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


def _from_disk(draft: Path, image: Path) -> None:
    """Read the homes from the machine's disk: a wrecked machine's work is not lost."""
    overlay = state.folder() / "overlay.qcow2"
    if not overlay.exists() or not image.exists():
        return
    raw = state.folder() / "disk.raw"
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}

    def run(*words: str | Path) -> None:
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, env=environment)

    # -U: QEMU may still hold it.  The copy's journal is played first, as at any boot.
    run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", overlay, raw)
    run("e2fsck", "-fy", raw)
    for home in HOMES:
        (draft / home).parent.mkdir(parents=True, exist_ok=True)
        run("debugfs", "-R", f'rdump /{home} "{(draft / home).parent}"', raw)
    raw.unlink(missing_ok=True)
