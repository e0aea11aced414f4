"""Floor 3: the maker's part of `process`: all that can be worked out before there is a child.

Owns: turning the words of config.json into numbers, masks and a compiled filter.  A word that
cannot be understood is said here, while there is nothing to give back; and the child, which
cannot import anything any more, finds all that it needs in one record.

Read: the OCI runtime specification, config.md, "Process"; getrlimit(2); capabilities(7).
"""

from __future__ import annotations

from labkit.errors import BadInput
from labkit.kernel import capabilities, limits
from labkit.lean import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

CAPABILITY_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


class Limit(Record):
    """One resource limit as prlimit64(2) takes it; `limits.UNLIMITED` is none."""

    name: str
    number: int
    soft: int
    hard: int


class Filter(Record):
    """A compiled seccomp program."""

    program: bytes  # an array of struct sock_filter
    flags: int
    listens: bool
    by_number: bool  # sendmsg(2) itself waits for an answer: the listener cannot be sent
    listener: str  # the socket that the listener's descriptor goes to
    metadata: str


class Ready(Record):
    """What the child needs to become the program."""

    process: dict[str, Any]  # config.json's own object
    environment: dict[str, str]
    limits: tuple[Limit, ...]
    capabilities: dict[str, list[str]]  # the five sets
    highest: int  # the last capability that this kernel has
    filter: Filter | None
    personality: str
    warnings: tuple[str, ...] = ()  # what was taken out, and is to be told


def ready(config: Mapping[str, Any], cache: str | None = None) -> Ready:
    """Understand a checked document's `process`, and what of `linux` goes with it.

    cache -- a folder of the runtime's own, where compiled seccomp programs are kept (made if missing).

    Everything that the child imports later is imported here: it may stand in another root then.
    Raises BadInput for a word that this machine does not know.
    """
    wanted = config["process"]
    linux = config.get("linux", {})
    if "scheduler" in wanted or "ioPriority" in wanted or "execCPUAffinity" in wanted:
        from labkit.kernel import schedule

        for when in ("initial", "final"):
            if text := wanted.get("execCPUAffinity", {}).get(when):
                schedule.processors(text)
    variables = environment(wanted.get("env", ()))
    for number, text in enumerate(wanted["args"]):
        _encoded(text, f"process.args[{number}]")
    highest = capabilities.last()
    granted = _sets(wanted.get("capabilities", {}), *_grantable(linux, highest))
    return Ready(
        process=wanted,
        environment=variables,
        limits=tuple(_limit(one) for one in wanted.get("rlimits", ())),
        # Without the object a process has none (as with runc): nobody gets root's powers by leaving out a line.
        capabilities=granted,
        highest=highest,
        filter=_filter(linux["seccomp"], cache) if "seccomp" in linux else None,
        personality=linux.get("personality", {}).get("domain", ""),
        warnings=_lacking(wanted.get("capabilities", {}), granted),
    )


def environment(listed: Sequence[str]) -> dict[str, str]:
    """The variables by name; the last of several wins. Raises BadInput for an item without a name or without =."""
    found: dict[str, str] = {}
    for number, item in enumerate(listed):
        name, equals, value = item.partition("=")
        if not name or not equals:
            why = "the name is empty" if equals else "it has no ="
            raise BadInput(f"process.env[{number}]: {item!r} is no variable", why=why, next="NAME=value", status=1)
        _encoded(item, f"process.env[{number}]")
        found[name] = value
    return found


def handed_over(environ: Mapping[str, str], pid: int, preserve: int = 0) -> tuple[int, dict[str, str]]:
    """How many descriptors from 3 on go through to the program, and the variables that tell it so.

    environ, pid -- this runtime's own: sockets that systemd opened for it (sd_listen_fds(3)) go to the
    container's process 1, and --preserve-fds counts on behind them.  Raises BadInput.
    """
    text = environ.get("LISTEN_FDS", "")
    if not text or environ.get("LISTEN_PID") != str(pid):
        return preserve, {}
    if not text.isdecimal():
        raise BadInput(f"LISTEN_FDS={text} is no number", why="it says how many sockets were opened beforehand",
                       next="unset LISTEN_FDS", status=1)  # fmt: skip
    return int(text) + preserve, {"LISTEN_FDS": text, "LISTEN_PID": "1"}


def _encoded(text: str, place: str) -> None:
    """JSON can write half of a surrogate pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{place}: {text!r} cannot be written as UTF-8", status=1,
                       next="correct the \\u escape in config.json") from None  # fmt: skip


def _limit(one: Mapping[str, Any]) -> Limit:
    number = limits.NUMBERS.get(one["type"])
    if number is None:
        raise BadInput(f"process.rlimits: Linux has no {one['type']}", next="man 2 getrlimit lists them", status=1)
    return Limit(one["type"], number, one["soft"], one["hard"])


def _grantable(linux: Mapping[str, Any], highest: int) -> tuple[int, int]:
    """The masks of what the bounding set may get here, and the other sets.

    In a user namespace, new or joined, a process begins with all that the kernel has (user_namespaces(7)).
    """
    if any(one["type"] == "user" for one in linux.get("namespaces", ())):
        return (2 << highest) - 1, (2 << highest) - 1
    return capabilities.within_reach()


def _sets(given: Mapping[str, list[str]], bounding: int, others: int) -> dict[str, list[str]]:
    """The five sets, without what nobody can grant here: config.md wants a warning (`_lacking`), and no failure."""
    return {
        kind: [name for name in given.get(kind, ()) if _within(name, bounding if kind == "bounding" else others)]
        for kind in CAPABILITY_SETS
    }


def _within(name: str, mask: int) -> bool:
    return name in capabilities.NUMBERS and bool(mask >> capabilities.NUMBERS[name] & 1)


def _lacking(given: Mapping[str, list[str]], granted: Mapping[str, list[str]]) -> tuple[str, ...]:
    """What is told of those taken out; of names that no kernel has, document.read.warnings has told."""
    left = {name for kind, names in granted.items() for name in set(given.get(kind, ())) - set(names)}
    if not (left := left & capabilities.NUMBERS.keys()):
        return ()
    return ("process.capabilities: cannot be granted here, passed over, since this process or this kernel has none "
            f"such: {', '.join(sorted(left))}",)  # fmt: skip


def _filter(given: dict[str, Any], cache: str | None) -> Filter:
    """The filter, from the cache or compiled now. Raises BadInput."""
    import labkit.kernel.seccomp.load  # noqa: F401  the child will need it

    path, metadata = given.get("listenerPath", ""), given.get("listenerMetadata", "")
    if cache is not None:
        from labkit.runtime.become import compiled

        key = compiled.head(given)
        if (kept := compiled.find(cache, key)) is not None:
            said, program = kept
            return Filter(program, said["flags"], said["listens"], said["by_number"], path, metadata)
    from labkit.kernel import constants as C
    from labkit.kernel.seccomp import classic, compiler, profile

    understood = profile.parse(given)
    if understood.notifies and not path:
        raise BadInput("linux.seccomp passes calls on, and names no listenerPath", status=1,
                       why="each such call would wait for an answer for ever")  # fmt: skip
    program = classic.pack(compiler.compile(understood))
    by_number = any("sendmsg" in rule.names and rule.action == C.SECCOMP_RET_USER_NOTIF for rule in understood.rules)
    if cache is not None:
        said = {"flags": understood.flags, "listens": understood.notifies, "by_number": by_number}
        compiled.keep(cache, key, said, program)
    return Filter(program, understood.flags, understood.notifies, by_number, path, metadata)
