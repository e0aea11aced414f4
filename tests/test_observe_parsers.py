"""The readers of a snapshot: text recorded on two kernels, and older and rarer forms; no root, no /proc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.observe import cgroups, difference_mounts, held, mountinfo, processes, snapshot

RECORDED = Path(__file__).parent / "recorded" / "observe"
BOX = "/labkit/b51320a75c4f8ad5ed4e49237dd2f67a71789b889a22cb9e508b37ac7a9514a9"  # recorded in the lab's machine


def text(kernel: str, name: str) -> str:
    return os.fsdecode((RECORDED / kernel / name).read_bytes())


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("linux-6.18", processes.Stat(10673, "sleep", "S", 10672, 4194560, 1, 311650)),
        ("debian-6.12", processes.Stat(5588, "nginx", "S", 5587, 4194624, 1, 131121)),
        ("forms-6.12", processes.Stat(968, "nginx", "S", 941, 4194560, 1, 48213)),
        ("linux-3.16", processes.Stat(1412, "a) (b", "D", 1, 4202496, 7, 9042)),
    ],
)
def test_stat(kernel: str, expected: processes.Stat) -> None:
    """A name may hold brackets and spaces; the fields after it keep their places, however many there are."""
    assert processes.parse_stat(text(kernel, "stat")) == expected


@pytest.mark.parametrize("wrong", ["", "12", "12 (sh) S 1", "sleep 12 S"])
def test_a_text_that_is_no_stat_is_refused(wrong: str) -> None:
    """Half a line, as of a file that was cut off, is an error and no process."""
    with pytest.raises(ValueError, match="no /proc/PID/stat"):
        processes.parse_stat(wrong)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("linux-6.18", processes.Status((10673, 1), 0, 0, 0x1FFFEDFDFFF, 0, True)),
        ("debian-6.12", processes.Status((5588, 3), 65534, 65534, 0, 0, False)),
        ("forms-6.12", processes.Status((968, 27, 1), 100101, 100102, 0xA80425FB, 2, False)),
        ("linux-3.16", processes.Status((), 1000, 1000, 0, 0, False)),
    ],
)
def test_status(kernel: str, expected: processes.Status) -> None:
    """The effective ids count; fields that an old kernel lacks have their neutral value."""
    assert processes.parse_status(text(kernel, "status")) == expected


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [("linux-6.18", "/"), ("debian-6.12", BOX), ("forms-6.12", "/labkit/4f1c2a"), ("linux-3.16", "")],
)
def test_cgroup_of_a_process(kernel: str, expected: str) -> None:
    """Of a hybrid machine the version 2 line counts; a machine without version 2 has none."""
    assert processes.parse_cgroup(text(kernel, "cgroup")) == expected


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("linux-6.18", ("sleep", "1000")),
        ("debian-6.12", ("nginx: worker process",)),
        ("forms-6.12", ("nginx: master process nginx -g daemon off;",)),
        ("linux-3.16", ("a) (b", "--name", "", "two words")),
    ],
)
def test_command(kernel: str, expected: tuple[str, ...]) -> None:
    """An empty word within is kept, the zeros after a title that was written over the words are not."""
    assert processes.parse_command((RECORDED / kernel / "cmdline").read_bytes()) == expected


def test_a_kernel_thread_has_no_command() -> None:
    """An empty file is no word, not one empty word."""
    assert processes.parse_command(b"") == ()


@pytest.mark.parametrize(
    ("kernel", "places", "propagation"),
    [
        ("linux-6.18", {"/dev": "shared", "/": "private"}, 20),
        (
            "debian-6.12",
            {"/": "private", "/site": "slave", "/sys/fs/cgroup": "private", "/proc/kcore": "slave"},
            29,
        ),
        ("forms-6.12", {"/usr/share/nginx/html": "slave", "/run/netns/blue": "shared", "/": "private"}, 7),
        (
            "linux-3.16",
            {
                "/": "shared",
                "/mnt2": "slave",
                "/sys": "shared and slave",
                "/mnt2/tab\tline\nback\\slash": "unbindable",
                "/media/gvfs": "private",
            },
            5,
        ),
    ],
)
def test_mounts_and_their_propagation(kernel: str, places: dict[str, str], propagation: int) -> None:
    """Every line is read, any number of optional fields too, and the words are those of mount_namespaces(7)."""
    table = mountinfo.parse(text(kernel, "mountinfo"))
    assert len(table) == propagation
    found = {mount.place: difference_mounts.propagation(mount) for mount in table}
    assert {place: found[place] for place in places} == places


def test_layers_of_the_recorded_overlay() -> None:
    """The layers come one by one on 6.12, the top one first, and are told the bottom one first."""
    layers = mountinfo.layers(mountinfo.parse(text("forms-6.12", "mountinfo"))[0])
    assert layers.lower == ("/var/lib/labkit/layers/a1", "/var/lib/labkit/layers/b2")
    recorded = mountinfo.layers(mountinfo.parse(text("debian-6.12", "mountinfo"))[0])
    assert [place[:28] for place in recorded.lower] == [
        "/var/lib/labkit/layers/8bc08",
        "/var/lib/labkit/layers/717f7",
        "/var/lib/labkit/layers/c3bb7",
    ]
    assert recorded.upper.endswith(f"{BOX.removeprefix('/labkit')}/upper")


def test_a_bind_mount_of_a_namespace_is_a_holder() -> None:
    """nsfs in a mount table names the namespace; the path is where the reader can open it."""
    table = mountinfo.parse(text("forms-6.12", "mountinfo"))
    assert held.bind_mounts(table, "/proc/968/root") == {("net", 4026532281): ["/proc/968/root/run/netns/blue"]}


@pytest.mark.parametrize("link", ["socket:[4026532281]", "pipe:[3]", "/dev/null", "anon_inode:[eventfd]", "net"])
def test_other_links_are_no_namespaces(link: str) -> None:
    """A descriptor of a socket or a pipe looks nearly the same."""
    assert held.key(link) is None


def test_parents_come_before_children() -> None:
    """After pivot_root the table lists the new root after what is mounted on it; the snapshot does not."""
    lines = text("forms-6.12", "mountinfo").splitlines()
    table = snapshot.ordered(mountinfo.parse("\n".join([*lines[1:], lines[0]])))
    assert [mount.number for mount in table] == [412, 413, 417, 414, 415, 416, 418]
    assert snapshot.ordered(mountinfo.parse("\n".join(lines))) == tuple(mountinfo.parse("\n".join(lines)))


def test_a_cgroup_from_its_files() -> None:
    """Limits stay text, counters become numbers under file, file:key and file:key.word; pid 0 is nobody's."""
    names = [*cgroups.WANTED]
    texts = {name: text("forms-6.12", name) for name in names if (RECORDED / "forms-6.12" / name).exists()}
    found = cgroups.parse("/labkit/4f1c2a", texts)
    assert found.controllers == ("cpu", "memory", "pids")
    assert found.members == (968, 971)
    assert found.limits == {"cpu.max": "50000 100000", "memory.max": "33554432", "pids.max": "max"}
    assert found.counters["memory.current"] == 20971520
    assert found.counters["memory.events:oom_kill"] == 1
    assert found.counters["cpu.stat:throttled_usec"] == 88123
    assert found.counters["io.stat:254:0.wbytes"] == 8192


