"""Floor 1: the specification's seccomp object, understood: which call, with which arguments, gets which answer.

Owns: the words of the object (actions, operators, flags), the checks, and the numbers behind the words.

What the specification leaves open is done as runc does it:

- an ERRNO or TRACE without a number has EPERM;
- several conditions on one argument make a rule each (one of them is enough); conditions on different
  arguments must all hold;
- without `flags`, SPEC_ALLOW is set; with an empty list, nothing is;
- NOTIFY is neither the default nor asked for write(2): who starts the container still has to write the
  listener's number to somebody.

Names of system calls are not checked here: one that no table has is passed over, as in runc, since a
profile names calls of newer kernels and of other architectures.

Read: the OCI runtime specification, config-linux.md, "Seccomp"; seccomp(2); seccomp_rule_add(3).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, NamedTuple

from labkit.errors import BadInput
from labkit.kernel import constants as C
from labkit.kernel.seccomp import machines

ACTIONS = {
    "SCMP_ACT_KILL": C.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": C.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": C.SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": C.SECCOMP_RET_TRAP,
    "SCMP_ACT_ERRNO": C.SECCOMP_RET_ERRNO,
    "SCMP_ACT_TRACE": C.SECCOMP_RET_TRACE,
    "SCMP_ACT_LOG": C.SECCOMP_RET_LOG,
    "SCMP_ACT_NOTIFY": C.SECCOMP_RET_USER_NOTIF,
    "SCMP_ACT_ALLOW": C.SECCOMP_RET_ALLOW,
}
WITH_NUMBER = {"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"}
OPERATORS = ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")
FLAGS = {
    f"SECCOMP_FILTER_FLAG_{name}": getattr(C, f"SECCOMP_FILTER_FLAG_{name}")
    for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
}
ARGUMENTS = 6
WHERE = "linux.seccomp"


class Condition(NamedTuple):
    """A comparison of one argument. MASKED_EQ: argument & value == other & value."""

    argument: int
    operator: str
    value: int
    other: int = 0


class Rule(NamedTuple):
    """Calls of these names whose arguments meet all conditions get this answer (SECCOMP_RET_... and its data)."""

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...] = ()


class Profile(NamedTuple):
    """The object, understood.  `flags`: SECCOMP_FILTER_FLAG_..., or'ed."""

    default: int
    rules: tuple[Rule, ...] = ()
    architectures: tuple[str, ...] = ()
    flags: int = 0
    listener_path: str = ""
    listener_metadata: str = ""

    @property
    def notifies(self) -> bool:
        """Whether somebody must listen for calls passed on."""
        return any(rule.action == C.SECCOMP_RET_USER_NOTIF for rule in self.rules)


def parse(given: object) -> Profile:
    """Understand the object `linux.seccomp` of a config.json.

    Raises BadInput with the place in the object.
    """
    seccomp = _object(given, WHERE)
    default = _action(seccomp, "defaultAction", "defaultErrnoRet", WHERE)
    if default == C.SECCOMP_RET_USER_NOTIF:
        raise BadInput(
            f"{WHERE}.defaultAction: SCMP_ACT_NOTIFY cannot be the default",
            why="the call that hands the listener to somebody would itself wait for an answer",
            next="name the calls to be passed on in syscalls",
        )
    rules: list[Rule] = []
    for place, one in enumerate(_list(seccomp, "syscalls", WHERE)):
        rules += _rules(one, f"{WHERE}.syscalls[{place}]")
    architectures = tuple(_texts(seccomp, "architectures", WHERE))
    for name in architectures:
        machines.find(name)
    path = _text(seccomp, "listenerPath", WHERE)
    metadata = _text(seccomp, "listenerMetadata", WHERE)
    if metadata and not path:
        raise BadInput(f"{WHERE}.listenerMetadata: there is no listenerPath to send it to", next="give both or neither")
    return Profile(default, tuple(rules), architectures, _flags(seccomp), path, metadata)


