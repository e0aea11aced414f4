"""Floor 1: a seccomp profile made into a program of classic BPF.

Owns: which rule answers for which number, the search for the number, and the comparison of 64-bit
arguments in two halves.

For each architecture the numbers 0 to 2^32-1 are cut into ranges that have one answer, and the program
looks for the range by halving: some nine comparisons for four hundred calls.  A range of one call with
conditions on its arguments then tries its rules in turn.

Which rule answers:

- a rule whose answer is the default is left out, as in runc;
- a rule without conditions answers before those with conditions, wherever it stands, and the first of
  such rules before later ones (as in libseccomp);
- of rules with conditions the first that holds answers.  libseccomp keeps these in a tree sorted by
  argument and value: where two hold at once and have different answers, its choice is its own;
- a call that no rule names has the default answer; but a number above the highest that the profile
  names, on an architecture that it lists, is ENOSYS unless the default lets calls pass: so a program
  that tries a newer call falls back to the older one (runc does this);
- another architecture than the listed ones and the machine's own ends the thread (KILL_THREAD), and so
  does x32's bit in the number where x32 is not listed, except in -1, which a tracer uses to skip a call.

Read: seccomp(2); libseccomp's seccomp_rule_add(3); runc's libcontainer/seccomp/patchbpf.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from labkit.kernel import constants as C
from labkit.kernel.callnumbers import X32_BIT
from labkit.kernel.seccomp import classic, machines
from labkit.kernel.seccomp.classic import AT_LEAST, EQUAL, GREATER, Assembler, Instruction, Label
from labkit.kernel.seccomp.machines import Machine
from labkit.kernel.seccomp.profile import Condition, Profile, Rule

SKIPPED = 0xFFFFFFFF  # -1, a tracer's "do not make this call"
NUMBERS = 1 << 32
NO_SUCH_CALL = C.SECCOMP_RET_ERRNO | errno.ENOSYS
OTHER_MACHINE = C.SECCOMP_RET_KILL_THREAD
# With one of these as default, a call of the future is let through (or its tracer decides).
PERMISSIVE = {C.SECCOMP_RET_ALLOW, C.SECCOMP_RET_LOG, C.SECCOMP_RET_TRACE}
LOW = 0xFFFFFFFF
# operator: (comparison of the low half, whether it must hold)
ORDERED = {"GT": (GREATER, True), "GE": (AT_LEAST, True), "LE": (GREATER, False), "LT": (AT_LEAST, False)}


class Choice(NamedTuple):
    """If all conditions hold, this answer."""

    conditions: tuple[Condition, ...]
    wide: bool
    action: int


Answer = tuple[Choice, ...]  # tried in turn; the last has no conditions


def compile(profile: Profile, native: str | None = None) -> list[Instruction]:
    """The program for a profile; `native` is the machine's own architecture (default: this one's).

    Raises BadInput: too many instructions, an architecture without a table.
    """
    own = native or machines.native()
    names = list(dict.fromkeys([own, *profile.architectures]))
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault(machines.find(name).token, []).append(name)
    out = Assembler()
    out.load(classic.ARCHITECTURE)
    for token, members in groups.items():
        other = Label()
        out.jump(EQUAL, token, false=other)
        out.load(classic.NUMBER)
        _search(out, _ranges(profile, members))
        out.place(other)
    out.answer(OTHER_MACHINE)
    return out.program()


def _ranges(profile: Profile, members: Sequence[str]) -> list[tuple[int, Answer]]:
    """(first number, answer), ascending from 0: the answers of architectures that share a token."""
    default: Answer = (Choice((), False, profile.default),)
    answers: dict[int, Answer] = {}
    # Where calls begin that the profile's author cannot have known, by whether x32's bit is set.
    unknown: dict[bool, int] = {}
    for name in members:
        machine = machines.find(name)
        for number, choices in _choices(profile, machine).items():
            answers[number] = choices if not choices[-1].conditions else (*choices, *default)
        if name in profile.architectures and profile.default & C.SECCOMP_RET_ACTION_FULL not in PERMISSIVE:
            # Of the rules that say what the default says, too.
            highest = max((n for rule in profile.rules for n in _direct(machine, rule)), default=0)
            if highest:
                unknown[bool(highest & X32_BIT)] = highest + 1
    split = machines.find(members[0]).token == C.AUDIT_ARCH_X86_64

    def answer(number: int) -> Answer:
        x32 = split and bool(number & X32_BIT)
        if x32 in unknown and number >= unknown[x32]:
            return (Choice((), False, NO_SUCH_CALL),)
        if number in answers:
            return answers[number]
        if split and number != SKIPPED and not _served(members, number):
            return (Choice((), False, OTHER_MACHINE),)
        return default

    starts = {0, X32_BIT, 2 * X32_BIT, 3 * X32_BIT, SKIPPED, *unknown.values()}
    starts |= answers.keys() | {number + 1 for number in answers}
    found: list[tuple[int, Answer]] = []
    for start in sorted(one for one in starts if one < NUMBERS):
        if not found or found[-1][1] != answer(start):
            found.append((start, answer(start)))
    return found


def _served(members: Sequence[str], number: int) -> bool:
    """Whether a number of x86-64's token is of an architecture that the filter is for."""
    return ("SCMP_ARCH_X32" if number >= X32_BIT else "SCMP_ARCH_X86_64") in members


