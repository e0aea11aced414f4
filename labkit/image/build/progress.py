"""Floor 2: how a build is told, in the words that BuildKit uses: "#5 [build 2/4] RUN ...", "#5 DONE 0.3s".

Owns: the forms plain, tty, rawjson and quiet.

Read: docker-build(1), --progress; console_codes(4).
"""

from __future__ import annotations

import json
import os
import time
from typing import IO, NamedTuple

from labkit.image.build.result import Progress, Step

LINES = 6  # of a running command's output, on a terminal


class _Running(NamedTuple):
    title: str
    began: float


class Quiet:
    """Nothing is said."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.running: dict[int, _Running] = {}
        self.count = 0

    def begin(self, title: str) -> int:
        """See Progress."""
        self.count += 1
        self.running[self.count] = _Running(title, time.monotonic())
        return self.count

    def output(self, number: int, data: bytes) -> None:
        """See Progress."""

    def end(self, number: int, *, cached: bool = False, failed: str = "", step: Step | None = None) -> None:
        """See Progress."""
        del self.running[number]

    def seconds(self, number: int) -> float:
        """Since it began."""
        return time.monotonic() - self.running[number].began


class Plain(Quiet):
    """A line for everything, one below the other."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self.rest: dict[int, bytes] = {}  # what has no line end yet

    def begin(self, title: str) -> int:
        """See Progress."""
        number = super().begin(title)
        self._say(f"#{number} {title}")
        return number

    def output(self, number: int, data: bytes) -> None:
        """See Progress; with the seconds since the command began, as BuildKit has it."""
        *lines, self.rest[number] = (self.rest.get(number, b"") + data).split(b"\n")
        for line in lines:
            self._line(number, line)

    def _line(self, number: int, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
        self._say(f"#{number} {self.seconds(number):.3f} {text}")

    def end(self, number: int, *, cached: bool = False, failed: str = "", step: Step | None = None) -> None:
        """See Progress."""
        if rest := self.rest.pop(number, b""):
            self._line(number, rest)
        if failed:
            self._say(f"#{number} ERROR: {failed}\n")
        else:
            self._say(f"#{number} CACHED\n" if cached else f"#{number} DONE {self.seconds(number):.1f}s\n")
        super().end(number)

    def _say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


class RawJson(Quiet):
    """A JSON object a line, for programs: {"begin": 5, "title": ...}, {"output": 5, "text": ...}, {"end": 5, ...}."""

    def begin(self, title: str) -> int:
        """See Progress."""
        number = super().begin(title)
        self._say(begin=number, title=title)
        return number

    def output(self, number: int, data: bytes) -> None:
        """See Progress."""
        self._say(output=number, text=data.decode(errors="replace"))

    def end(self, number: int, *, cached: bool = False, failed: str = "", step: Step | None = None) -> None:
        """See Progress."""
        seconds = round(self.seconds(number), 4)
        self._say(end=number, cached=cached, failed=failed, seconds=seconds, step=step._asdict() if step else None)
        super().end(number)

    def _say(self, **fields: object) -> None:
        print(json.dumps(fields), file=self.stream, flush=True)


class Tty(Quiet):
    """On a terminal: a line a step, and below the one that runs the last lines of what it says, until it ends."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self.shown = 0  # lines that the next output takes the place of
        self.said: list[str] = []
        self.rest = b""

    def begin(self, title: str) -> int:
        """See Progress."""
        number = super().begin(title)
        self.said, self.rest = [], b""
        self._show(f" => {title}", number)
        return number

    def output(self, number: int, data: bytes) -> None:
        """See Progress."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.said = [*self.said, *(line.decode(errors="replace").rpartition("\r")[2] for line in lines)][-LINES:]
        self._show(f" => {self.running[number].title}", number)

    def end(self, number: int, *, cached: bool = False, failed: str = "", step: Step | None = None) -> None:
        """See Progress."""
        state = "CACHED " if cached else "ERROR " if failed else ""
        if not failed:
            self.said = []
        self._show(f" => {state}{self.running[number].title}", number)
        self.shown = 0
        super().end(number)

    def _show(self, line: str, number: int) -> None:
        try:
            width = max(20, os.get_terminal_size(self.stream.fileno()).columns or 80)  # 0: it does not know
        except OSError:
            width = 80
        time_ = f" {self.seconds(number):.1f}s"
        first = line[: width - len(time_)].ljust(width - len(time_)) + time_
        below = [f" => => # {text}"[:width] for text in self.said]
        back = f"\x1b[{self.shown}A\r\x1b[J" if self.shown else ""
        print(back + "\n".join([first, *below]), file=self.stream, flush=True)
        self.shown = 1 + len(below)


FORMS: dict[str, type[Quiet]] = {"plain": Plain, "tty": Tty, "quiet": Quiet, "rawjson": RawJson}


def make(form: str, stream: IO[str]) -> Progress:
    """auto is tty on a terminal, and else plain."""
    if form == "auto":
        form = "tty" if stream.isatty() else "plain"
    return FORMS[form](stream)
