"""The numbers of all system calls and the two calls that x86 makes many through: as the headers and libseccomp say."""

from __future__ import annotations

import re

import pytest

from labkit.kernel import callnumbers, constants
from labkit.kernel.seccomp import machines
from tests import seccomp_ground as ground
from tests import test_arm64_headers as headers

# Of the table: (machine of the headers, what the compiler predefines for it).  Debian has no header of arm beside.
HEADERS = {"x86_64": ("x86_64", "unistd_64.h"), "x32": ("x86_64", "unistd_x32.h"), "x86": ("x86_64", "unistd_32.h"),
           "aarch64": ("aarch64", "unistd.h")}  # fmt: skip
# Written in a header as a number, and no call: the count of calls.
NO_CALLS = {"syscalls", "arch_specific_syscall"}
# One number, two names: libseccomp 2.5.4 has only arm_sync_file_range, the headers have both.
TWO_NAMES = {("arm", "sync_file_range2")}
OF_THE_LIBRARY = {machine.table: name for name, machine in machines.MACHINES.items()}


def listed(table: str) -> dict[str, int]:
    """name -> number of an architecture's header."""
    machine, header = HEADERS[table]
    text = headers.preprocess(machine, f"#include <asm/unistd.h>\n#include <asm/{header}>\n", "-dM")
    if table in ("x32", "x86"):  # asm/unistd.h chooses by the compiler; these are asked by themselves
        text = headers.preprocess(machine, f"#define __X32_SYSCALL_BIT 0x40000000\n#include <asm/{header}>\n", "-dM")
    names = re.findall(r"#define __NR_(\w+) ", text)
    asked = "".join(f'@@"{name}"@@ __NR_{name}\n' for name in names)
    bit = "#define __X32_SYSCALL_BIT 0x40000000\n" if table == "x32" else ""
    include = f"#include <asm/{header}>\n" if table != "aarch64" else "#include <asm/unistd.h>\n"
    lines = headers.preprocess(machine, bit + include + asked, "-P").splitlines()
    found = dict(re.fullmatch(r'@@"(\w+)"@@ (.*)', line).groups() for line in lines if line.startswith("@@"))  # type: ignore[union-attr]
    return {name: headers.number(value) for name, value in found.items() if name not in NO_CALLS}


@pytest.mark.parametrize("table", HEADERS)
def test_the_tables_are_the_headers(table: str) -> None:
    """Each call of the header is in the table with its number, and what the table has beside is younger."""
    theirs, ours = listed(table), callnumbers.table(table)
    assert len(theirs) > 300
    assert {name: ours.get(name) for name in theirs} == theirs
    youngest = max(number & ~callnumbers.X32_BIT for number in theirs.values() if number & 0xFFF < 512)
    more = {name: ours[name] & ~callnumbers.X32_BIT for name in ours.keys() - theirs.keys()}
    assert {name: number for name, number in more.items() if number <= youngest} == {}


@pytest.mark.parametrize("table", callnumbers.TABLES)
def test_the_tables_are_libseccomps(table: str) -> None:
    """arm's too: each call that libseccomp knows has the same number there, but for those x86 makes through another."""
    wrong, known = {}, 0
    for name, number in callnumbers.table(table).items():
        theirs = ground.resolve(OF_THE_LIBRARY[table], name)
        through = table == "x86" and any(name in calls for calls in machines.THROUGH.values())
        if (table, name) in TWO_NAMES:
            continue
        if theirs != ground.UNKNOWN and theirs != number and not (through and theirs < 0):
            wrong[name] = (number, theirs)
        known += theirs == number
    assert wrong == {}
    assert known > 280


def test_the_small_table_is_part_of_the_large() -> None:
    """The calls that the kit makes have the same numbers in both tables."""
    for machine, column in constants.ARCHITECTURES.items():
        small = {name: numbers[column] for name, numbers in constants.SYSCALLS.items()}
        assert {name: callnumbers.table(machine)[name] for name in small} == small


@pytest.mark.parametrize(
    ("header", "prefix", "calls"),
    [("linux/net.h", "SYS_", machines.SOCKETCALL), ("linux/ipc.h", "", machines.IPC)],
)
def test_calls_through_another_are_the_headers(header: str, prefix: str, calls: dict[str, int]) -> None:
    """socketcall's SYS_SOCKET and ipc's SEMOP."""
    names = [f"{prefix}{name.upper()}" for name in calls]
    expanded = headers.value("x86_64", [header], names)
    assert [headers.number(expanded[name]) for name in names] == list(calls.values())
