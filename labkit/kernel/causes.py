"""Floor 1: errors that teach: from a failed call and its errno to the condition that failed here, and what mends it.

Owns: the table of (calls, errno, finder, advice), and the one way to look it up.  The kernel's own words come first.
labkit.kernel.attempts makes calls whose failure is explained by it.
Rows of one call and errno are tried from top to bottom: the narrow ones stand first.

Read: errno(3), and the finders' modules, each of which names its manual pages.
"""

from __future__ import annotations

import errno as E
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from labkit import errors
from labkit.kernel import causes_caps as caps
from labkit.kernel import causes_cgroups as cgroups
from labkit.kernel import causes_mounts as mounts
from labkit.kernel import causes_namespaces as namespaces
from labkit.kernel import causes_overlay as overlay
from labkit.kernel import causes_pivot as pivot
from labkit.kernel import causes_usermap as usermap
from labkit.kernel.syscalls import Call

Finder = Callable[[tuple[Any, ...]], str | None]


class Row(NamedTuple):
    """One cause: of which calls, with which errno, how it is found, and what to do next."""

    calls: tuple[str, ...]
    errno: int
    finder: Finder
    advice: str

    @property
    def name(self) -> str:
        """The row's own name: "pivot.no_mount_point"."""
        return f"{self.finder.__module__.rpartition('causes_')[2]}.{self.finder.__name__}"


class Explanation(NamedTuple):
    """What was found out; all three are empty when nothing was."""

    row: str
    why: str
    next: str


PIVOT, MOUNT, UNMOUNT, OVERLAY = ("pivot_root",), ("mount",), ("umount2",), ("overlay",)
NEW, JOIN, FORK = ("unshare", "clone3"), ("setns",), ("fork", "clone3")
UID, GID, MAPS, GROUPS = ("uid_map",), ("gid_map",), ("uid_map", "gid_map"), ("setgroups",)
PROCS, THREADS, SWITCH, TYPE = ("cgroup.procs",), ("cgroup.threads",), ("cgroup.subtree_control",), ("cgroup.type",)
FILE, MAKE, REMOVE = ("cgroup",), ("mkdir",), ("rmdir",)  # "cgroup": every file of a cgroup, after its own rows

PRIVATE = 'make it private: mount --make-private PLACE, labkit.kernel.mounts.propagate(place, "private")'
BIND = "bind it to itself, which makes it a mount point: mount --bind PATH PATH"
BIND_IT = "bind it to itself (mount --rbind PATH PATH) and use that new mount, which is one's own"
ADMIN = "do it as root, or with a user namespace of one's own: unshare --user --map-root-user --mount"

