"""Top floor: what a notebook calls: exercise("name").check(f), .hint(), .solution(), .load().

Owns: the words under the cell, and what is noted in the progress for each of them.

Read: labkit/lessons/judge.py for how an answer is judged.
"""

from __future__ import annotations

import textwrap
from typing import Any

from labkit.errors import LabError
from labkit.lessons import button, own, progress, source
from labkit.lessons.judge import judge
from labkit.lessons.outcome import NOT_ATTEMPTED, RIGHT, WRONG, Outcome
from labkit.lessons.task import Task, find

WIDTH = 100  # letters in a line of a cell's output


class Exercise:
    """One exercise, as a notebook's reader meets it."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __repr__(self) -> str:
        return f"{self.task.name}: {self.task.title} ({self.task.minutes} minutes, {self.task.kind})"

    def check(self, function: Any = None) -> None:
        """Judge the function (without one: the notebook's own of that name) and print what was seen."""
        shell = source.shell()
        if function is None and shell is not None:
            function = shell.user_ns.get(self.task.function)
        try:
            outcome = judge(self.task, function)
        except KeyboardInterrupt as stopped:
            stopped.__notes__ = ["interrupted: nothing was judged; all that your function had started was ended"]
            raise stopped.with_traceback(None)  # noqa: B904 -- the very same one, without the way through the check
        print(f"{self.task.name}: {outcome.state}")
        for line in outcome.message.splitlines():
            print(*_fitted(line), sep="\n")
        if outcome.printed:
            print("your function printed:", *outcome.printed.splitlines(), sep="\n  ")
        self._remember(outcome, function)
        if outcome.state in (NOT_ATTEMPTED, WRONG):
            print(f'a hint: exercise("{self.task.name}").hint()')
            button.offer(self.task)

    def _remember(self, outcome: Outcome, function: Any) -> None:
        if outcome.state == WRONG:
            progress.count(self.task.name, "attempts")
            with progress.change() as record:
                progress.exercise(record, self.task.name).setdefault("state", progress.TRIED)
        if outcome.state != RIGHT:
            return
        if source.file(function) == str(self.task.folder / "reference.py"):
            print("  this is labkit's answer; it is not kept as yours")
            return
        progress.note(self.task.name, state=progress.SOLVED)
        try:
            file = own.save(self.task, function)
        except (LabError, OSError) as error:
            print("  not kept:", *str(error).splitlines(), sep="\n  ")
            return
        print(f"  kept as {progress.shown(file)}")
        if left := own.lacking(file.read_text()):
            print(
                f"  but it uses {', '.join(left)} of another cell: define that in the function's own, and check again"
            )

    def hint(self) -> None:
        """Print the hints up to the next one."""
        print(*self.next_hint(), sep="\n")

    def next_hint(self) -> list[str]:
        """One hint more than the last time, and all before it, as lines."""
        hints = self.task.hints
        asked = progress.count(self.task.name, "hints")
        lines = [f"{number}. {hint}" for number, hint in enumerate(hints[:asked], 1)]
        if asked >= len(hints):
            lines.append(f'that was the last hint; the answer: exercise("{self.task.name}").solution()')
        return lines

    def solution(self) -> None:
        """Print labkit's answer, note that it was looked at, and offer to go on with it."""
        progress.note(self.task.name, solution=True)
        print(self.task.text("reference").rstrip())
        button.offer(self.task)

    def load(self) -> None:
        """Define labkit's answer in the notebook and go on; the cell above stays as it is."""
        print(f"{self.task.name}: {button.load(self.task)}")


def _fitted(line: str) -> list[str]:
    """A line as lines of a cell's width, so that no browser breaks it within a word."""
    indent = "  " + line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line.strip(), WIDTH, initial_indent=indent, subsequent_indent=indent + "    ",
                         break_long_words=False, break_on_hyphens=False) or [""]  # fmt: skip


def exercise(name: str) -> Exercise:
    """The exercise called `name`.

    Raises NotFound.
    """
    return Exercise(find(name))