def _rules(given: object, where: str) -> list[Rule]:
    """One entry of syscalls; several rules where one argument has several conditions."""
    entry = _object(given, where)
    names = tuple(_texts(entry, "names", where))
    if not names or "" in names:
        raise BadInput(f"{where}.names: every rule names at least one system call", next='for example ["personality"]')
    action = _action(entry, "action", "errnoRet", where)
    if action == C.SECCOMP_RET_USER_NOTIF and "write" in names:
        raise BadInput(
            f"{where}: SCMP_ACT_NOTIFY cannot be asked for write",
            why="who starts the process writes the listener's number to somebody after the filter is on",
            next="take write out of names",
        )
    conditions = tuple(
        _condition(one, f"{where}.args[{place}]") for place, one in enumerate(_list(entry, "args", where))
    )
    if len({one.argument for one in conditions}) < len(conditions):
        return [Rule(names, action, (one,)) for one in conditions]
    return [Rule(names, action, conditions)]


def _condition(given: object, where: str) -> Condition:
    entry = _object(given, where)
    operator = _text(entry, "op", where)
    if operator.removeprefix("SCMP_CMP_") not in OPERATORS or not operator.startswith("SCMP_CMP_"):
        raise BadInput(
            f"{where}.op: {operator!r} is no operator",
            next="one of " + ", ".join(f"SCMP_CMP_{name}" for name in OPERATORS),
        )
    argument = _number(entry, "index", where, ARGUMENTS - 1, required=True)
    value = _number(entry, "value", where, 2**64 - 1, required=True)
    return Condition(argument, operator.removeprefix("SCMP_CMP_"), value, _number(entry, "valueTwo", where, 2**64 - 1))


def _action(entry: Mapping[str, Any], key: str, number_key: str, where: str) -> int:
    word = _text(entry, key, where)
    if word not in ACTIONS:
        raise BadInput(f"{where}.{key}: {word!r} is no action", next=f"one of {', '.join(ACTIONS)}")
    if word in WITH_NUMBER:
        return ACTIONS[word] | (
            errno.EPERM if entry.get(number_key) is None else _number(entry, number_key, where, C.SECCOMP_RET_DATA)
        )
    if entry.get(number_key) is not None:
        raise BadInput(
            f"{where}.{number_key}: {word} takes no number",
            why="the specification wants this refused: only ERRNO and TRACE have one",
            next=f"take {number_key} out, or use SCMP_ACT_ERRNO",
        )
    return ACTIONS[word]


def _flags(seccomp: Mapping[str, Any]) -> int:
    if seccomp.get("flags") is None:
        return C.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    found = 0
    for name in _texts(seccomp, "flags", WHERE):
        if name not in FLAGS:
            raise BadInput(f"{WHERE}.flags: {name!r} is no flag", next=f"some of {', '.join(FLAGS)}")
        found |= FLAGS[name]
    return found


def _object(given: object, where: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise BadInput(f"{where}: must be an object, not {given!r}", next='for example {"defaultAction": ...}')
    return given


def _list(entry: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = entry.get(key)
    if found is not None and not isinstance(found, list):
        raise BadInput(f"{where}.{key}: must be a list, not {found!r}", next="put it into [ ]")
    return found or []


def _texts(entry: Mapping[str, Any], key: str, where: str) -> list[str]:
    found = _list(entry, key, where)
    for one in found:
        if not isinstance(one, str):
            raise BadInput(f"{where}.{key}: {one!r} must be a text", next="put it into quotation marks")
    return found


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    found = entry.get(key, "")
    if not isinstance(found, str):
        raise BadInput(f"{where}.{key}: {found!r} must be a text", next="put it into quotation marks")
    return found


def _number(entry: Mapping[str, Any], key: str, where: str, most: int, *, required: bool = False) -> int:
    found = entry.get(key)
    if found is None and not required:
        return 0
    # JSON's true is an int to Python.
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= most:
        raise BadInput(f"{where}.{key}: {found!r} must be a whole number from 0 to {most}", next=f"correct {key}")
    return found