TABLE = (
    # --- pivot_root(new_root, put_old)
    Row(PIVOT, E.EINVAL, pivot.other_namespace, "open the path anew, from inside this mount namespace"),
    Row(
        PIVOT, E.EINVAL, pivot.root_no_mount_point, "bind the folder to itself before chroot, or pivot without a chroot"
    ),
    Row(PIVOT, E.EINVAL, pivot.outside_root, "use a new root that lies below the present one"),
    Row(PIVOT, E.EINVAL, pivot.no_mount_point, BIND),
    Row(PIVOT, E.EINVAL, pivot.put_old_elsewhere, "use a folder in the new root, or '.' for both after chdir into it"),
    Row(PIVOT, E.EINVAL, pivot.put_old_shared, PRIVATE),
    Row(PIVOT, E.EINVAL, pivot.parent_shared, PRIVATE),
    Row(PIVOT, E.EINVAL, pivot.roots_parent_shared, "make that mount private, from a process that sees it"),
    Row(PIVOT, E.EINVAL, pivot.new_root_locked, BIND_IT),
    Row(PIVOT, E.EINVAL, pivot.root_without_parent, "mount a root on / and chroot into it, as switch_root(8) does"),
    Row(PIVOT, E.EBUSY, pivot.new_root_on_root, BIND),
    Row(PIVOT, E.EBUSY, pivot.put_old_on_root, "use a folder in the new root, or '.' for both after chdir into it"),
    Row(PIVOT, E.ENOENT, pivot.missing, "make that folder: mkdir -p PATH"),
    Row(PIVOT, E.ENOENT, pivot.unlinked, "use a folder that still has a name"),
    Row(PIVOT, E.ENOTDIR, pivot.no_folder, "use folders for both"),
    # --- mount(source, target, type, flags, data)
    Row((*MOUNT, *UNMOUNT, *PIVOT, *OVERLAY, "fsopen", "move_mount"), E.EPERM, caps.no_admin, ADMIN),
    Row((*MOUNT, *UNMOUNT, *PIVOT), E.EPERM, caps.mounts_of_another, "unshare the mount namespace too: CLONE_NEWNS"),
    Row(MOUNT, E.EPERM, mounts.locked_flags, "repeat these flags in the remount"),
    Row(
        MOUNT,
        E.EPERM,
        mounts.proc_of_another,
        "unshare a pid namespace too (CLONE_NEWPID), and mount in its first child",
    ),
    Row(
        MOUNT,
        E.EPERM,
        mounts.sysfs_of_another,
        "unshare a network namespace too (CLONE_NEWNET), or bind the present /sys",
    ),
    Row(
        MOUNT, E.EPERM, mounts.too_revealing, "bind the present one instead, or unmount these before the user namespace"
    ),
    Row(MOUNT, E.EPERM, mounts.not_for_user_namespaces, "mount it as the machine's root and bind it here"),
    Row(MOUNT, E.EINVAL, mounts.no_type, "name the type: mount -t tmpfs, or MS_BIND to show a folder a second time"),
    Row(MOUNT, E.EINVAL, mounts.source_unbindable, "make the source private first: mount --make-private PLACE"),
    Row(
        MOUNT, E.EINVAL, mounts.source_of_another_namespace, "use a path of this mount namespace, or open_tree(2) there"
    ),
    Row(MOUNT, E.EINVAL, mounts.locked_below, "take them along: MS_BIND with MS_REC (mount --rbind)"),
    Row(MOUNT, E.EINVAL, mounts.several_propagations, "change one thing a call"),
    Row(MOUNT, E.EINVAL, mounts.propagation_of_no_mount, BIND),
    Row(MOUNT, E.EINVAL, mounts.remount_of_no_mount, BIND),
    Row(MOUNT, E.EINVAL, mounts.move_of_no_mount, BIND),
    Row(MOUNT, E.EINVAL, mounts.move_locked, BIND_IT),
    Row(MOUNT, E.EINVAL, mounts.move_under_shared, PRIVATE),
    Row(MOUNT, E.EINVAL, mounts.move_unbindable_to_shared, "make either of them private"),
    Row(MOUNT, E.EBUSY, mounts.mounted_there_already, "unmount it first, or use it as it is"),
    Row(MOUNT, E.EBUSY, mounts.written_to, "close these files, or end these processes"),
    Row(MOUNT, E.ELOOP, mounts.move_into_itself, "move it to a place outside itself"),
    Row(MOUNT, E.ELOOP, mounts.link_to_itself, "name the folder itself"),
    Row(
        (*MOUNT, "fsopen"),
        E.ENODEV,
        mounts.unknown_kind,
        "use one of /proc/filesystems, or load its module: modprobe NAME",
    ),
    Row((*MOUNT, "move_mount"), E.ENOENT, mounts.no_target, "make it: mkdir -p PATH, or touch PATH to bind a file"),
    Row(MOUNT, E.ENOENT, mounts.no_source, "make it, or correct its name"),
    Row(
        MOUNT,
        E.ENOTDIR,
        mounts.file_and_folder,
        "bind a folder on a folder, a file on a file (touch makes an empty one)",
    ),
    Row(MOUNT, E.ENOTDIR, mounts.target_is_a_file, "use a folder: mkdir -p PATH"),
    Row(
        MOUNT, E.ENOTBLK, mounts.no_block_device, "give a block device; losetup --find --show FILE makes one of a file"
    ),
    # --- umount2(target, flags)
    Row(UNMOUNT, E.EINVAL, mounts.unmount_of_no_mount, "name the mount point itself: findmnt --target PATH shows it"),
    Row(UNMOUNT, E.EINVAL, mounts.unmount_locked, "unmount it in the mount namespace it came from"),
    Row(UNMOUNT, E.EBUSY, mounts.mounts_below, "unmount what is on it first, or all of it: umount --recursive, --lazy"),
    Row(UNMOUNT, E.EBUSY, mounts.in_use, "let them leave it, or take it out of sight with MNT_DETACH (umount --lazy)"),
    Row(UNMOUNT, E.ENOENT, mounts.no_unmount_target, "correct the path"),
    # --- overlay(target, lower folders, upper, work), and mount of type overlay
    Row(OVERLAY, E.ENOENT, overlay.folder_missing, "make it: mkdir -p PATH"),
    Row(OVERLAY, E.EINVAL, overlay.no_folder, "use a folder for each layer"),
    Row(OVERLAY, E.EINVAL, overlay.no_lower, "give lowerdir=FOLDER; an empty one will do"),
    Row(OVERLAY, E.EINVAL, overlay.no_work, "give workdir=FOLDER, empty and on the same mount as the upper one"),
    Row(OVERLAY, E.EINVAL, overlay.one_layer, "give an upper folder, or a second lower one; or bind the only layer"),
    Row(OVERLAY, E.EINVAL, overlay.too_many_layers, "join some of the layers into one"),
    Row(OVERLAY, E.EINVAL, overlay.other_file_system, "put the work folder beside the upper one"),
    Row(OVERLAY, E.EINVAL, overlay.other_mount, "name both through the same mount"),
    Row(OVERLAY, E.EINVAL, overlay.not_separate, "make them two folders side by side"),
    Row(OVERLAY, E.EINVAL, overlay.upper_read_only, "put upper and work where one may write, or leave both out"),
    Row(OVERLAY, E.EINVAL, overlay.too_deep, "stack the innermost layers directly, or copy them"),
    Row(OVERLAY, E.EINVAL, overlay.upper_on_overlay, "put upper and work on tmpfs, ext4, xfs or btrfs"),
    Row(OVERLAY, E.EINVAL, overlay.not_to_stack_on, "copy what is needed to a folder elsewhere, and stack that"),
    Row(OVERLAY, E.ELOOP, overlay.twice, "name each folder once"),
    Row(OVERLAY, E.ELOOP, overlay.overlapping, "use folders that do not lie in one another"),
    Row(OVERLAY, E.EBUSY, overlay.upper_in_use, "unmount that one first, or use upper and work folders of one's own"),
    Row(
        OVERLAY, E.ESTALE, overlay.other_origin, "use new, empty upper and work folders, or the lower folder of before"
    ),
    # --- unshare(flags), clone3(clone_args), fork
    Row(NEW, E.EPERM, namespaces.new_without_admin, "be root, or ask for CLONE_NEWUSER in the same call"),
    Row(NEW, E.EPERM, namespaces.chrooted, "unshare before chroot, or use pivot_root instead of it"),
    Row(NEW, E.EPERM, namespaces.not_mapped, "write /proc/PID/uid_map and gid_map of the present user namespace first"),
    Row(NEW, E.ENOSPC, namespaces.limit_reached, "raise it: echo NUMBER > /proc/sys/user/max_KIND_namespaces"),
    Row(NEW, E.ENOSPC, namespaces.nested_too_deep, "start it from a level further out"),
    Row(
        NEW,
        E.EINVAL,
        namespaces.unshared_with_threads,
        "do it in a fresh program with one thread: labkit.lessons.Child",
    ),
    Row(NEW, E.EINVAL, namespaces.unshared_pid_twice, "fork: the child may unshare its own"),
    Row(FORK, E.ENOMEM, namespaces.init_has_ended, "setns to /proc/self/ns/pid takes the children back into one's own"),
    Row(FORK, E.EAGAIN, namespaces.pids_max, "raise pids.max, or end some of them"),
    Row(FORK, E.EAGAIN, namespaces.too_many_processes, "raise the limit (ulimit -u NUMBER), or end some of them"),
    # --- setns(descriptor, flags)
    Row(JOIN, E.EBADF, namespaces.closed, "open /proc/PID/ns/KIND, or pidfd_open(PID), and keep it open"),
    Row(JOIN, E.EINVAL, namespaces.no_namespace, "open /proc/PID/ns/KIND, or pidfd_open(PID)"),
    Row(JOIN, E.EINVAL, namespaces.wrong_kind, "give the flag of that kind, or 0 for any"),
    Row(JOIN, E.EINVAL, namespaces.no_flags, "give the flags of the kinds to enter: CLONE_NEWNS | CLONE_NEWNET"),
    Row(JOIN, E.EINVAL, namespaces.own_user_namespace, "leave CLONE_NEWUSER out"),
    Row(JOIN, E.EINVAL, namespaces.pid_not_below, "enter it from a process that is in it, or above it"),
    Row(
        JOIN, E.EINVAL, namespaces.joined_with_threads, "do it in a fresh program with one thread: labkit.lessons.Child"
    ),
    Row(
        JOIN,
        E.EUSERS,
        namespaces.joined_time_with_threads,
        "do it in a fresh program with one thread: labkit.lessons.Child",
    ),
    Row(JOIN, E.EPERM, namespaces.join_without_admin, "be root there: enter the user namespace that owns it first"),
    Row(JOIN, E.ESRCH, namespaces.process_gone, "take a process that runs, or keep /proc/PID/ns/KIND open meanwhile"),
    # --- /proc/PID/uid_map, gid_map, setgroups (path, text)
    Row(
        (*MAPS, *GROUPS),
        E.EACCES,
        usermap.not_dumpable,
        "prctl(PR_SET_DUMPABLE, 1), or execve a program, after changing user",
    ),
    Row(MAPS, E.EPERM, usermap.written_already, "make a new user namespace for another map"),
    Row(
        MAPS,
        E.EPERM,
        usermap.not_from_the_parent,
        "write it from a process of its parent user namespace (nsenter --user)",
    ),
    Row(GID, E.EPERM, usermap.groups_not_denied, "write 'deny' to /proc/PID/setgroups before gid_map"),
    Row(
        MAPS,
        E.EPERM,
        usermap.several_lines,
        "map one's own number alone ('0 UID 1'), or use newuidmap with /etc/subuid",
    ),
    Row(
        MAPS, E.EPERM, usermap.not_ones_own, "map one's own number alone ('0 UID 1'), or use newuidmap with /etc/subuid"
    ),
    Row(MAPS, E.EPERM, usermap.not_in_parent, "map numbers that /proc/self/uid_map of the parent namespace has"),
    Row(MAPS, E.EINVAL, usermap.bad_form, "write lines of three numbers: inside, outside, count"),
    Row(MAPS, E.EINVAL, usermap.nothing_mapped, "count at least 1"),
    Row(MAPS, E.EINVAL, usermap.too_large, "end the range at 4294967294"),
    Row(MAPS, E.EINVAL, usermap.overlap, "give each number one line"),
    Row(MAPS, E.EINVAL, usermap.too_many_lines, "join neighbouring lines"),
    Row(MAPS, E.EINVAL, usermap.too_long, "join neighbouring lines, and leave out spaces"),
    Row(GROUPS, E.EPERM, usermap.deny_too_late, "deny setgroups before gid_map is written, in a new user namespace"),
    Row(GROUPS, E.EPERM, usermap.allow_after_deny, "make the user namespace from one in which setgroups is allowed"),
    Row(GROUPS, E.EINVAL, usermap.neither_word, "write deny or allow"),
    # --- the files of a cgroup (path, text)
    Row(
        SWITCH,
        E.EBUSY,
        cgroups.processes_inside,
        "move them into a cgroup below: mkdir GROUP/own, write each into its cgroup.procs",
    ),
    Row(SWITCH, E.EBUSY, cgroups.handed_on_below, "take it from the cgroups below first, the deepest one at the start"),
    Row(SWITCH, E.ENOENT, cgroups.controller_not_handed, "write +NAME into cgroup.subtree_control from the top down"),
    Row(SWITCH, E.EINVAL, cgroups.unknown_controller, "write +NAME or -NAME, with names from cgroup.controllers"),
    Row(PROCS, E.EBUSY, cgroups.target_hands_on, "put the process into a cgroup below it"),
    Row(
        (*PROCS, *SWITCH),
        E.EOPNOTSUPP,
        cgroups.domain_invalid,
        "write 'threaded' into its cgroup.type, or use one outside",
    ),
    Row(THREADS, E.EOPNOTSUPP, cgroups.thread_to_another_domain, "move the whole process: cgroup.procs"),
    Row((*PROCS, *THREADS), E.EINVAL, cgroups.no_number, "write one pid, in digits; 0 is the writer"),
    Row((*PROCS, *THREADS), E.ESRCH, cgroups.no_such_process, "use a pid of this pid namespace that is still there"),
    Row(FILE, E.EACCES, cgroups.not_ones_own, "let root give it: chown USER FILE"),
    Row(PROCS, E.EACCES, cgroups.ancestor_not_writable, "let root move the first process in; from there one may"),
    Row(TYPE, E.EINVAL, cgroups.only_threaded, "write 'threaded', or make a new cgroup, which is a domain"),
    Row(TYPE, E.EOPNOTSUPP, cgroups.threaded_with_domain_controllers, "take that controller back first: -NAME"),
    Row(FILE, E.EROFS, cgroups.read_only, "mount it writable: mount -o remount,bind,rw PLACE"),
    Row(FILE, E.ENOENT, cgroups.no_group, "make it: mkdir GROUP"),
    Row(FILE, E.ENOENT, cgroups.no_controller, "write +NAME into cgroup.subtree_control of the cgroup above"),
    Row(FILE, E.ENODEV, cgroups.removed, "make it again, and open the file anew"),
    Row(FILE, E.EINVAL, cgroups.not_a_value, "write a number, or max for none"),
    Row(FILE, E.ERANGE, cgroups.out_of_range, "write a number that its chapter in cgroup-v2.rst allows, or max"),
    Row(MAKE, E.EAGAIN, cgroups.too_deep, "raise that cgroup.max.depth, or make it higher up"),
    Row(MAKE, E.EAGAIN, cgroups.too_many, "raise that cgroup.max.descendants, or remove cgroups"),
    Row(REMOVE, E.EBUSY, cgroups.has_children, "remove those first, the deepest one at the start"),
    Row(
        REMOVE,
        E.EBUSY,
        cgroups.has_processes,
        "end them (echo 1 > cgroup.kill) or move them, then wait until they are gone",
    ),
)


