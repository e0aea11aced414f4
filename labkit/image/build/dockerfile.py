"""Floor 2: a Dockerfile as stages of instructions, each checked for its form before anything is done.

Owns: which instructions there are, which options each takes, and what form its arguments have.  What
is not known, or not done here, is refused by its name and with its line.

Read: Docker's "Dockerfile reference", each instruction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from labkit.errors import Refused
from labkit.image.build import lines
from labkit.image.build.lines import Heredoc, Line
from labkit.image.build.problems import Place, at
from labkit.image.build.words import raw_words

Pair = tuple[str, str | None]  # a name and its value, which ARG may leave out

# What the arguments of an instruction look like.
FORMS = {
    "FROM": "words",
    "RUN": "command",
    "CMD": "command",
    "ENTRYPOINT": "command",
    "COPY": "list",
    "ADD": "list",
    "VOLUME": "list",
    "SHELL": "json",
    "ENV": "pairs",
    "LABEL": "pairs",
    "ARG": "pairs",
    "EXPOSE": "words",
    "WORKDIR": "text",
    "USER": "text",
    "STOPSIGNAL": "text",
    "MAINTAINER": "text",
    "HEALTHCHECK": "health",
    "ONBUILD": "text",
}
OPTIONS = {
    "FROM": {"platform"},
    "RUN": {"network"},
    "COPY": {"from", "chown", "chmod", "exclude"},
    "ADD": {"chown", "chmod", "exclude"},
    "HEALTHCHECK": {"interval", "timeout", "start-period", "start-interval", "retries"},
}
REPEATED = {"exclude"}
# Options that Docker's reader has and this one has not: what to do instead.
NOT_HERE = {
    "RUN --mount": "COPY what the command needs; what RUN leaves behind, it can remove in the same line",
    "RUN --security": "leave it out: commands run with Docker's default capabilities",
    "RUN --device": "leave it out",
    "COPY --link": "leave it out: the same files are copied, into the folder as it is",
    "COPY --parents": "name the folder at the destination too",
    "ADD --link": "leave it out: the same files are copied, into the folder as it is",
    "ADD --checksum": "fetch the file before the build, and COPY it",
    "ADD --keep-git-dir": "clone before the build, and COPY the folder",
    "ADD --unpack": "leave it out: an archive is unpacked by ADD, and kept by COPY",
}
NOT_IN_ONBUILD = ("FROM", "MAINTAINER", "ONBUILD")
WORDS = re.compile(r"\s*(\S+)\s*(.*)", re.DOTALL)
OPTION = re.compile(r"--([a-z-]+)(?:=(.*))?", re.DOTALL)
STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")


class Instruction(NamedTuple):
    """One instruction; words are as written, variables not yet replaced."""

    name: str
    args: tuple[str, ...]
    exec: bool  # the arguments are a JSON list
    pairs: tuple[Pair, ...]
    options: Mapping[str, tuple[str, ...]]
    heredocs: tuple[Heredoc, ...]
    place: Place
    text: str  # in one line, as progress shows it
    trigger: bool = False  # the base image's ONBUILD asked for it

    def option(self, name: str) -> str | None:
        """The value of --name=VALUE, the last one given."""
        return self.options[name][-1] if name in self.options else None


class Stage(NamedTuple):
    """One FROM and what follows it."""

    number: int  # from 0
    name: str  # in lower case; "" when it has none
    start: Instruction  # the FROM
    instructions: tuple[Instruction, ...]

    @property
    def label(self) -> str:
        """What to call it."""
        return self.name or f"stage-{self.number}"


class Dockerfile(NamedTuple):
    """The whole file."""

    file: str
    escape: str
    globals: tuple[Instruction, ...]  # the ARGs before the first FROM
    stages: tuple[Stage, ...]


def read(data: bytes, file: str = "Dockerfile") -> Dockerfile:
    """Raises BadInput, Refused, which point at the line."""
    text = lines.read(data, file)
    found = [instruction(line, text.escape) for line in text.lines]
    if not found:
        raise at(Place(file, 1, 1, ""), "there is no instruction in it", next="it begins with FROM")
    before: list[Instruction] = []
    stages: list[Stage] = []
    inside: list[Instruction] = []
    for each in found:
        if each.name == "FROM":
            if stages:
                stages[-1] = stages[-1]._replace(instructions=tuple(inside))
            stages.append(_stage(each, stages))
            inside = []
        elif stages:
            inside.append(each)
        elif each.name == "ARG":
            before.append(each)
        else:
            raise at(each.place, f"{each.name} stands before the first FROM", why="a stage begins with FROM",
                     next="FROM IMAGE, or FROM scratch; ARG alone may stand before it")  # fmt: skip
    if not stages:
        raise at(before[-1].place, "there is no FROM", why="a stage begins with it", next="FROM IMAGE, or FROM scratch")
    stages[-1] = stages[-1]._replace(instructions=tuple(inside))
    return Dockerfile(file, text.escape, tuple(before), tuple(stages))


def _stage(start: Instruction, earlier: list[Stage]) -> Stage:
    words = start.args
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise at(start.place, "FROM takes an image, and perhaps AS and a name", next="FROM IMAGE AS NAME")
    name = words[2].lower() if len(words) == 3 else ""
    if name and not STAGE_NAME.fullmatch(name):
        raise at(start.place, f"{words[2]!r} cannot be a stage's name",
                 why="a letter, then letters, digits, - _ or .")  # fmt: skip
    for other in earlier:
        if name and other.name == name:
            raise at(start.place, f"a second stage is called {name}",
                     why=f"the first stands in line {other.start.place.first}", next="another name")  # fmt: skip
    return Stage(len(earlier), name, start, ())


def triggers(texts: list[str], stage: Stage, image: str) -> tuple[Instruction, ...]:
    """What the ONBUILD lines of an image ask a stage that begins with it to do; they stand at its FROM."""
    found = []
    for text in texts:
        read_ = lines.read(text.encode(), f"ONBUILD of {image}")
        for line in read_.lines:
            each = instruction(line, read_.escape)
            found.append(each._replace(place=stage.start.place, trigger=True))
    return tuple(found)


def instruction(line: Line, escape: str) -> Instruction:
    """One logical line. Raises BadInput, Refused."""
    name, rest = WORDS.match(line.text).groups()  # type: ignore[union-attr]  # a logical line is never empty
    name = name.upper()
    if name not in FORMS:
        raise at(line.place, f"there is no instruction {name}", why=f"these are: {', '.join(FORMS)}",
                 next=_resembling(name))  # fmt: skip
    options, rest = _options(name, rest, line.place)
    if not rest:
        raise at(line.place, f"{name} needs an argument", next=EXAMPLES[name])
    args, is_exec, pairs = _arguments(name, rest, escape, line)
    text = " ".join(filter(None, (name, *_shown(options), " ".join(rest.split("\n")))))
    return Instruction(name, args, is_exec, pairs, options, line.heredocs, line.place, text)


def _shown(options: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [f"--{name}={value}" for name, values in options.items() for value in values]


EXAMPLES = {
    "FROM": "FROM debian:12",
    "RUN": "RUN make install",
    "CMD": 'CMD ["program", "argument"]',
    "ENTRYPOINT": 'ENTRYPOINT ["program"]',
    "COPY": "COPY SOURCE DESTINATION",
    "ADD": "ADD SOURCE DESTINATION",
    "VOLUME": "VOLUME /data",
    "SHELL": 'SHELL ["/bin/bash", "-c"]',
    "ENV": "ENV NAME=value",
    "LABEL": "LABEL name=value",
    "ARG": "ARG NAME=default",
    "EXPOSE": "EXPOSE 80/tcp",
    "WORKDIR": "WORKDIR /app",
    "USER": "USER nobody",
    "STOPSIGNAL": "STOPSIGNAL SIGQUIT",
    "MAINTAINER": "LABEL maintainer=name",
    "HEALTHCHECK": 'HEALTHCHECK CMD ["program"], or HEALTHCHECK NONE',
    "ONBUILD": "ONBUILD COPY . /app",
}


def _resembling(name: str) -> str:
    import difflib  # only for a mistake

    found = difflib.get_close_matches(name, FORMS, 1)
    return f"perhaps {found[0]} is meant" if found else "a line that goes on ends with the escape character"


def _options(name: str, rest: str, place: Place) -> tuple[dict[str, tuple[str, ...]], str]:
    """The --name=value words in front, and what follows them."""
    found: dict[str, tuple[str, ...]] = {}
    while rest.startswith("--"):
        word = raw_words(rest)[0]  # with \\, whatever # escape= says: so does BuildKit (extractBuilderFlags)
        rest = rest[len(word) :].lstrip()
        if word == "--":
            break
        match = OPTION.fullmatch(word)
        option, value = (match[1], match[2]) if match else (word[2:], None)
        if option not in OPTIONS.get(name, ()):
            if (way := NOT_HERE.get(f"{name} --{option}")) is not None:
                raise at(place, f"{name} --{option} is not done here", next=way, kind=Refused)
            known = ", ".join(f"--{each}" for each in sorted(OPTIONS.get(name, ()))) or "none"
            raise at(place, f"{name} has no option --{option}", why=f"it takes {known}")
        if not value:
            raise at(place, f"{name} --{option} needs a value", next=f"{name} --{option}=VALUE")
        if option in found and option not in REPEATED:
            raise at(place, f"{name} --{option} is given twice", next="one of the two")
        found[option] = (*found.get(option, ()), value)
    return found, rest


def _arguments(name: str, rest: str, escape: str, line: Line) -> tuple[tuple[str, ...], bool, tuple[Pair, ...]]:
    """(arguments, whether they came as a JSON list, pairs)."""
    form, place = FORMS[name], line.place
    if form == "pairs":
        return (), False, _pairs(name, rest, escape, place)
    if form == "words":
        return tuple(rest.split()), False, ()
    if form == "text":
        if name == "ONBUILD":
            _check_trigger(rest, escape, line)
        return (rest,), False, ()
    if form == "health":
        return _health(rest, place)
    if (listed := _json(rest)) is not None:
        if not listed or (name in ("COPY", "ADD") and len(listed) < 2):
            raise at(place, f"{name} needs more than {rest}", next=EXAMPLES[name])
        return listed, True, ()
    if form == "json":
        raise at(place, f"{name} takes a JSON list of words", next=EXAMPLES[name])
    if form == "command":
        return (rest,), False, ()
    words = tuple(rest.split())
    if name in ("COPY", "ADD") and len(words) < 2:
        raise at(place, f"{name} needs a source and a destination", next=EXAMPLES[name])
    return words, False, ()


def _json(text: str) -> tuple[str, ...] | None:
    """A JSON list of texts, or None: then it is a shell's line, as with Docker."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(found) if isinstance(found, list) and all(isinstance(word, str) for word in found) else None


