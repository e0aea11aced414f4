"""Device rules as a BPF program: what they come to, what the program answers, and what the kernel does with it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import BadInput, LabError
from labkit.kernel import bpf, cgroups, mounts
from labkit.kernel import constants as C
from labkit.kernel.cgroups import devices

NOTHING = {"allow": False, "access": "rwm"}
NULL = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}


def answer(program: list[bpf.Instruction], kind: str, major: int, minor: int, access: str) -> bool:
    """What the program says: a tiny machine that reads the packed bytes, as the kernel does."""
    code = [one.pack() for one in program]
    memory = {0: devices.bits(access) << 16 | devices.KINDS[kind], 4: major, 8: minor}
    registers, place = [0] * 11, 0
    while True:
        operation, pair, number = code[place][0], code[place][1], int.from_bytes(code[place][4:], "little", signed=True)
        offset = int.from_bytes(code[place][2:4], "little", signed=True)
        to, source = pair & 15, pair >> 4
        place += 1
        if operation == 0x61:
            registers[to] = memory[offset]
        elif operation == 0xB7:
            registers[to] = number
        elif operation == 0xBF:
            registers[to] = registers[source]
        elif operation == 0x54:
            registers[to] &= number
        elif operation == 0x74:
            registers[to] >>= number
        elif operation == 0x55:
            place += offset if registers[to] != number else 0
        elif operation == 0x15:
            place += offset if registers[to] == number else 0
        else:
            assert operation == 0x95
            return bool(registers[0])


access = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda found: "".join(sorted(found)))
numbers = st.sampled_from([None, 0, 1, 3, 255, 1048575])
rule = st.fixed_dictionaries(
    {"allow": st.booleans(), "type": st.sampled_from("abc"), "major": numbers, "minor": numbers, "access": access}
)


def model(listed: list[dict[str, Any]], kind: str, major: int, minor: int, wanted: str) -> bool:
    """The specification's sentence, read aloud: of the rules that match, the last one answers; for each letter."""

    def answers(letter: str) -> bool:
        matching = [
            rule["allow"]
            for rule in listed
            if letter in rule["access"]
            and rule.get("type", "a") in ("a", kind)
            and rule.get("major") in (None, major)
            and rule.get("minor") in (None, minor)
        ]
        return matching[-1] if matching else True

    return all(map(answers, wanted))


@given(st.lists(rule, max_size=6), st.sampled_from("bc"), st.sampled_from([0, 1, 3]), st.sampled_from([0, 3]), access)
def test_the_last_rule_that_matches_decides_each_access(
    listed: list[dict[str, Any]], kind: str, major: int, minor: int, wanted: str
) -> None:
    """The program answers as the simple model does, whatever overlaps whatever."""
    assert answer(devices.program(devices.rules(listed)), kind, major, minor, wanted) == model(
        listed, kind, major, minor, wanted
    )


def test_a_device_can_be_denied_inside_an_allowed_range() -> None:
    """Of the devices c 10:* all but 10:229 are open, and the other way round when everything but c is allowed."""
    ten, fuse = {"type": "c", "major": 10, "access": "rwm"}, {"type": "c", "major": 10, "minor": 229, "access": "rwm"}
    found = devices.program(devices.rules([NOTHING, {**ten, "allow": True}, {**fuse, "allow": False}]))
    assert answer(found, "c", 10, 200, "rw") and not answer(found, "c", 10, 229, "r")
    found = devices.program(devices.rules([{"allow": False, "type": "c", "access": "rwm"}, NULL]))
    assert answer(found, "c", 1, 3, "rw") and not answer(found, "c", 1, 5, "r") and answer(found, "b", 8, 0, "rw")


def test_a_rule_for_one_access_to_all_devices_says_nothing_on_the_others() -> None:
    """Deny all, allow reading everywhere: writing stays denied."""
    found = devices.program(devices.rules([NOTHING, {"allow": True, "type": "a", "access": "r"}]))
    assert answer(found, "b", 8, 0, "r") and not answer(found, "b", 8, 0, "rw")


def test_what_changes_no_answer_takes_no_instruction() -> None:
    """The same rule twice, and one that says what holds anyway, are left out."""
    found = devices.rules([NOTHING, NULL, {**NULL, "major": 10, "allow": False}, NULL])
    assert str(found) == "allow c 1:3 rwm\ndeny everything else"


