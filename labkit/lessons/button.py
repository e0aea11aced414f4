"""Top floor: "load the reference and go on", one click.

Owns: putting labkit's answer into the notebook's names, and the button that does it.
Readers without widgets (a page, an executed notebook, a terminal) get one line of text,
always the same: the widget is added to it, never put in its place.

Read: the Jupyter messaging specification on display_data; ipywidgets on Button.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from labkit.lessons import progress, source
from labkit.lessons.task import Task, run

VIEW = "application/vnd.jupyter.widget-view+json"


def load(task: Task) -> str:
    """Define labkit's answer in the notebook, mark it so in the progress; what was done, in words."""
    shell = source.shell()
    into: dict[str, Any] = shell.user_ns if shell else {}
    keep = {str(key): into[key] for key in ("__file__",) if key in into}
    run(task.folder / "reference.py", into)
    into.pop("__file__", None)
    into.update(keep)
    with progress.change() as record:
        entry = progress.exercise(record, task.name)
        if entry.get("state") != progress.SOLVED:
            entry.update(state=progress.LOADED, when=progress.now())
    return f"{task.function}() is labkit's from here on"


def words(task: Task) -> str:
    """What the button does, for those who have none."""
    return f'to go on with labkit\'s answer: exercise("{task.name}").load()'


def offer(task: Task) -> None:
    """Show the button, or the line of text."""
    shell = source.shell()
    if shell is None or not hasattr(shell, "kernel"):
        print(words(task))
        return
    from IPython.display import display

    data: dict[str, Any] = {"text/plain": words(task)}
    if importlib.util.find_spec("ipywidgets"):
        data[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": _button(task).model_id}
    display(data, raw=True)  # type: ignore[no-untyped-call]


def _button(task: Task) -> Any:
    import ipywidgets

    button = ipywidgets.Button(
        description="go on with labkit's answer",
        tooltip=f"defines labkit's {task.function}(); your cell stays as it is",
        layout=ipywidgets.Layout(width="auto"),
    )

    def clicked(_: Any) -> None:
        # What a click prints goes to the log, not under the cell: the button says it.
        try:
            button.description = load(task)
            button.disabled = True
        except Exception as error:
            button.description = f"{type(error).__name__}: {error}"

    button.on_click(clicked)
    return button
