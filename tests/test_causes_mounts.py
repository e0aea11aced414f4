"""Each cause of a failed mount(2) or umount2(2): provoked, named, mended, and then the call succeeds."""

from __future__ import annotations

import os

import pytest
from causes_ground import Case, prove

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")]

TWO = 'm = mnt(here / "m"); t = here / "t"; t.mkdir()'
MOVE = 'tried("mount", m, t, None, MOVE, None)'

CASES = {
    "caps.no_admin": Case(
        "ordinary()", 'tried("mount", "x", "/mnt", "tmpfs", 0, None)', 'call("unshare", NEWUSER | NEWNS)', "user 12345"
    ),
    "caps.mounts_of_another": Case(
        "user_ns()", 'tried("mount", "x", "/mnt", "tmpfs", 0, None)', 'call("unshare", NEWNS)', "owned by another"
    ),
    "mounts.locked_flags": Case(
        'm = mnt(here / "m", flags=C.MS_NOSUID | C.MS_NODEV); user_ns(NEWNS); bits = C.MS_RDONLY',
        'tried("mount", None, m, None, BIND | REMOUNT | bits, None)',
        "bits |= C.MS_NOSUID | C.MS_NODEV",
        "came with nosuid,nodev",
    ),
    "mounts.proc_of_another": Case(
        '(here / "p").mkdir(); user_ns(NEWNS)',
        'forked(lambda: tried("mount", "proc", here / "p", "proc", 0, None))',
        'call("unshare", NEWPID)',
        "pid namespace",
    ),
    "mounts.sysfs_of_another": Case(
        '(here / "s").mkdir(); user_ns(NEWNS)',
        'tried("mount", "sysfs", here / "s", "sysfs", 0, None)',
        'call("unshare", NEWNET)',
        "network namespace",
    ),
    "mounts.too_revealing": Case(
        """
        (here / "p").mkdir()
        call("mount", "hiding", "/proc/irq", "tmpfs", 0, None)
        def fresh():
            user_ns(NEWNS | NEWPID)
            return forked(lambda: tried("mount", "proc", here / "p", "proc", 0, None))
        """,
        "forked(fresh)",
        'call("umount2", "/proc/irq", 0)',
        "/proc/irq",
    ),
    "mounts.not_for_user_namespaces": Case(
        """
        (here / "d").mkdir()
        inside = lambda: user_ns(NEWNS)
        """,
        'forked(lambda: (inside(), tried("mount", "x", here / "d", "debugfs", 0, None))[1])',
        "inside = lambda: None",
        "debugfs",
    ),
    "mounts.no_type": Case("kind = None", 'tried("mount", "x", here, kind, 0, None)', 'kind = "tmpfs"', "neither"),
    "mounts.source_unbindable": Case(
        f"{TWO}; flag(m, UNBINDABLE)", 'tried("mount", m, t, None, BIND, None)', "flag(m, PRIVATE)", "/mnt/m is on"
    ),
    "mounts.source_of_another_namespace": Case(
        f"""
        {TWO}
        source = f"/proc/self/fd/{{os.open(m, os.O_RDONLY)}}"
        sleeper()
        call("unshare", NEWNS)
        """,
        'tried("mount", source, t, None, BIND, None)',
        "source = str(m)",
        "in another mount namespace",
    ),
    "mounts.locked_below": Case(
        f'{TWO}; mnt(m / "below"); user_ns(NEWNS); bits = BIND',
        'tried("mount", m, t, None, bits, None)',
        "bits |= REC",
        "/mnt/m/below",
    ),
    "mounts.several_propagations": Case(
        "bits = SHARED | PRIVATE", 'tried("mount", None, here, None, bits, None)', "bits = SHARED", "exactly one"
    ),
    "mounts.propagation_of_no_mount": Case(
        'd = here / "d"; d.mkdir()', 'tried("mount", None, d, None, SHARED, None)', "bind(d)", "/mnt/d has no"
    ),
    "mounts.remount_of_no_mount": Case(
        'd = here / "d"; d.mkdir()',
        'tried("mount", None, d, None, REMOUNT | BIND | C.MS_RDONLY, None)',
        "bind(d)",
        "/mnt/d has no flags",
    ),
    "mounts.move_of_no_mount": Case(
        'm = here / "m"; m.mkdir(); t = here / "t"; t.mkdir()', MOVE, "bind(m)", "/mnt/m cannot be moved"
    ),
    "mounts.move_locked": Case(f"{TWO}; user_ns(NEWNS)", MOVE, "bind(m)", "/mnt/m was inherited"),
    "mounts.move_under_shared": Case(
        f'{TWO}; t = mnt(here / "o") / "t"; t.mkdir(); flag(here, SHARED)', MOVE, "flag(here, PRIVATE)", "on /mnt,"
    ),
    "mounts.move_unbindable_to_shared": Case(
        f'{TWO}; t = mnt(here / "o") / "t"; t.mkdir(); flag(here / "o", SHARED); flag(m, UNBINDABLE)',
        MOVE,
        "flag(m, PRIVATE)",
        "/mnt/m is unbindable",
    ),
    "mounts.mounted_there_already": Case(
        'p = mnt(here / "p", "sysfs")',
        'tried("mount", "sysfs", p, "sysfs", 0, None)',
        'call("umount2", p, 0)',
        "/mnt/p already",
    ),
    "mounts.written_to": Case(
        'm = mnt(here / "m"); file = open(m / "file", "w")',
        'tried("mount", None, m, None, REMOUNT | C.MS_RDONLY, None)',
        "file.close()",
        "/mnt/m/file open",
    ),
    "mounts.move_into_itself": Case(
        f'{TWO}; (m / "in").mkdir(); t = m / "in"', MOVE, 't = here / "t"', "/mnt/m/in lies in /mnt/m itself"
    ),
    "mounts.link_to_itself": Case(
        'os.symlink("l", here / "l")',
        'tried("mount", "x", here / "l", "tmpfs", 0, None)',
        'os.unlink("l"); os.mkdir("l")',
        "/mnt/l leads back",
    ),
    "mounts.unknown_kind": Case(
        'kind = "nosuchfs"', 'tried("mount", "x", here, kind, 0, None)', 'kind = "tmpfs"', "no file system nosuchfs"
    ),
    "mounts.no_target": Case(
        "", 'tried("mount", "x", here / "t", "tmpfs", 0, None)', '(here / "t").mkdir()', "point /mnt/t does"
    ),
    "mounts.no_source": Case(
        "", 'tried("mount", here / "s", here, None, BIND, None)', '(here / "s").mkdir()', "source /mnt/s does"
    ),
    "mounts.file_and_folder": Case(
        't = here / "t"; t.mkdir()',
        'tried("mount", "/etc/passwd", t, None, BIND, None)',
        "t.rmdir(); t.touch()",
        "one of source and target",
    ),
    "mounts.target_is_a_file": Case(
        't = here / "t"; t.touch()',
        'tried("mount", "x", t, "tmpfs", 0, None)',
        "t.unlink(); t.mkdir()",
        "/mnt/t is none",
    ),
    "mounts.no_block_device": Case(
        """
        from labkit.kernel import mountinfo
        root = next(one for one in mountinfo.table().values() if one.source.startswith("/dev/"))
        device = "/etc/passwd"
        """,
        'tried("mount", device, here, root.kind, 0, None)',
        "device = root.source",
        "/etc/passwd is none",
    ),
    "mounts.unmount_of_no_mount": Case(
        'd = here / "d"; d.mkdir()', 'tried("umount2", d, 0)', "bind(d)", "/mnt/d is not a mount point"
    ),
    "mounts.unmount_locked": Case(
        'm = mnt(here / "m"); inside = lambda: user_ns(NEWNS)',
        'forked(lambda: (inside(), tried("umount2", m, 0))[1])',
        "inside = lambda: None",
        "locked in its place",
    ),
    "mounts.mounts_below": Case(
        'm = mnt(here / "m"); b = mnt(m / "b")', 'tried("umount2", m, 0)', 'call("umount2", b, 0)', "/mnt/m/b"
    ),
    "mounts.in_use": Case(
        'm = mnt(here / "m"); user = sleeper(lambda: os.chdir(m))', 'tried("umount2", m, 0)', "end(user)", "works in it"
    ),
    "mounts.no_unmount_target": Case("", 'tried("umount2", here / "m", 0)', 'mnt(here / "m")', "/mnt/m does not exist"),
}


@pytest.mark.parametrize("row", CASES)
def test_a_condition_of_a_mount_is_named_and_mended(row: str) -> None:
    """The row is the one that is found; after its advice the same call succeeds."""
    prove(row, CASES[row])


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ('sleeper(lambda: os.chdir(m))', "works in it"),
        ('sleeper(lambda: os.chroot(m))', "has its root in it"),
        ('sleeper(lambda: os.open(m / "file", os.O_RDONLY))', "has /mnt/m/file open"),
    ],
)  # fmt: skip
def test_who_uses_a_mount_is_named(use: str, words: str) -> None:
    """By working folder, by root, by open file: its pid is in the message."""
    setup = f'm = mnt(here / "m"); (m / "file").touch(); user = {use}'
    attempt = '(lambda said: said if said == "done" else [*said[:2], said[2] + f" PID {user}", said[3]])'
    case = Case(setup, f'{attempt}(tried("umount2", m, 0))', "end(user)", words)
    why = prove("mounts.in_use", case)[0][2]
    pid = why.rpartition(" PID ")[2]
    assert f"process {pid} (python" in why, why