def test_later_rules_overrule_earlier_ones() -> None:
    """Deny all, allow /dev/null, take writing back."""
    found = devices.rules([NOTHING, NULL, {**NULL, "allow": False, "access": "w"}])
    assert str(found) == "allow c 1:3 rm\ndeny everything else"
    assert devices.rules([NULL, NOTHING]) == (False, ())


@pytest.mark.parametrize("bad", [{"type": "x"}, {"access": "rx"}, {"access": ""}])
def test_a_rule_that_is_none_is_bad_input(bad: dict[str, str]) -> None:
    """A type or an access that does not exist."""
    with pytest.raises(BadInput):
        devices.rules([{**NULL, **bad}])


def test_a_listing_is_read_by_people() -> None:
    """One line an instruction."""
    text = bpf.listing(devices.program(devices.rules([NOTHING, NULL])))
    assert "if r4 != 1 skip 3" in text and text.endswith("r0 = 0\n 12: exit"), text


root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="loads BPF programs: needs root"),
    pytest.mark.skipif(mounts.find("cgroup2") is None, reason="this machine has no cgroup2 tree at all"),
]


def marked(test: object) -> object:
    for mark in root:
        test = mark(test)
    return test


@pytest.fixture
def group() -> Iterator[Path]:
    """A new cgroup, removed afterwards."""
    made = cgroups.root() / f"test-{uuid.uuid4().hex[:12]}"
    cgroups.create(made)
    yield made
    cgroups.remove(made)


@marked
def test_the_kernel_asks_the_program(group: Path, tmp_path: Path) -> None:
    """Below the fence /dev/null opens and another node of /dev/zero's number does not; outside both do."""
    devices.fence(group, devices.rules([NOTHING, NULL, {"allow": True, "type": "c", "access": "m"}]))
    assert len(bpf.attached(group, C.BPF_CGROUP_DEVICE)) == 1
    script = f"mknod {tmp_path}/zero c 1 5 && echo made; echo x >/dev/null && echo null; head -c1 {tmp_path}/zero"
    inside = cgroups.start(group, "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, wrong = inside.communicate(timeout=60)
    assert said == "made\nnull\n" and "Operation not permitted" in wrong, (said, wrong)
    assert stat.S_ISCHR(os.stat(tmp_path / "zero").st_mode)
    with open(tmp_path / "zero", "rb") as file:
        assert file.read(1) == b"\0"


@marked
def test_the_kernel_meets_a_denial_inside_an_allowed_range(group: Path) -> None:
    """Of the devices c 1:*, /dev/zero is taken out again: the others still open."""
    memory, zero = {"type": "c", "major": 1, "access": "rw"}, {"type": "c", "major": 1, "minor": 5, "access": "w"}
    devices.fence(group, devices.rules([NOTHING, {**memory, "allow": True}, {**zero, "allow": False}]))
    script = "echo x >/dev/null && echo null; head -c1 /dev/zero | wc -c; echo x >/dev/zero"
    inside = cgroups.start(group, "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, wrong = inside.communicate(timeout=60)
    assert said == "null\n1\n" and "/dev/zero: Operation not permitted" in wrong, (said, wrong)


@marked
def test_a_program_that_is_refused_says_why(group: Path) -> None:
    """The verifier's own words: r0 was never set."""
    with pytest.raises(LabError, match="cannot load the BPF program") as caught:
        bpf.load(C.BPF_PROG_TYPE_CGROUP_DEVICE, [bpf.leave()], "nothing")
    assert "R0 !read_ok" in caught.value.why
    assert "root" not in caught.value.next  # the caller is root already


@marked
def test_a_cgroup_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A LabError with the cgroup's name, as for every other reason."""
    with pytest.raises(LabError, match=r"cannot attach a BPF program to .*none"):
        devices.fence(tmp_path / "none", devices.rules([]))


@marked
def test_an_ordinary_user_is_told_what_is_missing() -> None:
    """CAP_BPF."""
    code = (
        "import os, sys; os.setuid(65534)\nfrom labkit.kernel.cgroups import devices\n"
        "try: devices.fence('/sys/fs/cgroup', devices.rules([]))\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", "import labkit.kernel.cgroups.devices\n" + code], capture_output=True,
                          text=True)  # fmt: skip
    assert "CAP_BPF" in done.stdout, done