def _direct(machine: Machine, rule: Rule) -> Iterator[int]:
    """The numbers of a rule's calls; without those that x86 can also make through another (runc has none for them)."""
    for name in rule.names:
        ways = machines.numbers(machine, name)
        if len(ways) == 1 and ways[0][1] is None:
            yield ways[0][0]


def _choices(profile: Profile, machine: Machine) -> dict[int, Answer]:
    """For each number that the profile names, the rules in the order in which they are tried."""
    found: dict[int, Answer] = {}
    for rule in profile.rules:
        if rule.action == profile.default:
            continue
        for name in rule.names:
            for number, through in machines.numbers(machine, name):
                choice = Choice(_conditions(rule, machine, through), machine.wide, rule.action)
                before = found.get(number, ())
                if before and not before[-1].conditions:
                    continue  # one without conditions is there already
                found[number] = (*before, choice) if choice.conditions else (choice,)
    return found


def _conditions(rule: Rule, machine: Machine, through: int | None) -> tuple[Condition, ...]:
    """A rule's conditions on this machine, by argument; those that always hold left out."""
    given = {one.argument: one for one in rule.conditions}
    if through is not None:
        # The first argument of socketcall and ipc says which call is meant; the real first one is in memory.
        given[0] = Condition(0, "EQ", through)
    whole = LOW << 32 | LOW if machine.wide else LOW
    return tuple(
        given[argument]
        for argument in sorted(given)
        if not (given[argument].operator == "MASKED_EQ" and given[argument].value & whole == 0)
    )


# --- instructions ------------------------------------------------------------------------


def _search(out: Assembler, ranges: Sequence[tuple[int, Answer]]) -> None:
    """Find the range that A, the call's number, lies in, and answer."""
    if len(ranges) == 1:
        _answer(out, ranges[0][1])
        return
    middle = len(ranges) // 2
    upper = Label()
    out.jump(AT_LEAST, ranges[middle][0], true=upper)
    _search(out, ranges[:middle])
    out.place(upper)
    _search(out, ranges[middle:])


def _answer(out: Assembler, answer: Answer) -> None:
    for conditions, wide, action in answer:
        following = Label()
        for one in conditions:
            _test(out, one, wide, following)
        out.answer(action)
        out.place(following)


def _test(out: Assembler, one: Condition, wide: bool, no: Label) -> None:
    """Go on if the condition holds, to `no` if not."""
    yes = Label()
    low = classic.ARGUMENTS + 8 * one.argument
    mask = one.value if one.operator == "MASKED_EQ" else LOW << 32 | LOW
    value = (one.other if one.operator == "MASKED_EQ" else one.value) & mask
    if one.operator in ORDERED:
        code, must = ORDERED[one.operator]
        holds, fails = (yes, no) if must else (no, yes)
        if wide:
            out.load(low + 4)
            out.jump(GREATER, value >> 32, true=holds)
            out.jump(EQUAL, value >> 32, false=fails)
        out.load(low)
        out.jump(code, value & LOW, holds, fails)
    else:
        holds, fails = (no, yes) if one.operator == "NE" else (yes, no)
        for offset, shift in ((low + 4, 32), (low, 0)) if wide else ((low, 0),):
            out.load(offset)
            if (mask >> shift) & LOW != LOW:
                out.mask((mask >> shift) & LOW)
            # The low half is looked at last: only then is the whole value equal.
            out.jump(EQUAL, (value >> shift) & LOW, holds if shift == 0 else None, fails)
    out.place(yes)
