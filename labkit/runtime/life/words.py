"""Floor 3: the words of `labkit-runtime`'s command line.

Owns: the table of verbs and flags, which are runc's; and the two readers of it.  `read` understands what is written
plainly, as engines write it, in a tenth of a millisecond.  All else goes to argparse, made from the same table: help,
abbreviations, several letters in one word, and every mistake.  argparse takes 12 ms to import, a third of a start.

Read: runc(8) and its pages; the library's documentation of argparse.
"""

from __future__ import annotations

from labkit.lean import TYPE_CHECKING, Record
from labkit.runtime.life import store

if TYPE_CHECKING:
    import argparse
    from typing import Any

PROGRAM = "labkit-runtime"


class Flag(Record):
    """One option: its names, what it is (switch, text, number, texts, numbers), and what it says to people."""

    names: tuple[str, ...]
    kind: str = "text"
    default: str | int = ""
    help: str = ""
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    to: str = ""  # the field, where it is not named as the option

    @property
    def field(self) -> str:
        """Its name in what is read."""
        return self.to or self.names[-1].lstrip("-").replace("-", "_")

    @property
    def start(self) -> Any:
        """What is read when it is not given."""
        return False if self.kind == "switch" else [] if self.kind in LISTS else self.default


class Operand(Record):
    """A word without a dash; nargs as argparse has it: None (one), ? (or none), ... (all that follows)."""

    field: str
    metavar: str
    nargs: str | None = None
    default: str | None = None


class Verb(Record):
    """A verb: what it does, and which words follow it."""

    name: str
    help: str
    flags: tuple[Flag, ...] = ()
    operands: tuple[Operand, ...] = ()