def test_a_cgroup_as_the_labs_machine_showed_it() -> None:
    """A container of nginx with --memory 64m and --cpus 0.5: three processes, half a processor, nobody killed."""
    there = {path.name: text("debian-6.12", path.name) for path in (RECORDED / "debian-6.12").iterdir()}
    found = cgroups.parse(BOX, {name: there[name] for name in cgroups.WANTED if name in there})
    assert found.members == (5581, 5587, 5588)
    assert found.controllers == ("cpu", "io", "memory", "pids")
    assert found.limits == {"cpu.max": "50000 100000", "memory.max": "67108864", "pids.max": "max"}
    assert found.counters["cpu.stat:nr_throttled"] == 32 and found.counters["memory.events:oom_kill"] == 0
    assert found.counters["io.stat:254:0.wbytes"] == 4096 and found.counters["memory.current"] == 4993024


def test_devices_without_numbers_in_io_stat_count_nothing() -> None:
    """A device that was never read, and one that is gone, have a line of one word (seen with Linux 6.12)."""
    text = "11:0 \n(unknown) \n254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n"
    found = cgroups.parse_counter("io.stat", text)
    assert found["io.stat:254:0.rbytes"] == 4096
    assert {name.partition(".r")[0] for name in found if ".r" in name} == {"io.stat:254:0"}


def test_counters_of_a_root_without_controllers() -> None:
    """The hybrid host's version 2 root counts the processor and nothing else."""
    found = cgroups.parse("/", {"cpu.stat": text("linux-6.18", "cpu.stat")})
    assert set(found.counters) >= {"cpu.stat:usage_usec", "cpu.stat:user_usec", "cpu.stat:system_usec"}
    assert found.limits == {} and found.members == ()


def test_descendants_end_where_a_parent_is_unknown() -> None:
    """The tree goes down all the way, takes no cousins, and a root that has gone has no tree."""
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1, 21: 20, 0: 0}
    assert processes.descendants(10, parents) == {10, 11, 12}
    assert processes.descendants(99, parents) == set()
