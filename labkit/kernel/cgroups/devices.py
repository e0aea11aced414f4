"""Floor 1: which devices a cgroup's processes may make, read and write: a BPF program.

Owns: device rules in the form that the OCI specification gives them, what is left of them when those
that say nothing new are gone, and the program, which asks the last one first.
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

ANY = "a"
ACCESS = {"m": C.BPF_DEVCG_ACC_MKNOD, "r": C.BPF_DEVCG_ACC_READ, "w": C.BPF_DEVCG_ACC_WRITE}
KINDS = {"b": C.BPF_DEVCG_DEV_BLOCK, "c": C.BPF_DEVCG_DEV_CHAR}
EVERYTHING = sum(ACCESS.values())
ALLOW, DENY = 1, 0  # the program's answers; 0 is EPERM for who asked
# The kernel's struct bpf_cgroup_dev_ctx: access_type (the kind in its lower half), major, minor.
CONTEXT, KIND, WANTED, MAJOR, MINOR = 1, 3, 2, 4, 5  # registers; r1 is free once all is read


class Key(Record):
    """Which devices: b, c or a (both), and numbers; None is any."""

    kind: str
    major: int | None
    minor: int | None

    def __str__(self) -> str:
        return f"{self.kind} {'*' if self.major is None else self.major}:{'*' if self.minor is None else self.minor}"

    def covers(self, other: Key) -> bool:
        """Whether each device of the other is one of these."""
        return self.kind in (ANY, other.kind) and all(
            own in (None, theirs) for own, theirs in ((self.major, other.major), (self.minor, other.minor))
        )

    def meets(self, other: Key) -> bool:
        """Whether some device can be one of both."""
        kinds = ANY in (self.kind, other.kind) or self.kind == other.kind
        pairs = ((self.major, other.major), (self.minor, other.minor))
        return kinds and all(None in pair or pair[0] == pair[1] for pair in pairs)


EVERY_DEVICE = Key(ANY, None, None)


class Rule(Record):
    """An answer for some devices and some ways to use them."""

    allow: bool
    key: Key
    access: int  # bits of ACCESS

    def __str__(self) -> str:
        return f"{'allow' if self.allow else 'deny'} {self.key} {letters(self.access)}"


class Rules(Record):
    """What a list of rules comes to: those that count, the last one first, and the answer where none of them speaks."""

    allow: bool
    asked: tuple[Rule, ...]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.asked), f"{'allow' if self.allow else 'deny'} everything else"])


def rules(listed: Iterable[Mapping[str, Any]]) -> Rules:
    """What linux.resources.devices comes to; a later rule overrules an earlier one. Raises BadInput.

    That holds for each access by itself: reading and writing at once is allowed when both are.
    Without any rule everything is allowed.  Rules that change no answer are left out.
    """
    allow, kept = True, list[Rule]()  # the first one first
    for one in listed:
        kind, access = one.get("type", ANY), bits(one.get("access", "rwm"))
        if kind != ANY and kind not in KINDS:
            raise BadInput(f"a device of type {kind!r} cannot be allowed", next="b, c or a")
        new = Rule(one["allow"], Key(kind, _number(one.get("major")), _number(one.get("minor"))), access)
        left = [old._replace(access=old.access & ~access) if new.key.covers(old.key) else old for old in kept]
        kept = [old for old in left if old.access]
        if new.key == EVERY_DEVICE and access == EVERYTHING:
            allow = new.allow
        elif new.allow != allow or any(_contradict(new, old) for old in kept):
            kept.append(new)
    return Rules(allow, tuple(reversed(kept)))


def _contradict(one: Rule, other: Rule) -> bool:
    return one.allow != other.allow and bool(one.access & other.access) and one.key.meets(other.key)


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
    for rule in wanted.asked:
        code += _ask(rule)
    return [*code, bpf.set_to(0, ALLOW if wanted.allow else DENY), bpf.leave()]


def _ask(rule: Rule) -> list[bpf.Instruction]:
    """One rule: what does not match jumps behind it, and so does what it leaves undecided."""
    tests = [(KIND, KINDS[rule.key.kind])] if rule.key.kind != ANY else []
    numbers = ((MAJOR, rule.key.major), (MINOR, rule.key.minor))
    tests += [(register, number) for register, number in numbers if number is not None]
    answer = [bpf.set_to(0, ALLOW if rule.allow else DENY), bpf.leave()]
    if rule.access != EVERYTHING:
        if rule.allow:  # what is allowed need not be asked of the earlier ones; they decide on the rest
            undecided = [bpf.mask(WANTED, EVERYTHING & ~rule.access), bpf.skip_unless(WANTED, 0, 2)]
        else:  # one denied access denies them all
            undecided = [bpf.copy(CONTEXT, WANTED), bpf.mask(CONTEXT, rule.access), bpf.skip_if(CONTEXT, 0, 2)]
        answer = [*undecided, *answer]
    size = len(tests) + len(answer)
    return [bpf.skip_unless(*one, over=size - place - 1) for place, one in enumerate(tests)] + answer


def fence(group: str | os.PathLike[str], wanted: Rules) -> None:
    """From now on, the cgroup's processes and all below meet these rules, until it is removed.

    Rules of the cgroups above hold too: what any of them denies is denied.  Raises LabError where
    this process may not load programs (it is in a user namespace, or an ordinary user's) or the kernel has none.
    """
    fd = bpf.load(C.BPF_PROG_TYPE_CGROUP_DEVICE, program(wanted), "labkit_devices")
    try:
        bpf.attach(fd, group, C.BPF_CGROUP_DEVICE)
    finally:
        os.close(fd)  # the cgroup holds it
