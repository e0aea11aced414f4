"""The system call and constant tables, compared with the kernel's own headers of both architectures.

The oracle is the C preprocessor over what Debian packages: linux-libc-dev for x86-64
and linux-libc-dev-arm64-cross for aarch64.  Nothing is executed.
"""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest

from labkit.kernel import constants

# os.uname().machine: (folder of the architecture's headers, the others', what the compiler predefines)
HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu", "/usr/include", "-D__x86_64__"),
    "aarch64": ("/usr/aarch64-linux-gnu/include", "/usr/aarch64-linux-gnu/include", "-D__aarch64__"),
}
PACKAGES = {"x86_64": "linux-libc-dev", "aarch64": "linux-libc-dev-arm64-cross"}

# The headers that carry the constants; asm-generic ones are included by the architecture's own.
INCLUDED = (
    *("linux/sched.h", "linux/mount.h", "linux/fs.h", "linux/openat2.h", "linux/prctl.h", "linux/capability.h"),
    *("linux/seccomp.h", "linux/landlock.h", "linux/close_range.h", "linux/fcntl.h", "asm/fcntl.h", "asm/ioctls.h"),
    *("linux/securebits.h", "linux/perf_event.h", "linux/bpf.h", "linux/signal.h", "linux/audit.h", "linux/ioprio.h"),
    *("linux/personality.h", "linux/magic.h", "linux/keyctl.h", "linux/sockios.h", "asm/resource.h"),
)

# Names that the kit gives and the headers spell differently, or that the headers keep in an enum.
SPELT = {
    "LINUX_CAPABILITY_VERSION_3": "_LINUX_CAPABILITY_VERSION_3",
    "MNT_DETACH": None,  # the kernel's include/linux/fs.h, not exported; umount2(2), glibc's sys/mount.h
    "MNT_EXPIRE": None,  # the same
    # The kernel's include/linux/key.h, socket.h and net.h, not exported; keyctl_setperm(3), socket(2).
    **dict.fromkeys(("KEY_POS_ALL", "KEY_USR_VIEW", "KEY_USR_READ", "KEY_USR_SEARCH", "AF_INET", "SOCK_DGRAM")),
    "SOCK_CLOEXEC": None,  # net.h as well: O_CLOEXEC, compared with Python's below
    "PF_KTHREAD": None,  # the kernel's include/linux/sched.h, not exported; proc_pid_stat(5), field 9
    **dict.fromkeys(("IFF_UP", "IFF_LOOPBACK", "IFF_RUNNING")),  # linux/if.h: names for themselves, in an enum
    "LANDLOCK_CREATE_RULESET_VERSION": "LANDLOCK_CREATE_RULESET_VERSION",
}


