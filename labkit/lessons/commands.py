"""Top floor: `labkit exercises`.

Owns: the command's words, its lists and the ninety-minute route.
What makes children is imported by the words that need it: a list is quick.

Read: labkit/lessons/exercises.py for what a notebook offers of the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from labkit.errors import BadInput, LabError
from labkit.lessons import own, parts, predictions, progress, task
from labkit.lessons.task import Task

MARKS = {progress.SOLVED: "solved", progress.LOADED: "labkit's", progress.TRIED: "tried", "": "-"}


def main(argv: list[str]) -> int:
    """labkit exercises [WHAT [NAME]] [--route MINUTES] [--verify [NAME...]]; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="labkit exercises",
        description="the course's exercises: what there is, what is next, how far you are",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:<9} {words}" for name, (_, words) in WHAT.items()),
    )
    parser.add_argument("what", nargs="?", metavar="WHAT", help="one of those below; list when left out")
    parser.add_argument("names", nargs="*", metavar="NAME", help="an exercise; with `notes`, a notebook's number")
    parser.add_argument(
        "--route",
        type=int,
        metavar="MINUTES",
        help="list: the core alone, in that time; with notebooks' numbers, those",
    )
    parser.add_argument("--verify", action="store_true", help="judge every skeleton, reference and wrong answer")
    parser.add_argument("--census", action="store_true", help="--verify: each answer must leave the machine as it was")
    given = parser.parse_intermixed_args(argv)
    words = [*([given.what] if given.what else []), *given.names]
    if given.verify:
        return _verify(words, given.census)
    if given.route is not None and words[:1] in ([], ["list"]):
        return _route(given.route, *words[1:])
    name, rest = (words[0], words[1:]) if words else ("list", [])
    if name not in WHAT:
        raise BadInput(f"labkit exercises knows no {name!r}", next=f"one of: {', '.join(WHAT)}")
    function, _ = WHAT[name]
    if len(rest) != (wanted := int(name in ("hint", "solution", "reset", "notes"))):
        raise BadInput(f"labkit exercises {name} wants {wanted or 'no'} name", next="labkit exercises list")
    return function(*rest)


def _list() -> int:
    found = task.every()
    state = progress.load()["exercises"]
    for one in found:
        mark = MARKS.get(str(state.get(one.name, {}).get("state", "")), "-")
        print(f"{mark:<9}{one.notebook}  {one.name:<22}{one.minutes:>3} min  {one.kind:<9} {one.title}")
    core = sum(one.minutes for one in found if one.core)
    print(f"{len(found)} exercises, {sum(one.minutes for one in found)} minutes, {core} of them core")
    return 0


def _route(minutes: int, *notebooks: str) -> int:
    """The core in order, with the time at which each part begins; what would end too late is loaded, not solved."""
    total, loaded = 0, 0
    known = task.every()
    for notebook in sorted({one.notebook for one in known} | set(parts.sources())):
        if notebooks and notebook not in notebooks:
            continue
        for one in parts.course(notebook, known):
            if not one.core:
                continue
            how, words = "read ", one.title
            if isinstance(one, Task):
                how, words = "solve", f"{one.name}: {one.title}"
                if total + one.minutes > minutes:
                    how, loaded = "load ", loaded + 1
            print(f"{_clock(total)}  {notebook}  {how}  {one.minutes:>3} min  {words}")
            total += one.minutes if how != "load " else 0
    which = (
        f"{loaded} exercise{' is' if loaded == 1 else 's are'} loaded, not solved"
        if loaded
        else "time for every exercise"
    )
    over = f", {total - minutes} too many" if total > minutes else ""
    print(f"{_clock(total)}  in all {total} of {minutes} minutes{over}; {which}")
    return 0


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


def _next() -> int:
    state = progress.load()["exercises"]
    done = (progress.SOLVED, progress.LOADED)
    left = [one for one in task.every() if state.get(one.name, {}).get("state") not in done]
    if not left:
        print("nothing is left: everything is solved")
        return 0
    # Optional ones come when the core is done.
    one = min(left, key=lambda one: not one.core)
    print(f"{one.name}: {one.title}\n  notebook {one.notebook}, about {one.minutes} minutes, {one.kind}")
    print(f"  to write: {one.write}\n  {len(left) - 1} more after it")
    return 0


def _hint(name: str) -> int:
    from labkit.lessons.exercises import exercise

    print(*exercise(name).next_hint(), sep="\n")
    return 0


def _solution(name: str) -> int:
    found = task.find(name)
    progress.note(name, solution=True)
    print(found.text("reference").rstrip())
    return 0


def _progress() -> int:
    found, record = task.every(), progress.load()
    state = record["exercises"]
    for one in found:
        entry = state.get(one.name, {})
        looks = f"{entry.get('attempts', 0)} wrong, {min(entry.get('hints', 0), len(one.hints))} hints"
        seen = ", solution seen" if entry.get("solution") else ""
        print(f"{MARKS.get(str(entry.get('state', '')), '-'):<9}{one.notebook}  {one.name:<22}{looks}{seen}")
    solved = sum(state.get(one.name, {}).get("state") == progress.SOLVED for one in found)
    print(f"{solved} of {len(found)} solved; kept in {progress.shown(progress.folder())}")
    if entries := list(record["predictions"].values()):
        print("\nwhat you predicted:", *predictions.table(entries), sep="\n")
    return 0


def _reset(name: str) -> int:
    found = task.find(name)
    moved = own.set_aside(found)
    with progress.change() as record:
        known = record["exercises"].pop(name, None)
    from labkit.lessons import ground

    swept = ground.sweep(name)
    print(f"{name}: {'forgotten' if known is not None or moved else 'nothing was known of it'}")
    if moved:
        print(f"  what you wrote is kept as {progress.shown(moved)}")
    for path in swept:
        print(f"  removed {path}, left by an attempt that was cut off")
    return 0


def _notes(notebook: str) -> int:
    found = [one for one in task.every() if one.notebook == notebook]
    general, sections = parts.notes(notebook), parts.sections(notebook)
    if not found and not general and not sections:
        raise LabError(f"there are no notes on notebook {notebook!r}", next="labkit exercises notes 04")
    if general:
        print(general, end="\n\n")
    for part in sections:
        print(f"section   {part.minutes:>3} min  {'core' if part.core else 'optional':<9} {part.title}")
    for one in found:
        print(f"exercise  {one.minutes:>3} min  {one.kind:<9} {one.name}: {one.title}")
        for line in one.instructor.strip().splitlines():
            print(f"    {line}")
    return 0


def _verify(names: list[str], leftovers: bool) -> int:
    from labkit.lessons import verify

    chosen: list[Task] = [task.find(name) for name in names] or task.every()
    found = [row for one in chosen for row in verify.rows(one, leftovers=leftovers)]
    print(verify.table(found))
    return 1 if any(row.unexpected for row in found) else 0


WHAT: dict[str, tuple[Callable[..., int], str]] = {
    "list": (_list, "all exercises, with your state of each; --route 90 [04 ...]: the core, minute by minute"),
    "next": (_next, "what to do next"),
    "hint": (_hint, "one hint more for NAME"),
    "solution": (_solution, "labkit's answer to NAME"),
    "progress": (_progress, "how far you are, and what you predicted"),
    "reset": (_reset, "begin NAME again; what you wrote is kept aside"),
    "notes": (_notes, "for instructors: times, core or optional, notes on notebook NAME"),
}