def _pairs(name: str, rest: str, escape: str, place: Place) -> tuple[Pair, ...]:
    words = raw_words(rest, escape)
    if name == "ARG":
        found = [(word.partition("=")[0], word.partition("=")[2] if "=" in word else None) for word in words]
    elif "=" not in words[0]:  # the old form: one name, and all that follows
        parts = rest.split(None, 1)
        if len(parts) < 2:
            raise at(place, f"{name} {rest} has no value", next=EXAMPLES[name])
        found = [(parts[0], parts[1])]
    else:
        for word in words:
            if "=" not in word:
                raise at(place, f"{word!r} is no name=value", why="white space parts them", next='quote it: NAME="a b"')
        found = [(word.partition("=")[0], word.partition("=")[2]) for word in words]
    for key, _ in found:
        if not key:
            raise at(place, f"a name is missing before the = of {name}", next=EXAMPLES[name])
    return tuple(found)


def _health(rest: str, place: Place) -> tuple[tuple[str, ...], bool, tuple[Pair, ...]]:
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE" and not command.strip():
        return ("NONE",), False, ()
    if kind.upper() != "CMD" or not command.strip():
        raise at(place, "HEALTHCHECK takes CMD and a command, or NONE", next=EXAMPLES["HEALTHCHECK"])
    listed = _json(command.strip())
    return ("CMD", *(listed or (command.strip(),))), listed is not None, ()


def _check_trigger(rest: str, escape: str, line: Line) -> None:
    """What an ONBUILD keeps must be an instruction that may stand there."""
    name = rest.split()[0].upper()
    if name in NOT_IN_ONBUILD:
        raise at(line.place, f"ONBUILD {name} is not allowed", next="any other instruction")
    if line.heredocs:
        raise at(line.place, "ONBUILD with a here-document is not done here", next="COPY a file", kind=Refused)
    instruction(Line(rest, (), line.place), escape)
