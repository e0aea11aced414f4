"""Top floor: what the kernel's text files say, for the doctor.

Owns: pure functions from the text of /proc and /etc to values; nothing here opens a file,
so that tests feed them the text of machines that are not at hand.

Read: proc_meminfo(5), proc_swaps(5), proc_pid_mountinfo(5), cgroups(7), os-release(5),
Documentation/accounting/psi.rst, user_namespaces(7).
"""

from __future__ import annotations

import re
import shlex

# What may forbid an ordinary user a user namespace: sysctl, the forbidding value, the
# allowing one, and who has it.
USERNS_SYSCTLS = (
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0", "Ubuntu since 23.10"),
    ("kernel.unprivileged_userns_clone", "0", "1", "Debian's own"),
    ("user.max_user_namespaces", "0", "15000", "every kernel since 4.9"),
)


def meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in MiB, the lines that are in kB."""
    return {name: int(number) // 1024 for name, number in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}


def swap(text: str) -> int:
    """MiB of swap in /proc/swaps: the third column, in KiB, of every line under the head."""
    return sum(int(line.split()[2]) for line in text.splitlines()[1:] if line.strip()) // 1024


def version_one(mountinfo: str) -> dict[str, str]:
    """Controller: where version 1 has it mounted.  A named hierarchy (name=systemd) has none."""
    found: dict[str, str] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = [*right.split(" ", 2), "", ""][:3]
        if kind == "cgroup":
            place = left.split()[4].encode().decode("unicode_escape")  # \040 is a space
            found.update({word: place for word in options.split(",") if word not in ("rw", "ro", "xattr")})
    return {name: place for name, place in found.items() if "=" not in name}


def own_cgroup(text: str) -> str:
    """The path in the version 2 tree that /proc/self/cgroup names; empty without one."""
    return next((line[3:] for line in text.splitlines() if line.startswith("0::")), "")


def pressure_total(text: str) -> int:
    """Microseconds in which some task waited: total= of the line "some"."""
    found = re.search(r"^some .*total=(\d+)", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"no line 'some' in {text[:60]!r}")
    return int(found[1])


def distribution(text: str) -> str:
    """PRETTY_NAME of os-release, without its quotes."""
    found = re.search(r"^PRETTY_NAME=(.*)$", text, re.MULTILINE)
    return " ".join(shlex.split(found[1])) if found else "unknown distribution"


def userns_obstacle(sysctls: dict[str, str]) -> tuple[str, str]:
    """(the sysctl that forbids, the command that allows); two empty texts when none forbids."""
    for name, forbids, allows, whose in USERNS_SYSCTLS:
        if sysctls.get(name) == forbids:
            return f"{name} = {forbids} ({whose})", f"sysctl -w {name}={allows}"
    return "", ""


def userns_settings(sysctls: dict[str, str]) -> str:
    """The sysctls of the policy that this kernel has, with their values."""
    return ", ".join(f"{name} = {sysctls[name]}" for name, *_ in USERNS_SYSCTLS if name in sysctls)