class Given:
    """What was read: a field for each flag and operand, and `verb`."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


LISTS = {"texts": str, "numbers": int}
TYPES = {"text": str, "number": int, **LISTS}
ID = Operand("id", "ID")
FORMAT = Flag(("-f", "--format"), default="table", choices=("table", "json"))
BUNDLE = Flag(("-b", "--bundle"), default=".", help="the folder with config.json")
DETACH = Flag(("-d", "--detach"), "switch", help="do not wait for its end")
HANDED = (
    Flag(("--console-socket",), help="a Unix socket that gets the terminal's other end"),
    Flag(("--pid-file",), help="a file for the process id"),
    Flag(("--preserve-fds",), "number", 0, "pass on 3 to 2+N", metavar="N"),
)
MAKING = (
    BUNDLE,
    *HANDED,
    Flag(("--no-pivot",), "switch", help="move the root instead of pivoting to it"),
    Flag(("--no-new-keyring",), "switch", help="keep the caller's session keyring"),
)

GLOBAL = (
    Flag(("--root",), default=store.default_root(), help="where containers are remembered"),
    Flag(("--log",), help="a file for errors, beside standard error"),
    Flag(("--log-format",), default="text", choices=("text", "json")),
    Flag(("--debug",), "switch", help="tell more"),
    Flag(("--systemd-cgroup",), "switch", help="let systemd make the cgroup"),
    Flag(("--cgroup-manager",), default="cgroupfs", choices=("cgroupfs", "systemd", "disabled")),
    Flag(("--rootless",), default="auto", choices=("auto", "true", "false")),
)

LIMITS = (
    Flag(("-r", "--resources"), help="a file with linux.resources as JSON, or -", metavar="FILE"),
    *(
        Flag((f"--{name}",), help=text, metavar="N")
        for name, text in {
            "memory": "bytes, or 64m",
            "memory-reservation": "bytes that are kept for it",
            "memory-swap": "memory and swap together; -1: no limit",
            "cpu-period": "microseconds",
            "cpu-quota": "microseconds of each period",
            "cpu-burst": "microseconds",
            "cpu-share": "relative weight",
            "cpu-idle": "1: only when nobody else wants to run",
            "cpu-rt-period": "not in cgroup v2",
            "cpu-rt-runtime": "not in cgroup v2",
            "cpuset-cpus": "processors",
            "cpuset-mems": "memory nodes",
            "blkio-weight": "10 to 1000",
            "pids-limit": "processes; -1: no limit",
            "l3-cache-schema": "not here",
            "mem-bw-schema": "not here",
        }.items()
    ),
)

VERBS = (
    Verb("create", "make a container that waits to be started", MAKING, (ID,)),
    Verb(
        "run",
        "make a container and start it",
        (
            *MAKING,
            DETACH,
            Flag(("--keep",), "switch", help="do not delete it in the end"),
            Flag(("--step",), "switch", help="stop after each step of its birth, show it, and go on with Enter"),
            Flag(("--step-fd",), "number", -1, "the same for a program, on this descriptor", metavar="FD"),
            Flag(("--no-subreaper",), "switch", help="accepted: there is none"),
        ),
        (ID,),
    ),
    Verb("start", "let a created container run its program", operands=(ID,)),
    Verb("state", "say what the container is doing, as JSON", operands=(ID,)),
    Verb("list", "list containers", (FORMAT, Flag(("-q", "--quiet"), "switch", help="ids only"))),
    Verb(
        "kill",
        "send a signal to a container's process",
        (Flag(("-a", "--all"), "switch", help="to every process in it"),),
        (ID, Operand("signal", "SIGNAL", "?", "SIGTERM")),
    ),
    Verb("delete", "forget an ended container", (Flag(("-f", "--force"), "switch", help="kill it first"),), (ID,)),
    Verb("pause", "let everything in a container stand still", operands=(ID,)),
    Verb("resume", "let it go on", operands=(ID,)),
    Verb("update", "change the limits of a container that lives", LIMITS, (ID,)),
    Verb(
        "events",
        "tell what a container uses, and when it runs out of memory",
        (
            Flag(("--interval",), default="5s", help="between two readings", metavar="TIME"),
            Flag(("--stats",), "switch", help="one reading"),
        ),
        (ID,),
    ),
    Verb("ps", "list a container's processes", (FORMAT,), (ID, Operand("options", "PS-OPTION", "..."))),
    Verb(
        "spec",
        "write a config.json to begin with",
        (
            Flag(("-b", "--bundle"), default=".", help="the folder that it is written to"),
            Flag(("--rootless",), "switch", help="for an ordinary user", to="for_user"),
        ),
    ),
    Verb("features", "print what this runtime keeps of the specification"),
    Verb(
        "exec",
        "run one more process in a container",
        (
            *HANDED,
            DETACH,
            Flag(("-t", "--tty"), "switch", help="with a terminal"),
            Flag(("--cwd",), help="the folder to stand in"),
            Flag(("-e", "--env"), "texts", help="NAME=value", metavar="VARIABLE"),
            Flag(("-u", "--user"), help="numbers", metavar="UID[:GID]"),
            Flag(("-g", "--additional-gids"), "numbers", metavar="GID"),
            Flag(("-p", "--process"), help="a file with the process as JSON"),
            Flag(("--process-label",), help="an SELinux label"),
            Flag(("--apparmor",), help="an AppArmor profile"),
            Flag(("--no-new-privs",), "switch", help="it may gain no privileges"),
            Flag(("-c", "--cap"), "texts", help="one more capability", metavar="CAP"),
            Flag(("--ignore-paused",), "switch", help="also in a paused container"),
        ),
        (ID, Operand("command", "COMMAND", "...")),
    ),
)


def understand(argv: list[str]) -> Given:
    """What the words come to; argparse ends the process for help and for mistakes."""
    return read(argv) or Given(**vars(parser().parse_args(argv)))


def read(argv: list[str]) -> Given | None:
    """What plainly written words come to; None for everything else."""
    found: dict[str, Any] = {}
    at = _flags(argv, 0, GLOBAL, found)
    verb = next((one for one in VERBS if at is not None and at < len(argv) and one.name == argv[at]), None)
    if at is None or verb is None:
        return None
    found["verb"] = verb.name
    words: list[str] = []
    place: int | None = at + 1
    for number in range(len(argv) + 1):
        place = _flags(argv, place or 0, verb.flags, found, first=not number)
        if place is None:
            return None
        if place == len(argv):
            break
        words.append(argv[place])
        place += 1
        if len(verb.operands) > len(words) and verb.operands[len(words)].nargs == "...":
            words += argv[place:]
            break
    return _operands(verb, words, found)


def _flags(
    argv: list[str], at: int, known: tuple[Flag, ...], found: dict[str, Any], *, first: bool = True
) -> int | None:
    """Read flags from `at` on; the place of the first word that is none. None: not plainly written."""
    if first:
        found.update({flag.field: flag.start for flag in known})
    while at < len(argv) and argv[at].startswith("-"):
        name, equals, value = argv[at].partition("=")
        flag = next((one for one in known if name in one.names), None)
        if flag is None or (equals and (flag.kind == "switch" or not name.startswith("--"))):
            return None
        at += 1
        if flag.kind == "switch":
            found[flag.field] = True
            continue
        if not equals:
            if at == len(argv) or (argv[at].startswith("-") and argv[at] != "-"):
                return None
            value = argv[at]
            at += 1
        if (flag.choices and value not in flag.choices) or (TYPES[flag.kind] is int and not _plain(value)):
            return None
        typed = TYPES[flag.kind](value)
        found[flag.field] = [*found[flag.field], typed] if flag.kind in LISTS else typed
    return at


def _plain(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _operands(verb: Verb, words: list[str], found: dict[str, Any]) -> Given | None:
    for operand in verb.operands:
        if operand.nargs == "...":
            found[operand.field], words = words, []
        elif words:
            found[operand.field], words = words[0], words[1:]
        elif operand.nargs == "?":
            found[operand.field] = operand.default
        else:
            return None
    return None if words else Given(**found)


def parser() -> argparse.ArgumentParser:
    """The same table for argparse."""
    import argparse

    from labkit.runtime.document.template import VERSION

    top = argparse.ArgumentParser(prog=PROGRAM, description="run containers from OCI bundles")
    _add(top, GLOBAL)
    top.add_argument("-v", "--version", action="version", version=f"{PROGRAM}\nspec: {VERSION}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for verb in VERBS:
        made = verbs.add_parser(verb.name, help=verb.help, description=verb.help)
        for operand in verb.operands:
            made.add_argument(operand.field, metavar=operand.metavar, nargs=operand.nargs, default=operand.default)
        _add(made, verb.flags)
    return top


def _add(parser: argparse.ArgumentParser, flags: tuple[Flag, ...]) -> None:
    for flag in flags:
        more: dict[str, Any] = {"dest": flag.field, "help": flag.help or None, "default": flag.start}
        if flag.kind == "switch":
            more["action"] = "store_true"
        else:
            more |= {"type": TYPES[flag.kind], "metavar": flag.metavar, "choices": flag.choices or None}
            if flag.kind in LISTS:
                more["action"] = "append"
        parser.add_argument(*flag.names, **more)
