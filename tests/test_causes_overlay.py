"""Each cause of a failed overlay mount: provoked, named, mended, and then the call succeeds."""

from __future__ import annotations

import os
import textwrap

import pytest
from causes_ground import Case, prove

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")]

# `folders` are the layers, top first; what is empty is left out of the options.
FOLDERS = """
low, low2, upper, work, t = (here / name for name in ("low", "low2", "upper", "work", "t"))
for folder in (low, low2, upper, work, t):
    folder.mkdir()
lower, more = [low], ""
def stacked():
    words = [f"lowerdir={':'.join(map(str, lower))}"] if lower else []
    words += [f"upperdir={upper}"] if upper else []
    words += [f"workdir={work}"] if work else []
    return tried("mount", "overlay", t, "overlay", 0, ",".join([*words, *more.split()]))
"""
# The new mount interface, whose options are not held to one page.
BY_CONTEXT = """
def contexted():
    from labkit.errors import LabError
    from labkit.kernel import overlay
    try:
        overlay.mount_overlay(t, list(reversed(lower)), upper, work)
    except LabError as error:
        cause = error.__cause__
        found = causes.explain(cause, "overlay", ("overlay", t, lower, upper, work))
        assert found.why in str(error) and found.next in str(error), str(error)
        return [cause.errno, found.row, str(error), found.next]
    return "done"
"""

CASES = {
    "overlay.folder_missing": Case("low.rmdir()", "stacked()", "low.mkdir()", "/mnt/low is not a folder"),
    "overlay.no_folder": Case("low.rmdir(); low.touch()", "stacked()", "low.unlink(); low.mkdir()", "/mnt/low is not"),
    "overlay.no_lower": Case("lower = []", "stacked()", "lower = [low]", "at least one lower"),
    "overlay.no_work": Case("work = None", "stacked()", 'work = here / "work"', "/mnt/upper has no work folder"),
    "overlay.one_layer": Case("upper = work = None", "stacked()", "lower.append(low2)", "/mnt/low alone"),
    "overlay.other_file_system": Case("mnt(work)", "stacked()", 'call("umount2", work, 0)', "two file systems"),
    "overlay.other_mount": Case("bind(work)", "stacked()", 'call("umount2", work, 0)', "rename wants one mount"),
    "overlay.not_separate": Case(
        'work = upper / "work"; work.mkdir()', "stacked()", 'work = here / "work"', "lie in one another"
    ),
    "overlay.upper_read_only": Case(
        'ro = mnt(here / "ro"); upper = ro / "u"; work = ro / "w"; upper.mkdir(); work.mkdir(); '
        "flag(ro, BIND | REMOUNT | C.MS_RDONLY)",
        "stacked()",
        "flag(ro, BIND | REMOUNT)",
        "/mnt/ro, which is read-only",
    ),
    "overlay.too_deep": Case(
        """
        lower = [low, low2]
        for number in range(2):
            upper, work, t = (here / f"{name}{number}" for name in "uwt")
            for folder in (upper, work, t):
                folder.mkdir()
            assert stacked() == "done"
            lower = [t]
        upper, work, t = (here / name for name in ("upper", "work", "t"))
        """,
        "stacked()",
        'lower = [here / "t0"]',
        "stands on another one",
    ),
    "overlay.upper_on_overlay": Case(
        """
        first, second = here / "first", [here / "second/u", here / "second/w"]
        first.mkdir(), (here / "second").mkdir()
        t, p = here / "second", t
        assert stacked() == "done"
        for folder in second:
            folder.mkdir()
        upper, work, t = *second, p
        """,
        "stacked()",
        'upper, work = first / "u", first / "w"; upper.mkdir(); work.mkdir()',
        "itself on an overlay (mounted on /mnt/second)",
    ),
    "overlay.not_to_stack_on": Case(
        'lower = [low, "/proc/irq"]', "stacked()", "lower = [low, low2]", "/proc/irq is on proc"
    ),
    "overlay.twice": Case("lower = [low, low2, low]", "stacked()", "lower = [low, low2]", "/mnt/low is two layers"),
    "overlay.overlapping": Case(
        '(low / "in").mkdir(); lower = [low, low / "in"]', "stacked()", "lower = [low, low2]", "/mnt/low/in lies inside"
    ),
    "overlay.upper_in_use": Case(
        'more = "index=on"; o = here / "o"; o.mkdir(); t, p = o, t; assert stacked() == "done"; t = p',
        "stacked()",
        'call("umount2", o, 0)',
        "/mnt/upper already serves the overlay mounted on /mnt/o",
    ),
    "overlay.other_origin": Case(
        'more = "index=on"; assert stacked() == "done"; call("umount2", t, 0); lower = [low2]',
        "stacked()",
        'upper, work = here / "new-upper", here / "new-work"; upper.mkdir(); work.mkdir()',
        "/mnt/upper remembers",
    ),
}


@pytest.mark.parametrize("row", CASES)
def test_a_condition_of_an_overlay_is_named_and_mended(row: str) -> None:
    """The row is the one that is found; after its advice the same call succeeds."""
    prove(row, CASES[row]._replace(setup=FOLDERS + "\n" + textwrap.dedent(CASES[row].setup)))


CONTEXT_CASES = {
    "overlay.too_many_layers": Case(
        """
        lower = [here / "layers" / str(number) for number in range(501)]
        for one in lower:
            one.mkdir(parents=True)
        """,
        "contexted()",
        "lower.pop()",
        "the kernel says: ",
    ),
    "overlay.no_folder": Case(
        "low.rmdir(); low.touch()", "contexted()", "low.unlink(); low.mkdir()", "the kernel says: "
    ),
    "overlay.other_file_system": Case(
        "mnt(work)",
        "contexted()",
        'call("umount2", work, 0)',
        "the kernel says: overlayfs: workdir and upperdir must reside under the same mount",
    ),
}


@pytest.mark.parametrize("row", CONTEXT_CASES)
def test_the_kernels_own_words_come_first(row: str) -> None:
    """By the new mount interface, mount_overlay says what the context's log or /dev/kmsg says, then the cause."""
    case = CONTEXT_CASES[row]
    first, _ = prove(row, case._replace(setup=FOLDERS + BY_CONTEXT + "\n" + textwrap.dedent(case.setup)))
    assert first[2].index("the kernel says") < first[2].index("next:"), first[2]
