"""Floor 2: the instructions that change no file: they end in the image's configuration, or in the next RUN.

Owns: one function an instruction, each returning the line that the history keeps; the variables that
the words of later instructions are expanded with.

Read: the OCI image specification, config; Docker's "Dockerfile reference".
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from collections.abc import Callable, Mapping
from typing import Any

from labkit.errors import BadInput
from labkit.image.build.dockerfile import Instruction
from labkit.image.build.words import expand, expand_words

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHELL = ("/bin/sh", "-c")
# ARGs that need no ARG: for RUN alone, and neither the history nor the cache knows them.
PROXIES = {
    name for each in ("http", "https", "ftp", "no", "all") for name in (f"{each}_proxy", f"{each}_PROXY".upper())
}
DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
NANOSECONDS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)


class Settings:
    """What a stage has set so far; `config` is the object of that name in an image's configuration."""

    def __init__(self, config: Mapping[str, Any], outer: Mapping[str, str], given: Mapping[str, str],
                 escape: str = "\\") -> None:  # fmt: skip
        self.config: dict[str, Any] = json.loads(json.dumps(dict(config)))
        self.config.pop("OnBuild", None)  # they have been run, and are not inherited further
        self.author: str | None = None
        self.outer = outer  # ARGs before the first FROM, and the platforms: a stage names those that it wants
        self.given = given  # --build-arg
        self.escape = escape
        self.variables = dict(item.partition("=")[::2] for item in self.config.get("Env") or [])
        self.args: dict[str, str] = {}  # named by ARG in this stage
        self.cmd_is_ours = False

    def copy(self) -> Settings:
        """For a stage that begins with this one."""
        twin = Settings(self.config, self.outer, self.given, self.escape)
        twin.author, twin.variables, twin.args = self.author, dict(self.variables), dict(self.args)
        return twin

    def word(self, text: str) -> str:
        """Variables replaced, quotes off. Raises BadInput."""
        return expand(text, self.variables, self.escape)

    def apply(self, one: Instruction) -> str:
        """Do what the instruction says; its line in the history, "" for none. Raises BadInput."""
        return APPLY[one.name](self, one)

    # --- what others ask -----------------------------------------------------------------

    @property
    def user(self) -> str:
        """USER, as it stands."""
        return str(self.config.get("User") or "")

    @property
    def workdir(self) -> str:
        """WORKDIR; the root when there is none."""
        return str(self.config.get("WorkingDir") or "/")

    def command(self, one: Instruction, words: tuple[str, ...]) -> list[str]:
        """The exec form as it is, the shell form behind SHELL."""
        return list(words) if one.exec else [*(self.config.get("Shell") or SHELL), " ".join(words)]

    def environment(self) -> dict[str, str]:
        """The variables of a RUN: ENV and ARG in their order, and the proxies that --build-arg gives."""
        proxies = {name: value for name, value in self.given.items() if name in PROXIES}
        return {**proxies, **self.variables}

    def path(self, text: str) -> str:
        """A path in the image, seen from WORKDIR; a slash at its end stays."""
        whole = posixpath.normpath(posixpath.join(self.workdir, text))
        whole = "/" + whole.lstrip("/")
        is_folder = text in ("", ".") or text.endswith(("/", "/."))
        return f"{whole}/" if is_folder and whole != "/" else whole

    def ran(self, words: list[str]) -> str:
        """The history's line of a RUN, with the ARGs that it saw."""
        args = [f"{name}={self.variables.get(name, '')}" for name in self.args]
        return " ".join(["RUN", *([f"|{len(args)}", *args] if args else []), *words])


# --- one function an instruction ----------------------------------------------------------


def _env(here: Settings, one: Instruction) -> str:
    pairs = [(here.word(key), here.word(value or "")) for key, value in one.pairs]  # all see what was before
    for key, value in pairs:
        entries = list(here.config.get("Env") or [])
        places = [place for place, item in enumerate(entries) if item.partition("=")[0] == key]
        if places:
            entries[places[0]] = f"{key}={value}"
        else:
            entries.append(f"{key}={value}")
        here.config["Env"] = entries
        here.variables[key] = value
    return "ENV " + " ".join(f"{key}={value}" for key, value in pairs)


def _arg(here: Settings, one: Instruction) -> str:
    said = []
    for key, default in one.pairs:
        value = here.given.get(key)
        if value is None:
            value = here.word(default) if default is not None else here.outer.get(key)
        if value is not None:
            here.variables[key] = value
        here.args[key] = here.variables.get(key, "")
        said.append(key if value is None else f"{key}={value}")
    return "ARG " + " ".join(said)


def _label(here: Settings, one: Instruction) -> str:
    pairs = {here.word(key): here.word(value or "") for key, value in one.pairs}
    here.config["Labels"] = {**(here.config.get("Labels") or {}), **pairs}
    return "LABEL " + " ".join(f"{key}={value}" for key, value in pairs.items())


