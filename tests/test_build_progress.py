"""How a build is told: BuildKit's lines, a terminal's redrawing, and a program's JSON."""

from __future__ import annotations

import io
import json
import re

from labkit.image.build import progress


def played(form: str) -> str:
    """A build of two steps, told in that form."""
    stream = io.StringIO()
    told = progress.FORMS[form](stream)
    told.end(told.begin("[1/2] FROM base"), cached=True)
    number = told.begin("[2/2] RUN x")
    told.output(number, b"one\ntw")
    told.output(number, b"o\n\xff last")
    told.end(number)
    number = told.begin("exporting to image")
    told.end(number, failed="no layer")
    return stream.getvalue()


def test_plain_lines_are_buildkits() -> None:
    """#N title, #N seconds text, #N DONE or CACHED or ERROR; whole lines, also when they come in pieces."""
    lines = [re.sub(r"\d+\.\d+", "T", line) for line in played("plain").splitlines()]
    assert lines == [
        *("#1 [1/2] FROM base", "#1 CACHED", ""),
        *("#2 [2/2] RUN x", "#2 T one", "#2 T two", "#2 T \ufffd last", "#2 DONE Ts", ""),
        *("#3 exporting to image", "#3 ERROR: no layer", ""),
    ]


def test_a_terminal_keeps_a_line_a_step() -> None:
    """What stays on the screen, once its control codes are obeyed."""
    screen: list[str] = []
    for line in played("tty").split("\n")[:-1]:
        while match := re.match(r"\x1b\[(\d+)A\r\x1b\[J", line):
            del screen[len(screen) - int(match[1]) :]
            line = line[match.end() :]
        screen.append(re.sub(r" +\d+\.\d+s$", "", line))
    assert screen == [" => CACHED [1/2] FROM base", " => [2/2] RUN x", " => ERROR exporting to image"]


def test_json_is_for_programs() -> None:
    """An object a line: begin, output, end, by number."""
    events = [json.loads(line) for line in played("rawjson").splitlines()]
    assert [next(iter(each.items())) for each in events] == [
        *(("begin", 1), ("end", 1), ("begin", 2), ("output", 2), ("output", 2), ("end", 2), ("begin", 3), ("end", 3)),
    ]
    assert events[1]["cached"] and events[-1]["failed"] == "no layer"


def test_quiet_says_nothing() -> None:
    """And auto is plain where there is no terminal."""
    assert played("quiet") == ""
    assert type(progress.make("auto", io.StringIO())) is progress.Plain
