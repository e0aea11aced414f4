"""A process becomes the program that config.json describes: read back from the kernel by the program itself."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
from rt_become_ground import NONE, become, child, config, status

from labkit.errors import BadInput
from labkit.kernel import capabilities, schedule, syscalls
from labkit.kernel import constants as C
from labkit.runtime.become import drop, execute, settle
from labkit.runtime.become.ready import handed_over, ready

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes user and limits: needs root")]


def test_the_user_and_the_groups_are_exactly_those() -> None:
    """Real, effective, saved and file-system numbers, and the further groups."""
    found = status(user={"uid": 1234, "gid": 4321, "additionalGids": [7, 8], "umask": 0o027})
    assert found["Uid"].split() == ["1234"] * 4
    assert found["Gid"].split() == ["4321"] * 4
    assert found["Groups"].split() == ["7", "8"]
    assert found["Umask"] == "0027"


def test_no_group_of_the_callers_is_left() -> None:
    """Without additionalGids the program is in no further group, whatever the maker was in."""
    assert status(before=lambda: os.setgroups([3, 4]))["Groups"].split() == []


def test_the_five_sets_are_exactly_those() -> None:
    """Each set holds what its own list says, for root."""
    given = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_NET_RAW"],
        "ambient": ["CAP_NET_RAW"],
    }

    def work() -> dict[str, list[str]]:
        drop.drop(ready(config("true", capabilities=given)))
        return {name: capabilities.names(mask) for name, mask in capabilities.held().items()}

    found = child(work)
    names = {"CapBnd": "bounding", "CapPrm": "permitted", "CapEff": "effective", "CapInh": "inheritable",
             "CapAmb": "ambient"}  # fmt: skip
    assert {names[name]: sorted(found[name]) for name in names} == {kind: sorted(given[kind]) for kind in given}


def test_an_ordinary_user_has_the_ambient_ones_after_execve() -> None:
    """For another user than root, ambient is what a program keeps."""
    given = NONE | {kind: ["CAP_NET_RAW"] for kind in NONE}
    found = status(user={"uid": 1234, "gid": 1234}, capabilities=given)
    assert capabilities.names(int(found["CapEff"], 16)) == ["CAP_NET_RAW"]
    without = status(user={"uid": 1234, "gid": 1234}, capabilities=given | {"ambient": []})
    assert int(without["CapEff"], 16) == 0


def test_without_any_capability_root_has_none() -> None:
    """Five empty lists leave nothing, and nothing can be had again."""
    found = status(capabilities=NONE)
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}


def test_without_the_object_there_are_none() -> None:
    """No `capabilities` is not the maker's, but none, as runc has it."""
    found = status()
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}


def test_what_the_maker_lacks_is_left_out_and_told() -> None:
    """A capability that this process does not hold is no failure: the program goes without, and a warning names it."""

    def poor() -> None:
        few = ["CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID"]
        capabilities.set_exactly(few, few, [], [])

    asked = {kind: ["CAP_CHOWN", "CAP_SETUID"] for kind in NONE}

    def work() -> tuple[dict[str, int], list[str]]:
        poor()
        one = ready(config("true", capabilities=asked))
        drop.drop(one)
        return capabilities.held(), list(one.warnings)

    held, (said,) = child(work)
    # Its bounding set has it still: for root, execve would bring it back from there (capabilities(7)).
    names = {name: sorted(capabilities.names(mask)) for name, mask in held.items()}
    assert names.pop("CapBnd") == ["CAP_CHOWN", "CAP_SETUID"]
    assert names == {name: ["CAP_SETUID"] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert said.endswith("has none such: CAP_CHOWN")
    outside = {"namespaces": [{"type": "user"}]}
    assert child(lambda: (poor(), ready(config("true", capabilities=asked, linux=outside)).warnings)[1]) == []


def test_what_the_kernel_lacks_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capability of a later kernel's, in a user namespace as without one."""
    monkeypatch.setitem(capabilities.NUMBERS, "CAP_LATER", capabilities.last() + 1)
    for linux in ({}, {"namespaces": [{"type": "user"}]}):
        asked = {kind: ["CAP_LATER", "CAP_KILL"] for kind in NONE}
        one = ready(config("true", capabilities=asked, linux=linux))
        assert one.capabilities == {kind: ["CAP_KILL"] for kind in NONE}
        assert [text.rpartition(": ")[2] for text in one.warnings] == ["CAP_LATER"]


def test_new_privileges_are_forbidden_when_asked() -> None:
    """NoNewPrivs is 1 with the field, and 0 without."""
    assert status(noNewPrivileges=True)["NoNewPrivs"] == "1"
    assert status()["NoNewPrivs"] == "0"


def test_limits_are_set() -> None:
    """Soft and hard, and unlimited."""
    said = become(config("cat", "/proc/self/limits", rlimits=[
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
    ]))  # fmt: skip
    lines = {line[:25].strip(): line[25:].split()[:2] for line in said.splitlines()}
    assert lines["Max open files"] == ["100", "200"]
    assert lines["Max core file size"] == ["0", "unlimited"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("AS", 8 << 20), ("DATA", 1 << 20), ("NOFILE", 4), ("FSIZE", 0), ("NPROC", 1), ("STACK", 1 << 16), ("MEMLOCK", 0)],
)
def test_a_narrow_limit_stops_the_program_and_not_the_runtime(name: str, value: int) -> None:
    """Limits hold for the runtime too, from then on: what it still does must be little."""
    said = become(config("echo", "fine", rlimits=[{"type": f"RLIMIT_{name}", "soft": value, "hard": value}]))
    assert said == "fine\n"