def _workdir(here: Settings, one: Instruction) -> str:
    here.config["WorkingDir"] = here.path(here.word(one.args[0])).rstrip("/") or "/"
    return f"WORKDIR {here.config['WorkingDir']}"


def _user(here: Settings, one: Instruction) -> str:
    here.config["User"] = here.word(one.args[0])
    return f"USER {here.config['User']}"


def _expose(here: Settings, one: Instruction) -> str:
    ports = []
    for text in (word for each in one.args for word in expand_words(each, here.variables, here.escape)):
        match = PORT.fullmatch(text)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not match or not 0 < first <= last <= 65535:
            raise BadInput(f"{text!r} is no port", why="a port is 1 to 65535, perhaps with /udp",
                           next="EXPOSE 80, or EXPOSE 53/udp; labkit run -p publishes it")  # fmt: skip
        ports += [f"{number}/{(match[3] or 'tcp').lower()}" for number in range(first, last + 1)]
    here.config["ExposedPorts"] = {**(here.config.get("ExposedPorts") or {}), **{port: {} for port in ports}}
    return "EXPOSE " + " ".join(ports)


def _volume(here: Settings, one: Instruction) -> str:
    paths = [here.word(each) for each in one.args]
    if "" in paths:
        raise BadInput("VOLUME names no folder", why="a name is empty", next="VOLUME /data")
    here.config["Volumes"] = {**(here.config.get("Volumes") or {}), **{path: {} for path in paths}}
    return f"VOLUME [{' '.join(paths)}]"


def _cmd(here: Settings, one: Instruction) -> str:
    here.config["Cmd"] = here.command(one, one.args)
    here.cmd_is_ours = True
    return f"CMD {json.dumps(here.config['Cmd'], ensure_ascii=False)}"


def _entrypoint(here: Settings, one: Instruction) -> str:
    here.config["Entrypoint"] = here.command(one, one.args)
    if not here.cmd_is_ours:
        here.config.pop("Cmd", None)  # the base image's arguments were for its own program
    return f"ENTRYPOINT {json.dumps(here.config['Entrypoint'], ensure_ascii=False)}"


def _shell(here: Settings, one: Instruction) -> str:
    here.config["Shell"] = list(one.args)
    return f"SHELL [{' '.join(one.args)}]"


def _stopsignal(here: Settings, one: Instruction) -> str:
    name = here.word(one.args[0])
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    real_time = re.fullmatch(r"SIGRTM(?:IN|AX)(?:[+-][0-9]{1,2})?", full)
    number = int(name) if name.isdigit() else 0
    if not (real_time or full in signal.Signals.__members__ or 0 < number < 65):
        raise BadInput(f"there is no signal {name!r}", why="kill -l lists them", next="STOPSIGNAL SIGQUIT")
    here.config["StopSignal"] = name
    return f"STOPSIGNAL {name}"


def _maintainer(here: Settings, one: Instruction) -> str:
    here.author = one.args[0]
    return f"MAINTAINER {one.args[0]}"


def _healthcheck(here: Settings, one: Instruction) -> str:
    if one.args == ("NONE",):
        here.config["Healthcheck"] = {"Test": ["NONE"]}
        return "HEALTHCHECK NONE"
    check: dict[str, Any] = {"Test": ["CMD" if one.exec else "CMD-SHELL", *one.args[1:]]}
    for option, name in (("interval", "Interval"), ("timeout", "Timeout"), ("start-period", "StartPeriod"),
                         ("start-interval", "StartInterval")):  # fmt: skip
        if (text := one.option(option)) is not None:
            check[name] = _duration(text, option)
    if (retries := one.option("retries")) is not None:
        if not retries.isdigit():
            raise BadInput(f"--retries={retries} is no number", next="--retries=3")
        check["Retries"] = int(retries)
    here.config["Healthcheck"] = check
    return one.text


def _duration(text: str, option: str) -> int:
    """Nanoseconds of 1m30s, 500ms."""
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadInput(f"--{option}={text} is no duration", why="numbers with the units ms, s, m, h",
                       next=f"--{option}=30s")  # fmt: skip
    total = int(sum(float(number) * NANOSECONDS[unit] for number, unit in parts))
    if 0 < total < 1_000_000:
        raise BadInput(f"--{option}={text} is too short", why="a millisecond is the least", next=f"--{option}=1ms")
    return total


def _onbuild(here: Settings, one: Instruction) -> str:
    here.config["OnBuild"] = [*(here.config.get("OnBuild") or []), one.args[0]]
    return ""  # as with Docker


APPLY: dict[str, Callable[[Settings, Instruction], str]] = {
    "ENV": _env,
    "ARG": _arg,
    "LABEL": _label,
    "WORKDIR": _workdir,
    "USER": _user,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "MAINTAINER": _maintainer,
    "HEALTHCHECK": _healthcheck,
    "ONBUILD": _onbuild,
}
