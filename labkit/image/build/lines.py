r"""Floor 2: the text of a Dockerfile into its logical lines.

Owns: parser directives (# escape=, # syntax=), comments, lines that go on (\), and here-documents.
What the words of a line mean is labkit.image.build.dockerfile's.

Read: Docker's "Dockerfile reference": Format, Parser directives, Here-documents.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from labkit.errors import BadInput, LabError
from labkit.image.build.problems import Place, at
from labkit.image.build.words import raw_words

DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
KNOWN = ("escape", "syntax", "check")
HEREDOC = re.compile(r"(?:[0-9]*)<<(-?)([^<]+)")
TAKES_HEREDOCS = re.compile(r"\s*(?:ONBUILD\s+)?(?:RUN|COPY|ADD)\s", re.IGNORECASE)
# Another grammar would be a program out of an image; these two are the grammar that is read here.
SYNTAX = re.compile(r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?::[A-Za-z0-9_.-]+)?(?:@sha256:[0-9a-f]{64})?")


class Heredoc(NamedTuple):
    """A file that stands in the Dockerfile itself; data is what it holds, tabs taken off for <<-."""

    name: str
    expand: bool  # variables are replaced in it; not when the name was quoted
    chomp: bool  # written with <<-
    raw: str  # as it stands there

    @property
    def data(self) -> str:
        """What the file holds."""
        return re.sub(r"(?m)^\t+", "", self.raw) if self.chomp else self.raw


class Line(NamedTuple):
    """One instruction as text: physical lines joined, comments out."""

    text: str
    heredocs: tuple[Heredoc, ...]
    place: Place


class Text(NamedTuple):
    """A whole Dockerfile."""

    file: str
    escape: str
    lines: list[Line]


def read(data: bytes, file: str) -> Text:
    """The logical lines. Raises BadInput for text that is none, a false directive, an endless here-document."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_text(data, error.start, file, f"{error.reason}, in UTF-8") from error
    if b"\0" in data:
        raise _no_text(data, data.index(b"\0"), file, "a byte 0 is in it")
    physical = text.split("\n")
    escape, at_line = _directives(physical, file)
    return Text(file, escape, _Lines(physical, file, escape, at_line).read())


def _no_text(data: bytes, position: int, file: str, why: str) -> LabError:
    number = data[:position].count(b"\n") + 1
    line = data.split(b"\n")[number - 1].decode("utf-8", "replace").replace("\0", "?")
    return at(Place(file, number, number, line), "this is no text", why=why, next="write it as UTF-8")


def _directives(physical: list[str], file: str) -> tuple[str, int]:
    """(the escape character, the index of the first line behind the directives)."""
    found: dict[str, str] = {}
    number = 0
    for number, line in enumerate(physical):
        match = DIRECTIVE.fullmatch(line.strip())
        if match is None or match[1].lower() not in KNOWN:
            break
        name, value, place = match[1].lower(), match[2], Place(file, number + 1, number + 1, line)
        if name in found:
            raise at(place, f"the directive {name} stands here twice", next="take one of them out")
        if name == "escape" and value not in ("\\", "`"):
            raise at(place, f"{value!r} cannot be the escape character", why=r"it is \ or `")
        if name == "syntax" and not SYNTAX.fullmatch(value):
            raise at(place, f"the syntax {value} is not known here",
                     why="it names an image with another reader for this file; labkit reads docker/dockerfile's own",
                     next="take the line out, or # syntax=docker/dockerfile:1")  # fmt: skip
        found[name] = value
    return found.get("escape", "\\"), number


class _Lines:
    """A walk over the physical lines."""

    def __init__(self, physical: list[str], file: str, escape: str, start: int) -> None:
        self.physical = physical
        self.file = file
        self.next = start
        self.escape = escape
        mark = re.escape(escape)
        # An escaped escape character at the end of a line is itself, and the line ends there.
        self.goes_on = re.compile(rf"(?:^|[^{mark}]){mark}[ \t]*$")

    def read(self) -> list[Line]:
        found = []
        while self.next < len(self.physical):
            first = self.next
            line = self._take().lstrip()
            if not line.strip() or line.startswith("#"):
                continue
            joined, more = self._cut(line)
            while more and self.next < len(self.physical):
                following = self._take()
                if not following.strip() or following.lstrip().startswith("#"):
                    continue
                part, more = self._cut(following)
                joined += part
            last = self.next
            heredocs = self._heredocs(joined, first)
            place = Place(self.file, first + 1, self.next, "\n".join(self.physical[first:last]).rstrip("\r\n"))
            if joined.strip():
                found.append(Line(joined.rstrip(), heredocs, place))
        return found

    def _take(self) -> str:
        self.next += 1
        return self.physical[self.next - 1].rstrip("\r")

    def _cut(self, line: str) -> tuple[str, bool]:
        """The line without its continuation mark, and whether it goes on."""
        if self.goes_on.search(line) is None:
            return line, False
        return line.rstrip(" \t")[:-1], True

    def _heredocs(self, line: str, first: int) -> tuple[Heredoc, ...]:
        if "<<" not in line or TAKES_HEREDOCS.match(line) is None:
            return ()
        found = []
        for word in raw_words(line):  # with \\, whatever # escape= says: so does BuildKit (parser.go, heredocsFromLine)
            match = HEREDOC.fullmatch(word)
            if match is None:
                continue
            name = re.sub(r"[\"'\\]", "", match[2])
            if name:
                found.append(self._heredoc(name, name == match[2], bool(match[1]), first))
        return tuple(found)

    def _heredoc(self, name: str, expand: bool, chomp: bool, first: int) -> Heredoc:
        start = self.next
        while self.next < len(self.physical):
            line = self._take()
            if (line.lstrip("\t") if chomp else line) == name:
                raw = "".join(f"{each}\n" for each in self.physical[start : self.next - 1])
                return Heredoc(name, expand, chomp, raw)
        place = Place(self.file, first + 1, first + 1, self.physical[first])
        raise at(place, f"the here-document {name} has no end", why=f"no later line is {name} and nothing else",
                 next=f"a line that holds {name} alone", kind=BadInput)  # fmt: skip
