"""Top floor: a container's birth in a notebook, a step at a time.

Owns: the child process in which `labkit-runtime run` walks, the X-ray before and after each step, and the pictures:
one a step, and all of them behind a slider.

    with birth.Birth(bundle) as born:
        born.step()                 # cloned: a picture of what is new, and the calls that made it
        born.to("pivoted")
        born.finish()               # its exit status
    born.film()

It is the same code as `run`: see labkit/runtime/life/stepping.py.

Read: the OCI runtime specification, runtime.md, "Lifecycle"; ipywidgets' documentation on IntSlider.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from labkit.draw import changes
from labkit.draw.svg import Picture
from labkit.errors import BadInput, LabError
from labkit.lessons.live import in_notebook
from labkit.observe import difference, snapshot
from labkit.observe.model import Change, Snapshot
from labkit.runtime.become import execute

RUNTIME = [sys.executable, "-m", "labkit.runtime.life.command"]
SECONDS = 120.0  # for one step, on an emulated machine
PACE = 1500  # milliseconds that a playing film shows each picture
# A line of config.json under the slider: one line, cut where the page ends; a pointer that rests on it shows the rest.
LINE = "padding:0 12px;line-height:1.5;white-space:nowrap;overflow:hidden;text-overflow:ellipsis"


@dataclass(frozen=True)
class Step:
    """One step that has been made; a notebook shows its picture."""

    name: str
    pid: int  # the container's process, as this machine counts
    fields: dict[str, Any]  # what config.json says to it
    calls: list[str]
    changes: list[Change]

    @property
    def lines(self) -> list[str]:
        """The fields of config.json behind it, a line each."""
        return [f"{name}: {json.dumps(value)}" for name, value in self.fields.items()]

    @property
    def picture(self) -> Picture:
        """What is different in the kernel now, and the calls that made it so."""
        return changes.changes(self.changes, self.calls)

    @property
    def text(self) -> str:
        """The step's name, the fields of config.json behind it, and the picture's text."""
        return "\n".join([self.name, *(f"  {line}" for line in self.lines), self.picture.text])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"image/svg+xml": self.picture.svg, "text/plain": self.text}


class Birth:
    """A container that is being made from a bundle; leaving the `with` ends it, wherever it stands."""

    def __init__(self, bundle: str | Path, runtime: list[str] | None = None, *, name: str = "birth") -> None:
        self.bundle = Path(bundle)
        self.steps: list[Step] = []
        self.id = name
        self._runtime = runtime or RUNTIME
        self._said = (self.bundle / f".{self.id}").open("w+")
        self._mine, theirs = socket.socketpair()
        self._mine.settimeout(SECONDS)
        words = [*self._runtime, "run", "--step-fd", str(theirs.fileno()), self.id]
        try:
            self._child = subprocess.Popen(words, cwd=self.bundle, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                                           stdout=self._said, stderr=self._said)  # fmt: skip
        except OSError:
            self._mine.close()
            self._said.close()
            os.unlink(self.bundle / f".{self.id}")
            raise
        finally:
            theirs.close()
        self._lines = self._mine.makefile("rb")
        self._before: Snapshot | None = None
        self._going = False
        self._last_call = "execve"

    @property
    def said(self) -> str:
        """What the runtime and the container have printed so far."""
        return (self.bundle / f".{self.id}").read_text() if not self._said.closed else self._last

    def step(self) -> Step:
        """Let it make one more step; what that was. Raises LabError when there is none any more, or it fails."""
        if self._going:
            self._mine.sendall(b"\n")
        before = self._before if self._before is not None else self._look()
        try:
            line = self._lines.readline()
        except TimeoutError as error:
            last = self.steps[-1].name if self.steps else "the beginning"
            raise LabError(f"the step behind {last!r} has not ended after {SECONDS:g} seconds", status=1,
                           why=self.said.strip() or "the runtime is silent: a hook, or a file of the bundle, may hang",
                           next="close() ends the birth; in a terminal, labkit-runtime run --step shows the steps",
                           ) from error  # fmt: skip
        if not line:
            status = self._child.wait()
            raise LabError("the birth has no further step", status=status or 1,
                           why=self.said.strip() or f"the runtime ended with status {status}")  # fmt: skip
        self._going = True
        told = json.loads(line)
        after = self._look()
        found = difference.compare(before, after)
        self._before = after
        if told["step"] == "filtered":
            self._last_call = self._execve(told["pid"])
        calls = [self._last_call] if told["step"] == "executed" and not told["calls"] else told["calls"]
        step = Step(told["step"], told["pid"], told["fields"], calls, found)
        self.steps.append(step)
        return step

    def to(self, name: str) -> Step:
        """Go on until the step of this name has been made; the last one. Raises BadInput when it is behind already."""
        if name in [one.name for one in self.steps]:
            raise BadInput(f"the step {name!r} has been made already", next="a new Birth begins anew")
        while (step := self.step()).name != name:
            pass
        return step

    def finish(self) -> int:
        """Go on to the end; the container's exit status."""
        while self._child.poll() is None and (not self.steps or self.steps[-1].name != "executed"):
            self.step()
        self._mine.sendall(b"\n")
        return self._child.wait()

    def close(self) -> None:
        """End it, and leave nothing of it; twice is once."""
        if self._said.closed:
            return
        if self._child.poll() is None:
            self._child.terminate()
            self._child.wait()
        subprocess.run([*self._runtime, "delete", "--force", self.id], stderr=subprocess.DEVNULL)
        self._last = self.said
        self._said.close()
        os.unlink(self.bundle / f".{self.id}")
        self._lines.close()
        self._mine.close()

    def __enter__(self) -> Birth:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def film(self) -> Film:
        """All steps so far, behind a slider."""
        return Film(self.steps)

    def _execve(self, pid: int) -> str:
        """The call by which this process, which stands before it, becomes the program.

        Afterwards nothing of the runtime is there that could tell of it: where the program is, is looked for in the
        container's root, as the runtime has looked for it.
        """
        process = json.loads((self.bundle / "config.json").read_text())["process"]
        variables = dict(one.partition("=")[::2] for one in process.get("env", ()))
        name = process["args"][0]
        places = execute.candidates(name, variables.get("PATH", ""))
        # lexists: the image's symlinks lead somewhere else when this process follows them.
        found = next((one for one in places if os.path.lexists(f"/proc/{pid}/root/{one}")), name)
        return f'execve("{found}", {json.dumps(process["args"])}, {{...}}) = 0'

    def _look(self) -> Snapshot:
        return snapshot.take(snapshot.Tree(self._child.pid))