def preprocess(machine: str, text: str, *words: str) -> str:
    """What cpp makes of `text` with the headers of `machine` and no others."""
    own, common, predefined = HEADERS[machine]
    assert Path(own, "asm/unistd.h").exists(), f"headers missing: apt-get install {PACKAGES[machine]}"
    clean = ["-undef", "-nostdinc", predefined, "-D__LP64__", "-D__STDC__", f"-I{own}", f"-I{common}"]
    done = subprocess.run(["cpp", *clean, *words, "-"], input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def value(machine: str, includes: list[str], names: list[str]) -> dict[str, str]:
    """Each name's expansion, in one run of the preprocessor; a name that stays itself is no macro."""
    text = "".join(f"#include <{name}>\n" for name in includes)
    text += "".join(f'@@"{name}"@@ {name}\n' for name in names)
    lines = preprocess(machine, text, "-P").splitlines()
    return dict(re.fullmatch(r'@@"(\w+)"@@ (.*)', line).groups() for line in lines if line.startswith("@@"))  # type: ignore[union-attr]


def enumerators(machine: str, includes: list[str]) -> dict[str, int]:
    """Constants that the headers keep in an enum: name -> value."""
    text = preprocess(machine, "".join(f"#include <{name}>\n" for name in includes), "-P")
    found: dict[str, int] = {}
    for body in re.findall(r"enum\s*\w*\s*\{([^}]*)\}", text):
        following = 0
        for item in filter(None, (part.strip() for part in body.split(","))):
            name, _, given = item.partition("=")
            following = number(given, found) if given else following
            found[name.strip()] = following
            following += 1
    return found


def number(text: str, known: dict[str, int] | None = None) -> int:
    """A constant expression of C: only digits, names already known, and the operators that headers use."""
    text = " ".join(text.split())
    plain = re.sub(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]+\b", r"\1", text)
    plain = re.sub(r"sizeof\s*\(\s*(?:unsigned )?int\s*\)", "4", plain)
    plain = re.sub(r"\((?:unsigned |__u32|__u64|int|long)+\)", "", plain)
    plain = re.sub(r"'(.)'", lambda match: str(ord(match[1])), plain)
    plain = re.sub(r"\b0([0-7]+)\b", r"0o\1", plain)
    assert re.fullmatch(r"[\w\s()|<>~+*&-]*", plain), text
    return int(eval(plain, {"__builtins__": {}}, dict(known or {})))


# Younger than the headers of Debian 12, with which this may run: cachestat is of Linux 6.5.
NEWER = {"cachestat"}


@pytest.mark.parametrize("machine", HEADERS)
def test_system_call_numbers_are_the_headers(machine: str) -> None:
    """Every number of the table is the one that asm/unistd.h of that architecture has."""
    column = constants.ARCHITECTURES[machine]
    expanded = value(machine, ["asm/unistd.h"], [f"__NR_{name}" for name in constants.SYSCALLS])
    ours = {name: numbers[column] for name, numbers in constants.SYSCALLS.items()}
    theirs = {name: number(expanded[f"__NR_{name}"]) for name in ours if expanded[f"__NR_{name}"] != f"__NR_{name}"}
    missing = ours.keys() - theirs.keys()
    assert missing <= NEWER, f"the headers of {machine} have no {sorted(missing - NEWER)}"
    assert theirs == {name: ours[name] for name in theirs}
    # Since Linux 5.1 a new call has one number on all architectures (asm-generic/unistd.h, from 424 on).
    assert all(len(set(constants.SYSCALLS[name])) == 1 and min(constants.SYSCALLS[name]) >= 424 for name in missing)


@pytest.mark.parametrize("machine", HEADERS)
def test_constants_are_the_headers(machine: str) -> None:
    """Every constant of the table is the one that the headers of that architecture have."""
    own, common, _ = HEADERS[machine]
    includes = [name for name in INCLUDED if Path(own, name).exists() or Path(common, name).exists()]
    ours = {name: known for name, known in vars(constants).items() if name.isupper() and isinstance(known, int)}
    asked = {name: SPELT.get(name, name) for name in ours}
    expanded = value(machine, includes, [spelt for spelt in asked.values() if spelt])
    listed = enumerators(machine, includes)
    theirs, unknown = {}, []
    for name, spelt in asked.items():
        if spelt is None:
            continue
        text = expanded[spelt]
        if text != spelt:
            theirs[name] = number(text, listed)
        elif spelt in listed:
            theirs[name] = listed[spelt]
        else:
            unknown.append(name)
    assert not unknown, f"no header of {machine} defines {unknown}"
    assert theirs == {name: ours[name] for name in theirs}


def test_a_wrong_number_would_be_seen() -> None:
    """The comparison can fail: a number of the other architecture is not this one's."""
    expanded = value("aarch64", ["asm/unistd.h"], ["__NR_mount"])
    assert number(expanded["__NR_mount"]) == 40 != constants.SYSCALLS["mount"][constants.ARCHITECTURES["x86_64"]]


def test_what_no_header_exports_is_as_python_has_it() -> None:
    """The sockets' flag by Python's own module; a kernel thread's by one that every machine has."""
    assert constants.SOCK_CLOEXEC == socket.SOCK_CLOEXEC
    threads = [
        int(fields[6]) & constants.PF_KTHREAD
        for fields in (
            path.read_text().rpartition(") ")[2].split() for path in (Path("/proc/2/stat"),) if path.exists()
        )
        if fields[1] == "0"
    ]
    assert all(threads)
    assert not int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[6]) & constants.PF_KTHREAD