def test_an_unknown_limit_is_named() -> None:
    """A limit that Linux does not have is refused before there is a child."""
    with pytest.raises(BadInput, match="RLIMIT_FUN"):
        ready(config("true", rlimits=[{"type": "RLIMIT_FUN", "soft": 1, "hard": 1}]))


def test_the_score_of_the_memory_killer_is_set() -> None:
    """oom_score_adj is the program's."""
    assert become(config("cat", "/proc/self/oom_score_adj", oomScoreAdj=321)) == "321\n"


def test_scheduling_and_disk_priority_reach_the_program() -> None:
    """Policy, nice value and I/O class, as the kernel has them before execve."""

    def work() -> list[int]:
        settle.settle(ready(config("true", scheduler={"policy": "SCHED_BATCH", "nice": 5},
                                   ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6})))  # fmt: skip
        found = schedule.policy()
        return [found.policy, found.nice, *schedule.io_priority()]

    assert child(work) == [C.SCHED_BATCH, 5, C.IOPRIO_CLASS_BE, 6]


def test_a_policy_that_linux_lacks_is_named() -> None:
    """SCHED_ISO stands in the specification, and in no kernel."""
    said = become(config("true", scheduler={"policy": "SCHED_ISO"}))
    assert said.startswith("BadInput") and "SCHED_ISO" in said


def test_processors_of_exec_are_kept() -> None:
    """The last word of execCPUAffinity is where the process runs."""

    def work() -> list[int]:
        one = ready(config("true", execCPUAffinity={"initial": "0-1", "final": "1"}))
        settle.pin(one, "initial")
        settle.pin(one, "final")
        return sorted(os.sched_getaffinity(0))

    assert child(work) == [1]
    assert "cannot run on 4000" in child(lambda: settle.pin(ready(config("true", execCPUAffinity={
        "initial": "4000"})), "initial"))  # fmt: skip


def test_a_32_bit_personality_shows_in_uname() -> None:
    """LINUX32 makes an x86-64 call itself i686."""
    said = become(config("uname", "-m", linux={"personality": {"domain": "LINUX32"}}))
    assert said.strip() in ("i686", "armv8l")


def test_the_environment_is_what_was_given() -> None:
    """The last of two wins, and HOME comes from the list of users, where it is missing or empty."""
    said = become(config("env", env=["PATH=/usr/bin", "A=1", "A=2", "L=\u00e4", "B="]))
    assert sorted(said.splitlines()) == ["A=2", "B=", "HOME=/root", "L=\u00e4", "PATH=/usr/bin"]
    assert "HOME=/root" in become(config("env", env=["PATH=/usr/bin", "HOME="]))


@pytest.mark.parametrize(
    ("content", "home"),
    [
        (b"root:x:0:0::/root:/bin/sh\nit:x:1234:5::/srv/it:/bin/sh\n", "/srv/it"),
        (b"it:x:1234:5::/caf\xe9:\n", "/caf\udce9"),
        (b"it:x:1234:5:::\n", "/"),
        (b"broken\n1234\n", "/"),
        (None, "/"),
    ],
)
def test_a_home_is_what_the_image_lists(tmp_path: Path, content: bytes | None, home: str) -> None:
    """By number; a list without the user, a broken one or none is /, and a FIFO in its place is not waited for."""
    file = tmp_path / "passwd"
    if content is not None:
        file.write_bytes(content)
    else:
        os.mkfifo(file)
    assert execute.home(ready(config("env", user={"uid": 1234, "gid": 5})), str(file)) == home


@pytest.mark.parametrize("item", ["B", "=x", "A=\ud800"])
def test_what_is_no_variable_is_refused(item: str) -> None:
    """No name, no =, and half of a surrogate pair, which JSON can write."""
    with pytest.raises(BadInput, match=r"process.env\[1\]"):
        ready(config("env", env=["PATH=/usr/bin", item]))


