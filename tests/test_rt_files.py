"""The container's view of files: what the kernel then shows, beside runc's; and that no image leads it astray."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import struct
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rt_ground import child, config, inside, mountinfo, with_programs

from labkit.kernel import constants as C
from labkit.runtime.document import template
from labkit.runtime.files import beneath, devices, options

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]

TMPFS = {"destination": "/t", "type": "tmpfs", "source": "tmpfs"}


@pytest.fixture
def bundle() -> Iterator[Path]:
    """A bundle whose root file system is empty but for a folder and a file, where every user may go."""
    folder = Path(f"/tmp/rt-{uuid.uuid4().hex[:8]}")
    (folder / "rootfs/etc").mkdir(parents=True)
    (folder / "rootfs/etc/motd").write_text("hello")
    yield folder
    shutil.rmtree(folder)


def with_mount(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The template's document with further mounts."""
    found = config(**more)
    found["mounts"] = [*found["mounts"], *entries]
    return found


def test_the_mounts_are_runcs(bundle: Path) -> None:
    """Place, part shown, options, type and propagation of each mount of the template, as runc makes them."""
    document = config()
    document["process"]["args"] = ["/usr/bin/cat", "/proc/self/mountinfo"]
    # A hybrid machine gives runc version 1 here: the cgroup mount is compared in the lab's machine.
    document["mounts"] = [one for one in document["mounts"] if one["type"] != "cgroup"]
    document["linux"]["namespaces"] = [one for one in document["linux"]["namespaces"] if one["type"] != "cgroup"]
    document["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    with_programs(document, bundle)
    (bundle / "config.json").write_text(json.dumps(document))
    name = f"test-{uuid.uuid4().hex[:8]}"
    done = subprocess.run(["runc", "--root", str(bundle / "state"), "run", "--bundle", str(bundle), name],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    theirs = sorted(
        [words[4], words[3], words[5], tail[0], tail[2], " ".join(words[6:])]
        for words, tail in ([side.split() for side in line.split(" - ")] for line in done.stdout.splitlines())
    )
    ours = inside(document, bundle, mountinfo)
    assert isinstance(ours, list), ours
    assert [one[0] for one in ours] == [one[0] for one in theirs]
    # runc hides by a bind of its null device, which shows the same; the options are compared for all.
    assert [(one[0], one[1], one[2], one[3]) for one in ours] == [(one[0], one[1], one[2], one[3]) for one in theirs]


@pytest.mark.parametrize("word", ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"])
def test_a_word_shows_in_the_mounts_options(bundle: Path, word: str) -> None:
    """Each flag of a tmpfs, and of a bind mount, is the kernel's."""
    (bundle / "shown").mkdir()
    bound = {"destination": "/b", "type": "bind", "source": "shown", "options": ["bind", word]}
    found = inside(with_mount(TMPFS | {"options": [word]}, bound), bundle, mountinfo)
    shown = {one[0]: one[2].split(",") for one in found}
    assert word in shown["/t"] and word in shown["/b"]


def test_a_later_word_overrules() -> None:
    """ro and then rw is rw; noatime and then strictatime is strictatime."""
    found = options.parse(["ro", "rw", "noatime", "strictatime", "size=1m", "mode=700"])
    assert not found.flags & C.MS_RDONLY and not found.on & C.MOUNT_ATTR_RDONLY
    assert found.on & C.MOUNT_ATTR__ATIME == C.MOUNT_ATTR_STRICTATIME
    assert found.data == "size=1m,mode=700"


def test_recursive_words_reach_what_is_mounted_below(bundle: Path) -> None:
    """rro makes a bind mount and the one below it read-only; ro only the upper one."""
    found = {}
    for word in ("ro", "rro"):
        below = {"destination": "/t/below", "type": "tmpfs", "source": "tmpfs"}
        document = with_mount(TMPFS, below)

        def look(word: str = word) -> list[str]:
            from labkit.runtime.files import mounting

            os.makedirs("/again", exist_ok=True)
            root = os.open("/", C.O_PATH | os.O_DIRECTORY)
            entry = {"destination": "/again", "type": "bind", "source": "/t", "options": ["rbind", word]}
            mounting.place(entry, root, Path("/"), {})
            return [one[2].split(",")[0] for one in mountinfo() if one[0].startswith("/again")]

        found[word] = inside(document, bundle, look)
    assert found == {"ro": ["ro", "rw"], "rro": ["ro", "ro"]}


@pytest.mark.parametrize("leads", ["/../../../../../..{}", "{}", "../../../../../../../..{}"])
def test_a_symlink_of_the_image_stays_inside(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory, leads: str
) -> None:
    """A destination through a symlink that leads out is made and mounted inside the root (CVE-2021-30465)."""
    outside = tmp_path_factory.mktemp("outside")
    (bundle / "rootfs/link").symlink_to(leads.format(outside))
    place = inside(with_mount(TMPFS | {"destination": "/link/x"}), bundle, lambda: [
        one[0] for one in mountinfo() if one[3] == "tmpfs" and one[0].endswith("/x")
    ])  # fmt: skip
    assert place == [f"{outside}/x"]
    assert list(outside.iterdir()) == []


def test_a_proc_that_is_a_symlink_is_refused(bundle: Path) -> None:
    """/proc and /sys must be real folders (CVE-2019-19921)."""
    (bundle / "rootfs/elsewhere").mkdir()
    (bundle / "rootfs/proc").symlink_to("elsewhere")
    said = inside(config(), bundle)
    assert said.startswith("Refused cannot mount /proc") and "a symlink of the image stands in the way" in said


@pytest.mark.parametrize("where", ["/proc/self", "/proc/sys/kernel/core_pattern", "/etc/link"])
def test_nothing_lies_over_a_part_of_proc(bundle: Path, where: str) -> None:
    """A mount inside /proc is refused, also through a symlink (CVE-2019-16884)."""
    (bundle / "rootfs/etc/link").symlink_to("/proc/sys/kernel/core_pattern")
    (bundle / "shown").write_text("x")
    (bundle / "folder").mkdir()
    shown = "folder" if where == "/proc/self" else "shown"
    entry = {"destination": where, "type": "bind", "source": shown, "options": ["bind"]}
    said = inside(with_mount(entry), bundle)
    assert isinstance(said, str) and "lies inside /proc" in said


def test_a_number_that_fits_the_container_may_lie_there(bundle: Path) -> None:
    """/proc/uptime may be shown in another form, as LXCFS does."""
    (bundle / "shown").write_text("1 1\n")
    entry = {"destination": "/proc/uptime", "type": "bind", "source": "shown", "options": ["bind"]}
    assert inside(with_mount(entry), bundle, lambda: Path("/proc/uptime").read_text()) == "1 1\n"


def test_a_proc_that_is_none_is_refused(bundle: Path) -> None:
    """A tmpfs on /proc would be believed by everybody."""
    said = inside(config(mounts=[TMPFS | {"destination": "/proc"}]), bundle)
    assert "what lies on /proc must be a proc file system" in said


@pytest.mark.parametrize("null", ["symlink", "file", "another"])
def test_only_the_null_device_hides(bundle: Path, null: str) -> None:
    """CVE-2025-31133: a /dev/null that is something else is not laid over what should be hidden."""
    dev = bundle / "dev"
    dev.mkdir()
    {
        "symlink": lambda: (dev / "null").symlink_to("/proc/sysrq-trigger"),
        "file": lambda: (dev / "null").write_text("x"),
        "another": lambda: os.mknod(dev / "null", stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    }[null]()
    document = config(linux={"maskedPaths": ["/etc/motd"]})
    document["mounts"] = [one for one in document["mounts"] if not one["destination"].startswith("/dev")]
    document["mounts"].append({"destination": "/dev", "type": "bind", "source": "dev", "options": ["rbind"]})
    said = inside(document, bundle, lambda: Path("/etc/motd").read_text())
    assert isinstance(said, str)
    assert said.startswith(("Refused", "LabError")) and "/etc/motd" in said


def test_a_setting_is_written_to_the_kernel_alone(bundle: Path) -> None:
    """CVE-2025-52881: a file of the image in place of /proc/sys gets nothing; the network namespace gets it."""
    fake = bundle / "rootfs/proc/sys/net/ipv4/ip_forward"
    fake.parent.mkdir(parents=True)
    fake.write_text("untouched")
    document = config(linux={"sysctl": {"net.ipv4.ip_forward": "1"}, "maskedPaths": [], "readonlyPaths": []})
    document["mounts"] = []

    def look() -> str:
        from labkit.kernel import mounts

        proc = mounts.new("proc")
        with open(os.open("sys/net/ipv4/ip_forward", os.O_RDONLY, dir_fd=proc)) as file:
            return file.read()

    assert inside(document, bundle, look) == "1\n"
    assert fake.read_text() == "untouched"


def test_an_unknown_setting_is_an_error(bundle: Path) -> None:
    """What this kernel does not have is named."""
    said = inside(config(linux={"sysctl": {"net.ipv4.no_such": "1"}}), bundle)
    assert "cannot set linux.sysctl.net.ipv4.no_such" in said


def test_what_is_hidden_is_empty_and_what_is_frozen_cannot_be_written(bundle: Path) -> None:
    """A hidden file and folder read as empty; a frozen folder takes no file; a missing path is no loss."""
    (bundle / "rootfs/secret").mkdir()
    (bundle / "rootfs/secret/key").write_text("x")
    document = config(linux={"maskedPaths": ["/etc/motd", "/secret", "/not/there"], "readonlyPaths": ["/etc", "/nor"]})

    def look() -> list[Any]:
        try:
            Path("/etc/new").touch()
        except OSError as error:
            return [Path("/etc/motd").read_text(), os.listdir("/secret"), error.errno]
        return ["written"]

    assert inside(document, bundle, look) == ["", [], 30]


def test_the_root_is_read_only_when_asked(bundle: Path) -> None:
    """root.readonly: the root's own mount says ro, and what is mounted on it does not."""
    document = with_mount(TMPFS, root={"path": "rootfs", "readonly": True})
    shown = {one[0]: one[2].split(",")[0] for one in inside(document, bundle, mountinfo)}
    assert (shown["/"], shown["/t"]) == ("ro", "rw")


@pytest.mark.parametrize("no_pivot", [False, True])
def test_nothing_of_the_machine_is_left(bundle: Path, no_pivot: bool) -> None:
    """After the pivot, and after a move, / is the root file system and no mount of the machine's can be named."""
    found = inside(config(), bundle, lambda: [sorted(os.listdir("/")), [one[0] for one in mountinfo()]],
                   no_pivot=no_pivot)  # fmt: skip
    assert found[0] == ["dev", "etc", "proc", "sys"]
    assert "/" in found[1] and not [
        one for one in found[1] if not one.startswith(("/dev", "/proc", "/sys")) and one != "/"
    ]


def test_without_a_mount_namespace_the_root_is_changed_only(bundle: Path) -> None:
    """A container may share the machine's mounts, if it has none of its own: chroot(2)."""
    document = config(mounts=[], linux={"namespaces": [], "maskedPaths": [], "readonlyPaths": []})
    assert inside(document, bundle, lambda: os.listdir("/")) == ["etc"]


@pytest.mark.parametrize(("word", "mark"), [("shared", "shared:"), ("rshared", "shared:"), ("slave", ""),
                                             ("unbindable", "unbindable")])  # fmt: skip
def test_the_roots_propagation_is_as_asked(bundle: Path, word: str, mark: str) -> None:
    """rootfsPropagation shows in mountinfo."""
    found = inside(config(linux={"rootfsPropagation": word}), bundle, mountinfo)
    (root,) = [one for one in found if one[0] == "/"]
    assert (mark in root[5]) if mark else ("shared:" not in root[5])


def test_the_devices_are_the_specifications(bundle: Path) -> None:
    """Type, numbers, mode and owner of the default nodes and of one's own; and the links."""
    own = {"path": "/dev/sub/own", "type": "c", "major": 1, "minor": 8, "fileMode": 0o640, "uid": 7, "gid": 8}
    pipe = {"path": "/dev/pipe", "type": "p", "fileMode": 0o600}

    def look() -> dict[str, list[int]]:
        names = ["null", "zero", "full", "random", "urandom", "tty", "sub/own", "pipe"]
        return {
            name: [
                os.major(found.st_rdev),
                os.minor(found.st_rdev),
                stat.S_IMODE(found.st_mode),
                found.st_uid,
                found.st_gid,
            ]
            for name in names
            for found in [os.stat(f"/dev/{name}")]
        } | {"links": [os.readlink(f"/dev/{name}") for name in ("fd", "stdin", "ptmx")]}  # type: ignore[dict-item]

    found = inside(config(linux={"devices": [own, pipe]}), bundle, look)
    assert found == {
        "null": [1, 3, 0o666, 0, 0], "zero": [1, 5, 0o666, 0, 0], "full": [1, 7, 0o666, 0, 0],
        "random": [1, 8, 0o666, 0, 0], "urandom": [1, 9, 0o666, 0, 0], "tty": [5, 0, 0o666, 0, 0],
        "sub/own": [1, 8, 0o640, 7, 8], "pipe": [0, 0, 0o600, 0, 0],
        "links": ["/proc/self/fd", "/proc/self/fd/0", "pts/ptmx"],
    }  # fmt: skip


def test_a_node_of_the_images_own_is_not_taken_for_the_device(bundle: Path) -> None:
    """A file of the image at /dev/null, where no /dev is mounted, is refused."""
    (bundle / "rootfs/dev").mkdir()
    (bundle / "rootfs/dev/null").write_text("mine")
    document = config()
    document["mounts"] = [one for one in document["mounts"] if not one["destination"].startswith("/dev")]
    assert "/dev/null is there already, and is something else" in inside(document, bundle)


def test_the_console_goes_onto_a_file_alone(bundle: Path) -> None:
    """CVE-2025-52565: a symlink at /dev/console, and what is no terminal, are refused."""
    (bundle / "rootfs/dev").mkdir()
    (bundle / "rootfs/dev/console").symlink_to("/etc/motd")
    root = os.open(bundle / "rootfs", C.O_PATH)
    master, terminal = os.openpty()
    null = os.open("/dev/null", os.O_RDWR)
    try:
        assert "OSError: [Errno 40]" in child(lambda: devices.console(terminal, root), C.CLONE_NEWNS)
        assert child(lambda: devices.console(null, root), C.CLONE_NEWNS).startswith(
            "Refused the console is no terminal"
        )
    finally:
        for fd in (root, master, terminal, null):
            os.close(fd)


def test_a_terminal_becomes_the_console(bundle: Path) -> None:
    """/dev/console is that very terminal, one of the container's own devpts."""

    def look() -> bool:
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(master, C.TIOCSPTLCK, b"\0\0\0\0")
        number = struct.unpack("i", fcntl.ioctl(master, C.TIOCGPTN, b"\0\0\0\0"))[0]
        terminal = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY)
        devices.console(terminal, os.open("/", C.O_PATH))
        return os.stat("/dev/console").st_rdev == os.fstat(terminal).st_rdev

    assert inside(config(), bundle, look) is True


def test_what_the_folder_held_is_copied_up(bundle: Path) -> None:
    """tmpcopyup: the tmpfs begins with the files below, owners, modes and links too; they themselves stay."""
    folder = bundle / "rootfs/data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("x")
    (folder / "link").symlink_to("sub/file")
    os.chown(folder / "sub/file", 5, 6)
    (folder / "sub").chmod(0o700)

    def look() -> list[Any]:
        found = os.stat("/data/sub/file")
        Path("/data/new").touch()
        return [sorted(os.listdir("/data")), Path("/data/link").read_text(), found.st_uid, found.st_gid,
                stat.S_IMODE(os.stat("/data/sub").st_mode)]  # fmt: skip

    entry = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    assert inside(with_mount(entry), bundle, look) == [["link", "new", "sub"], "x", 5, 6, 0o700]
    assert sorted(os.listdir(folder)) == ["link", "sub"]


@pytest.mark.parametrize(
    ("options", "mode"), [([], 0o711), (["size=1m"], 0o711), (["mode=750"], 0o750), (["tmpcopyup"], 0o711)]
)
def test_a_tmpfs_has_the_mode_of_the_folder_below(bundle: Path, options: list[str], mode: int) -> None:
    """Or the one that it is given; anybody's, as the kernel would have it, only where no folder was."""
    (bundle / "rootfs/data").mkdir(mode=0o711)
    entries = [
        {"destination": where, "type": "tmpfs", "source": "tmpfs", "options": options} for where in ("/data", "/n")
    ]

    def look() -> list[int]:
        return [stat.S_IMODE(os.stat(where).st_mode) for where in ("/data", "/n")]

    found = inside(with_mount(*entries), bundle, look)
    assert found[0] == mode and (options or found[1] == 0o1777)


def test_numbers_are_mapped_in_one_mount_alone(bundle: Path) -> None:
    """idmap with mappings of the mount's own: a file of user 1000 is user 5 there, and 1000 on the machine."""
    shown = bundle / "shown"
    shown.mkdir()
    os.chown(shown, 1000, 1000)
    mapping = [{"containerID": 1000, "hostID": 5, "size": 1}]
    entry = {"destination": "/m", "type": "bind", "source": "shown", "options": ["bind", "idmap"],
             "uidMappings": mapping, "gidMappings": mapping}  # fmt: skip
    assert inside(with_mount(entry), bundle, lambda: [os.stat("/m").st_uid, os.stat("/m").st_gid]) == [5, 5]
    assert shown.stat().st_uid == 1000


def test_in_a_user_namespace_the_devices_are_the_machines_own(bundle: Path) -> None:
    """Nodes cannot be made there: they are bound, and open; and a source that its root may not reach is shown."""
    os.chown(bundle / "rootfs", 100000, 100000)
    for path in (bundle / "rootfs").rglob("*"):
        os.chown(path, 100000, 100000)
    closed = bundle / "closed"
    (closed / "shown").mkdir(parents=True)
    (closed / "shown/file").write_text("x")
    closed.chmod(0o700)
    entry = {"destination": "/s", "type": "bind", "source": "closed/shown", "options": ["rbind"]}
    document = with_mount(entry)
    document["linux"]["namespaces"] = [*document["linux"]["namespaces"], {"type": "user"}]
    document["linux"]["uidMappings"] = document["linux"]["gidMappings"] = [
        {"containerID": 0, "hostID": 100000, "size": 65536}
    ]
    found = inside(document, bundle, lambda: [Path("/s/file").read_text(), Path("/dev/null").read_text(),
                                              [one[0] for one in mountinfo() if one[0] == "/dev/null"]],
                   mapping="0 100000 65536\n")  # fmt: skip
    assert found == ["x", "", ["/dev/null"]]


def test_what_is_not_there_is_named(bundle: Path) -> None:
    """A missing source, a missing root and an unknown file system: each with its name."""
    entry = {"destination": "/s", "type": "bind", "source": "/no/such", "options": ["bind"]}
    assert "cannot show /no/such" in inside(with_mount(entry), bundle)
    assert "there is no root file system" in inside(config(root={"path": "nowhere"}), bundle)
    assert "cannot mount /t" in inside(with_mount(TMPFS | {"type": "nosuchfs"}), bundle)


def test_the_template_works_for_every_word_it_has() -> None:
    """Each option of the template is one that the table or the file system knows."""
    for _, _, words in template.MOUNTS.values():
        data = options.parse(words).data
        assert all(
            part.partition("=")[0] in ("mode", "size", "gid", "ptmxmode", "newinstance", "") for part in data.split(",")
        )


def test_a_descriptor_says_where_it_stands(bundle: Path) -> None:
    """`place` is the path below the root."""
    root = os.open(bundle / "rootfs", C.O_PATH)
    found = beneath.make(root, "/a/b/../c", folder=True)
    try:
        assert beneath.place(root, found) == "/a/c"
    finally:
        os.close(root)
        os.close(found)
