"""Floor 3: what the types of config.json cannot say: the document's sense.

Owns: the rules for the version, the root, the process, the mounts and the hooks, and what is
passed over with a warning.  labkit.runtime.document.rules_linux has the rest.

A rule reads the document and the machine, and changes nothing.  What only the kernel can
know (is there such a program, does this file system mount) is left to it.

Read: the OCI runtime specification, config.md.
"""

from __future__ import annotations

from labkit.kernel import capabilities
from labkit.lean import TYPE_CHECKING
from labkit.runtime.document import rules_linux
from labkit.runtime.document.fields import CAPABILITY_SETS, HOOK_KINDS
from labkit.runtime.document.shapes import wrong

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Config = dict[str, Any]

SUFFIX = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-")  # of a version, after - or +
NOBODY = 2**32 - 1
RANGES = {"scheduler.nice": (-20, 19), "ioPriority.priority": (0, 7)}  # sched(7), ioprio_set(2)
SPOKEN = 1  # the major version of the specification that this runtime speaks
IDMAP = {"idmap", "ridmap"}


def check(config: Config) -> None:
    """Raise BadInput for the first rule that a document of the right types breaks."""
    for rule in RULES:
        rule(config)
    rules_linux.check(config)


def version(config: Config) -> None:
    """ociVersion is a version as semver.org has it, of a major version that this runtime speaks."""
    given = config["ociVersion"]
    rest, plus, build = given.partition("+")
    core, minus, before = rest.partition("-")
    numbers = core.split(".")
    plain = len(numbers) == 3 and all(one.isascii() and one.isdecimal() for one in numbers)
    plain = plain and not any(one.startswith("0") and one != "0" for one in numbers)
    if not plain or (plus and not build) or (minus and not before) or not SUFFIX.issuperset(before + build):
        wrong("ociVersion", f"is no version: {given!r}", "it has three numbers, as 1.2.1 has")
    if numbers[0] != str(SPOKEN):
        wrong("ociVersion", f"is {given}, and this runtime speaks {SPOKEN}.x",
              "another major version may mean something else by the same words")  # fmt: skip


def root(config: Config) -> None:
    """There is a root, and its path is one."""
    if "root" not in config:
        wrong(
            "root", "is missing", "a container on Linux has a root file system of its own", 'root: {"path": "rootfs"}'
        )
    _is_path(config["root"]["path"], "root.path")


def process(config: Config) -> None:
    """What is to run, where, with which variables and limits; a bundle that is only created may have no process."""
    if (wanted := config.get("process")) is not None:
        check_process(wanted)


def check_process(wanted: dict[str, Any], place: str = "process") -> None:
    """The rules for one process, of a container or of `exec`, whose object stands at `place`. Raises BadInput."""
    if not wanted.get("args"):
        wrong(f"{place}.args", "is empty", "it holds the program and what it is told", f'{place}.args: ["sh"]')
    if not wanted["cwd"].startswith("/"):
        wrong(f"{place}.cwd", f"is not absolute: {wanted['cwd']!r}", "there is no folder yet that it could begin in")
    user = wanted.get("user", {})
    for field, one in (("uid", user.get("uid")), ("gid", user.get("gid")),
                       *(("additionalGids", one) for one in user.get("additionalGids", ()))):  # fmt: skip
        if one == NOBODY:
            wrong(f"{place}.user.{field}", f"is {NOBODY}", "to the kernel that number means: leave it as it is")
    for field, (low, high) in RANGES.items():
        outer, _, inner = field.partition(".")
        if not low <= wanted.get(outer, {}).get(inner, low) <= high:
            wrong(f"{place}.{field}", f"is {wanted[outer][inner]}", f"it goes from {low} to {high}")
    for when in ("initial", "final"):
        _processors(wanted.get("execCPUAffinity", {}).get(when, ""), f"{place}.execCPUAffinity.{when}")
    seen: set[str] = set()
    for number, limit in enumerate(wanted.get("rlimits", ())):
        here = f"{place}.rlimits[{number}]"
        if limit["type"] in seen:
            wrong(here, f"is the second {limit['type']}", "the specification wants each once")
        seen.add(limit["type"])
        if limit["soft"] > limit["hard"]:
            wrong(here, f"has a soft limit of {limit['soft']} above the hard one of {limit['hard']}",
                  "prlimit(2) refuses that")  # fmt: skip
    if "consoleSize" in wanted and wanted.get("terminal"):
        for side in ("height", "width"):
            if wanted["consoleSize"][side] > 0xFFFF:
                wrong(
                    f"{place}.consoleSize.{side}", "is above 65535", "ioctl_tty(2): struct winsize has 16 bits for it"
                )


def mounts(config: Config) -> None:
    """A mount has somewhere to go, and one with mapped numbers has the mappings."""
    for number, mount in enumerate(config.get("mounts", ())):
        here = f"mounts[{number}]"
        _is_path(mount["destination"], f"{here}.destination")
        asked = IDMAP & set(mount.get("options", ()))
        given = [name for name in ("uidMappings", "gidMappings") if mount.get(name)]
        if len(given) == 1:
            wrong(f"{here}.{given[0]}", "stands alone", "mount_setattr(2) maps users and groups, or neither")
        if asked and not given and not _mapped(config):
            wrong(f"{here}.options", f"has {asked.pop()}, and there are no mappings",
                  "neither the mount nor linux.uidMappings says how")  # fmt: skip
        for name in given:
            rules_linux.check_mapping(mount[name], f"{here}.{name}")


def hooks(config: Config) -> None:
    """A hook's program is named by its whole path: PATH is nobody's here."""
    for kind in HOOK_KINDS:
        for number, hook in enumerate(config.get("hooks", {}).get(kind, ())):
            if not hook["path"].startswith("/"):
                wrong(f"hooks.{kind}[{number}].path", f"is not absolute: {hook['path']!r}",
                      "the specification wants the whole path")  # fmt: skip


def annotated(config: Config) -> None:
    """An annotation has a name."""
    if "" in config.get("annotations", {}):
        wrong("annotations", "has one without a name", "the specification: keys MUST NOT be empty")


RULES = (version, root, process, mounts, hooks, annotated)


def warnings(config: Config) -> Iterator[str]:
    """What is passed over although somebody may have meant it."""
    for number, mount in enumerate(config.get("mounts", ())):
        if not mount["destination"].startswith("/"):
            yield f"mounts[{number}].destination {mount['destination']!r} is not absolute: taken from /"
    listed = config.get("process", {}).get("capabilities", {})
    unknown = {name for kind in CAPABILITY_SETS for name in listed.get(kind, ()) if name not in capabilities.NUMBERS}
    if unknown:
        # config.md: "Any value which cannot be mapped to a relevant kernel interface ... MUST be logged as a warning".
        yield f"process.capabilities: no such capability, passed over: {', '.join(sorted(unknown))}"
    yield from rules_linux.warnings(config)


def _processors(text: str, place: str) -> None:
    """The numbers of a list go up: 0-3, and not 3-0; an empty one says nothing."""
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            wrong(place, f"is no list of processors: {text!r}", "such a list is 0-3,7")
        if dash and int(first) > int(last):
            wrong(place, f"goes down: {part!r}", "the smaller number stands first")


def _is_path(text: str, place: str) -> None:
    if not text or "\0" in text:
        wrong(place, "holds a NUL" if text else "is empty", "the kernel takes no such path")


def _mapped(config: Config) -> bool:
    return bool(config.get("linux", {}).get("uidMappings"))
