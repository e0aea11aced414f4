"""Each cause of a failed pivot_root: provoked, named, mended, and then the call succeeds."""

from __future__ import annotations

import os

import pytest
from causes_ground import Case, prove

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")]

NEW = 'new = mnt(here / "new"); old = new / "old"; old.mkdir()'
PIVOT = 'tried("pivot_root", new, old)'

CASES = {
    "pivot.no_mount_point": Case(
        'new = here / "new"; old = new / "old"; old.mkdir(parents=True)', PIVOT, "bind(new)", "/mnt/new is not a mount"
    ),
    "pivot.put_old_elsewhere": Case(f'{NEW}; old = mnt(here / "other")', PIVOT, 'old = new / "old"', "/mnt/other"),
    "pivot.put_old_shared": Case(f"{NEW}; flag(new, SHARED)", PIVOT, "flag(new, PRIVATE)", "the mount on /mnt/new"),
    "pivot.parent_shared": Case(f"{NEW}; flag(here, SHARED)", PIVOT, "flag(here, PRIVATE)", "the mount /mnt, on which"),
    "pivot.roots_parent_shared": Case(
        """
        sleeper()
        jail = mnt(here / "jail")
        outside = os.open(here, C.O_PATH)
        flag(here, SHARED)
        mnt(jail / "proc", "proc")
        (mnt(jail / "new") / "old").mkdir()
        os.chroot(jail)
        """,
        'tried("pivot_root", "/new", "/new/old")',
        'flag(f"/proc/self/fd/{outside}", PRIVATE)',
        "/mnt seen from outside",
    ),
    "pivot.outside_root": Case(
        """
        sleeper()
        jail = mnt(here / "jail")
        mnt(jail / "proc", "proc")
        mnt(jail / "new")
        os.chdir(mnt(here / "new"))
        os.chroot(jail)
        """,
        'tried("pivot_root", ".", ".")',
        'os.chdir("/new")',
        "outside the root",
    ),
    "pivot.root_no_mount_point": Case(
        """
        jail = here / "jail"
        jail.mkdir()
        mnt(jail / "proc", "proc")
        (mnt(jail / "new") / "old").mkdir()
        outside = os.open("/", os.O_RDONLY)
        os.chroot(jail)
        """,
        'tried("pivot_root", "/new", "/new/old")',
        'os.fchdir(outside); os.chroot("."); bind(jail); os.chroot(jail)',
        "by chroot",
    ),
    "pivot.new_root_locked": Case(f"{NEW}; user_ns(NEWNS)", PIVOT, "bind(new)", "/mnt/new was inherited"),
    "pivot.other_namespace": Case(
        """
        new = mnt(here / "new")
        kept = os.open(new, os.O_RDONLY)
        other = sleeper()
        call("unshare", NEWNS)
        os.fchdir(kept)
        """,
        'tried("pivot_root", ".", ".")',
        'os.chdir(here / "new")',
        "another mount namespace, that of process ",
    ),
    # Without the mount on /, a process that enters the namespace afresh stands on rootfs.
    "pivot.root_without_parent": Case(
        """
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        call("umount2", "/", C.MNT_DETACH)
        libc.setns(namespace, NEWNS)
        first = os.open("/", os.O_RDONLY)
        place = os.listdir("/")[0]
        made = not os.path.isdir("/proc")
        if made:
            os.mkdir("/proc")
        call("mount", "proc", "/proc", "proc", 0, None)
        call("mount", "x", "/" + place, "tmpfs", 0, None)
        new = "/" + place
        """,
        'tried("pivot_root", new, new)',
        """
        if made:
            call("umount2", "/proc", C.MNT_DETACH)
            os.rmdir("/proc")
        call("mount", "x", "/", "tmpfs", 0, None)
        libc.setns(namespace, NEWNS)
        os.mkdir("/new")
        new = "/new"
        call("mount", "x", new, "tmpfs", 0, None)
        """,
        "mounted on nothing",
    ),
    "pivot.new_root_on_root": Case("", 'tried("pivot_root", "/usr", "/usr")', 'bind("/usr")', "/usr is on the very"),
    "pivot.put_old_on_root": Case(f'{NEW}; old = "/usr"', PIVOT, 'old = new / "old"', "put_old, /usr"),
    "pivot.missing": Case('new = here / "new"; old = new / "old"', PIVOT, NEW, "the new root /mnt/new does not exist"),
    "pivot.unlinked": Case(
        'gone = here / "gone"; gone.mkdir(); os.chdir(gone); gone.rmdir()',
        'tried("pivot_root", ".", ".")',
        'os.chdir(mnt(here / "new"))',
        "/mnt/gone has been removed",
    ),
    "pivot.no_folder": Case(
        f'{NEW}; new = here / "file"; new.touch()', PIVOT, 'new = here / "new"', "/mnt/file is not"
    ),
}


@pytest.mark.parametrize("row", CASES)
def test_a_condition_of_pivot_root_is_named_and_mended(row: str) -> None:
    """The row is the one that is found; after its advice the same call succeeds."""
    prove(row, CASES[row])
