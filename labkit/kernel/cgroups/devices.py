"""Floor 1: which devices a cgroup's processes may make, read and write: a BPF program.

Owns: device rules in the form that the OCI specification gives them, what they come to (a
default and its exceptions, as version 1's `devices` controller kept them), and the program.
cgroup v2 has no file for devices: the kernel asks a program at each open and each mknod.

    devices.fence(group, devices.rules([{"allow": False, "access": "rwm"},
                                        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}]))

Read: Documentation/admin-guide/cgroup-v2.rst, "Device controller"; the OCI runtime specification,
config-linux, "Allowed Device list".
"""

from __future__ import annotations

import os

from labkit.errors import BadInput
from labkit.kernel import bpf
from labkit.kernel import constants as C
from labkit.lean import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

ACCESS = {"m": C.BPF_DEVCG_ACC_MKNOD, "r": C.BPF_DEVCG_ACC_READ, "w": C.BPF_DEVCG_ACC_WRITE}
KINDS = {"b": C.BPF_DEVCG_DEV_BLOCK, "c": C.BPF_DEVCG_DEV_CHAR}
EVERYTHING = sum(ACCESS.values())
ALLOW, DENY = 1, 0  # the program's answers; 0 is EPERM for who asked
# The kernel's struct bpf_cgroup_dev_ctx: access_type (the kind in its lower half), major, minor.
CONTEXT, KIND, WANTED, MAJOR, MINOR = 1, 3, 2, 4, 5  # registers; r1 is free once all is read


class Key(Record):
    """Which devices: b or c, and numbers; None is any."""

    kind: str
    major: int | None
    minor: int | None

    def __str__(self) -> str:
        return f"{self.kind} {'*' if self.major is None else self.major}:{'*' if self.minor is None else self.minor}"


class Rules(Record):
    """What a list of rules comes to: an answer, and the devices for which the other one is given."""

    allow: bool
    exceptions: dict[Key, int]  # bits of ACCESS

    def __str__(self) -> str:
        most, other = ("allow", "deny") if self.allow else ("deny", "allow")
        lines = [f"{other} {key} {letters(bits)}" for key, bits in self.exceptions.items()]
        return "\n".join([*lines, f"{most} everything else"])


def rules(listed: Iterable[Mapping[str, Any]]) -> Rules:
    """What linux.resources.devices comes to; a later rule overrules an earlier one. Raises BadInput.

    Without any rule everything is allowed.  A rule for all devices (type a, or none) begins anew.
    """
    allow, exceptions = True, dict[Key, int]()
    for one in listed:
        kind, access = one.get("type", "a"), bits(one.get("access", "rwm"))
        if kind == "a":
            allow, exceptions = one["allow"], {}
            continue
        if kind not in KINDS:
            raise BadInput(f"a device of type {kind!r} cannot be allowed", next="b, c or a")
        key = Key(kind, _number(one.get("major")), _number(one.get("minor")))
        if one["allow"] != allow:
            exceptions[key] = exceptions.get(key, 0) | access
        elif left := exceptions.pop(key, 0) & ~access:
            exceptions[key] = left
    return Rules(allow, exceptions)


def _number(given: int | None) -> int | None:
    return None if given is None or given < 0 else given  # the specification's -1, too, is any


def bits(access: str) -> int:
    """ "rw" as the kernel's bits. Raises BadInput."""
    if not access or set(access) - set(ACCESS):
        raise BadInput(f"{access!r} is no access to a device", next="some of r (read), w (write), m (mknod)")
    return sum(ACCESS[letter] for letter in set(access))


def letters(number: int) -> str:
    """ "rwm" of the kernel's bits."""
    return "".join(letter for letter in "rwm" if number & ACCESS[letter])


def program(wanted: Rules) -> list[bpf.Instruction]:
    """The rules as a program; `bpf.listing` shows it."""
    code = [
        bpf.load_word(WANTED, CONTEXT, 0),
        bpf.load_word(MAJOR, CONTEXT, 4),
        bpf.load_word(MINOR, CONTEXT, 8),
        bpf.copy(KIND, WANTED),
        bpf.mask(KIND, 0xFFFF),
        bpf.shift_right(WANTED, 16),
    ]
    for key, access in wanted.exceptions.items():
        code += _exception(key, access, wanted.allow)
    return [*code, bpf.set_to(0, ALLOW if wanted.allow else DENY), bpf.leave()]


def _exception(key: Key, access: int, allow: bool) -> list[bpf.Instruction]:
    """The other answer for these devices; what does not match jumps behind it."""
    tests: list[tuple[int, int]] = [(KIND, KINDS[key.kind])]
    tests += [(register, number) for register, number in ((MAJOR, key.major), (MINOR, key.minor)) if number is not None]
    answer = [bpf.set_to(0, DENY if allow else ALLOW), bpf.leave()]
    if access != EVERYTHING:
        # Allowed is who wants nothing beyond it; denied is who wants any of it.
        last = bpf.skip_if(CONTEXT, 0, 2) if allow else bpf.skip_unless_same(CONTEXT, WANTED, 2)
        answer = [bpf.copy(CONTEXT, WANTED), bpf.mask(CONTEXT, access), last, *answer]
    size = len(tests) + len(answer)
    return [bpf.skip_unless(*one, over=size - place - 1) for place, one in enumerate(tests)] + answer


def fence(group: str | os.PathLike[str], wanted: Rules) -> None:
    """From now on, the cgroup's processes and all below meet these rules, until it is removed.

    Rules of the cgroups above hold too: what any of them denies is denied.  Raises LabError where
    this process may not load programs (a container, an ordinary user) or the kernel has none.
    """
    fd = bpf.load(C.BPF_PROG_TYPE_CGROUP_DEVICE, program(wanted), "labkit_devices")
    try:
        bpf.attach(fd, group, C.BPF_CGROUP_DEVICE)
    finally:
        os.close(fd)  # the cgroup holds it