class Film:
    """The pictures of a birth: a slider scrubs them, a button plays them; a page without a kernel shows them all."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = list(steps)

    @property
    def text(self) -> str:
        """One line a step: what it changed, counted."""
        return "\n".join(
            f"{number:>2} {one.name:<10} {len(one.calls):>3} calls, {len(one.changes):>3} changes"
            for number, one in enumerate(self.steps)
        )

    def widget(self) -> Any:
        """A slider over the pictures, and a button that plays them (ipywidgets). Raises ValueError without a step."""
        import ipywidgets

        if not self.steps:
            raise ValueError("a film needs a step")
        slider = ipywidgets.SelectionSlider(options=[(one.name, number) for number, one in enumerate(self.steps)],
                                            description="step", continuous_update=True,
                                            layout={"width": "480px"})  # fmt: skip
        play = ipywidgets.Play(max=len(self.steps) - 1, interval=PACE)
        ipywidgets.link((play, "value"), (slider, "value"))
        view = ipywidgets.HTML(value=self._frame(0))
        slider.observe(lambda change: setattr(view, "value", self._frame(change["new"])), names="value")
        return ipywidgets.VBox([ipywidgets.HBox([play, slider]), view])

    def _frame(self, number: int) -> str:
        """One picture, below the lines of config.json that it obeys."""
        one = self.steps[number]
        lines = [escape(line) for line in one.lines]
        said = "".join(f'<div style="{LINE}" title="{line}"><code>{line}</code></div>' for line in lines)
        return f"{said}{one.picture.svg}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        if not self.steps:
            return {"text/plain": "no step was made"}
        shown: dict[str, Any] = {"image/svg+xml": self.sheet(), "text/plain": self.text}
        return {**self.widget()._repr_mimebundle_(), **shown} if in_notebook() else shown

    def sheet(self) -> str:
        """All pictures on one sheet, each below the lines of config.json that its step obeys."""
        from labkit.draw import sheet

        return sheet.stack([(one.name, one.picture.svg) for one in self.steps], [one.lines for one in self.steps])