def test_no_signal_is_ignored_or_blocked() -> None:
    """What Python or the caller's shell ignores, the program does not."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    found = status(before=ignore)
    assert {found[name] for name in ("SigBlk", "SigIgn")} == {"0" * 16}


def test_no_descriptor_goes_through() -> None:
    """Only 0, 1 and 2 are open in the program, whatever the maker held, inheritable or not."""

    def leave_open() -> None:
        os.set_inheritable(os.open("/", os.O_RDONLY), True)

    said = become(config("ls", "/proc/self/fd"), leave_open)
    # 3 is the folder that ls itself reads.
    assert said.split() == ["0", "1", "2", "3"]


def test_preserved_descriptors_go_through() -> None:
    """The first ones from 3 on, as many as announced; one that is not open is refused by its number."""

    def leave_open() -> None:
        os.closerange(3, 50)
        inward, outward = os.pipe()
        assert (inward, outward) == (3, 4)
        os.dup2(3, 7, inheritable=True)

    said = become(config("ls", "/proc/self/fd"), leave_open, kept=2)
    assert said.split() == ["0", "1", "2", "3", "4", "5"]  # 5 is ls's own
    said = become(config("true"), leave_open, kept=3)
    assert said.startswith("Refused 1 descriptor 5 is to be handed to the program, and is not open")


def test_what_the_way_still_needs_is_spared() -> None:
    """A spared descriptor stays, and is closed by execve; all others are gone at once."""

    def work() -> list[bool]:
        line = os.open("/", os.O_RDONLY)
        os.set_inheritable(line, True)
        os.dup2(line, 40, inheritable=True)
        execute.close_all(spared=[line, 1])
        gone = not os.path.exists("/proc/self/fd/40")
        return [gone, os.get_inheritable(line), os.get_inheritable(1)]

    assert child(work) == [True, False, True]


def test_sockets_opened_beforehand_are_announced() -> None:
    """LISTEN_FDS of this very process goes on to process 1; another's does not; --preserve-fds counts behind."""
    given = {"LISTEN_FDS": "2", "LISTEN_PID": "10"}
    assert handed_over(given, 10, 3) == (5, {"LISTEN_FDS": "2", "LISTEN_PID": "1"})
    assert handed_over(given, 11, 3) == (3, {})
    with pytest.raises(BadInput, match="LISTEN_FDS=x"):
        handed_over({"LISTEN_FDS": "x", "LISTEN_PID": "1"}, 1)


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    """cwd is made when it is not there, as root's."""
    folder = tmp_path / "a/b"
    tmp_path.chmod(0o755)
    assert become(config("pwd", cwd=str(folder))).strip() == str(folder)


def test_a_script_is_started_by_its_interpreter(tmp_path: Path) -> None:
    """An honest #! line, through symlinks and another script, is no magic link."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("#!/bin/sh\necho from $1\n")
    second.write_text(f"#!{first}\n")
    for file in (first, second):
        file.chmod(0o755)
    assert become(config(str(second))) == f"from {second}\n"


@pytest.mark.parametrize(
    ("name", "content", "mode", "kind", "words"),
    [
        ("no-such-program", None, 0, "NotFound 127", "executable file not found in $PATH: none of its folders has it"),
        ("/no/such", None, 0, "NotFound 127", "stat /no/such: no such file or directory"),
        ("/etc", None, 0, "Refused 126", "it is a folder"),
        ("{}", "text", 0o644, "Refused 126", "not an executable file"),
        ("{}", "text", 0o755, "Refused 126", "neither a program for this processor nor a script"),
        ("{}", "#!/no/such\n", 0o755, "Refused 126", "the interpreter or the loader that it names is not"),
    ],
)
def test_what_cannot_be_started_has_its_status(
    tmp_path: Path, name: str, content: str | None, mode: int, kind: str, words: str
) -> None:
    """127 for what is not there, 126 for what cannot run, each with its reason."""
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    said = become(config(name.format(file)))
    assert said.startswith(kind) and words in said


def test_a_label_that_this_kernel_lacks_is_an_error() -> None:
    """AppArmor's and SELinux's labels are given or refused, never passed over."""
    for field in ("apparmorProfile", "selinuxLabel"):
        said = become(config("true", **{field: "no-such-label"}))
        assert said.startswith(f"Refused 1 process.{field}")


def test_a_number_that_means_nobody_is_refused() -> None:
    """setresuid(2) would take 4294967295 as: leave it, and the program would stay root."""
    assert become(config("id", user={"uid": 2**32 - 1, "gid": 0})).startswith("Refused 1 process.user")


def test_an_injected_failure_names_what_it_was(tmp_path: Path) -> None:
    """A capset that fails is an error, and no program starts."""
    mark = tmp_path / "started"

    def work() -> None:
        with syscalls.failing("capset", errno.EPERM):
            drop.drop(ready(config("touch", str(mark), capabilities=NONE)))

    assert child(work).startswith("Refused 1 process.capabilities")
    assert not mark.exists()