def explain(error: OSError, name: str, arguments: tuple[Any, ...]) -> Explanation:
    """Which condition of the call `name` with these arguments failed on this machine; empty when none is known.

    A file is named by its last part ("uid_map", "cgroup.procs"), its arguments are (path, text).
    """
    names = [name]
    if name == "mount" and arguments[2] == "overlay" and mounts.is_new(arguments):
        names = ["overlay", name]
    elif Path(name).name == name and _of_a_cgroup(name, arguments):
        names = [name, "cgroup"]
    for one in names:
        for row in TABLE:
            if one in row.calls and row.errno == error.errno:
                try:
                    why = row.finder(arguments)
                except Exception:
                    continue  # what it would look at is out of sight here; the error itself must still be heard
                if why:
                    return Explanation(row.name, why, row.advice)
    return Explanation("", "", "")


def _of_a_cgroup(name: str, arguments: tuple[Any, ...]) -> bool:
    return len(arguments) == 2 and "." in name and isinstance(arguments[1], str)


def teach(error: OSError, what: str, name: str, arguments: tuple[Any, ...], said: str = "") -> NoReturn:
    """Raise the failure of a call as a LabError: what was done, the kernel's words (`said`), the cause, the advice."""
    found = explain(error, name, arguments)
    why = "; ".join(filter(None, (said and f"the kernel says: {said}", found.why)))
    errors.explain(error, what, why=why, next=found.next)


def note(error: OSError, name: str, arguments: tuple[Any, ...]) -> None:
    """Add the cause and the advice to an OSError that stays one, as a note (PEP 678)."""
    found = explain(error, name, arguments)
    if found.why and not any(one.startswith("  why:") for one in getattr(error, "__notes__", ())):
        error.add_note(f"  why:  {found.why}\n  next: {found.next}")


def note_from(error: OSError, calls: Sequence[Call]) -> None:
    """`note` for an error that somebody's own code raised, from the record of the calls that it made.

    It must be asked for where the call was made, before anything is cleaned up.
    """
    made = next((one for one in reversed(calls) if one.errno and one.errno == error.errno), None)
    if made is not None:
        note(error, made.name, made.arguments)
