"""Each cause of a refused uid_map, gid_map or setgroups: provoked, named, mended, and then the write succeeds."""

from __future__ import annotations

import os

import pytest
from causes_ground import Case, prove

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]

CHILD = 'pid = sleeper(lambda: call("unshare", NEWUSER))'
OWN = 'ordinary(); call("unshare", NEWUSER)'
UID, GID = 'wrote(f"/proc/{pid}/uid_map", text)', 'wrote(f"/proc/{pid}/gid_map", text)'
GROUPS = 'wrote(f"/proc/{pid}/setgroups", text)'


def form(text: str, words: str) -> Case:
    """A text that is no map, then one that is."""
    return Case(f"{CHILD}; text = {text}", UID, 'text = "0 0 1"', words)


CASES = {
    "usermap.not_dumpable": Case(
        'ordinary(dumpable=0); call("unshare", NEWUSER); pid, text = "self", "0 12345 1"',
        UID,
        'call("prctl", C.PR_SET_DUMPABLE, 1, 0, 0, 0)',
        "not dumpable",
    ),
    "usermap.written_already": Case(
        'user_ns(); pid, text = "self", "0 0 1"', UID, 'call("unshare", NEWUSER)', "is written already (0 0 1)"
    ),
    "usermap.not_from_the_parent": Case(
        """
        pid, text, runner = sleeper(lambda: (user_ns(), call("unshare", NEWUSER))), "0 0 1", lambda attempt: attempt()
        def from_the_parent(attempt):
            above = fcntl.ioctl(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY), 0xB702)  # NS_GET_PARENT
            return forked(lambda: (call("setns", above, NEWUSER), attempt())[1])
        """,
        f"runner(lambda: {UID})",
        "runner = from_the_parent",
        "not a child of the writer's",
    ),
    "usermap.groups_not_denied": Case(
        f'{OWN}; pid, text = "self", "0 12345 1"',
        GID,
        'Path("/proc/self/setgroups").write_text("deny")',
        "setgroups is",
    ),
    "usermap.several_lines": Case(
        f'{OWN}; pid, text = "self", "0 12345 1\\n1 12346 1\\n"', UID, 'text = "0 12345 1"', "without CAP_SETUID"
    ),
    "usermap.not_ones_own": Case(
        f'{OWN}; pid, text = "self", "0 0 1"', UID, 'text = "0 12345 1"', "0 outside is not the writer's own uid"
    ),
    "usermap.not_in_parent": Case(
        f'user_ns(); {CHILD}; text = "0 5 2"', UID, 'text = "0 0 1"', "does not have all of 5 to 6"
    ),
    "usermap.deny_too_late": Case(
        f'{CHILD}; text = "deny"; Path(f"/proc/{{pid}}/gid_map").write_text("0 0 1")', GROUPS, CHILD, "written already"
    ),
    "usermap.allow_after_deny": Case(
        f'{CHILD}; text = "allow"; Path(f"/proc/{{pid}}/setgroups").write_text("deny")', GROUPS, CHILD, "for good"
    ),
    "usermap.neither_word": Case(f'{CHILD}; text = "none"', GROUPS, 'text = "deny"', "'none' is neither"),
    "usermap.bad_form": form('"0 zero 1"', "'0 zero 1'"),
    "usermap.nothing_mapped": form('"0 0 0"', "'0 0 0' is 0"),
    "usermap.too_large": form('"0 4294967295 1"', "goes beyond 4294967294"),
    "usermap.overlap": form('"0 0 10\\n5 100 10\\n"', "'0 0 10' and '5 100 10' overlap inside"),
    "usermap.too_many_lines": form(r'"".join(f"{n} {n} 1\n" for n in range(341))', "341 lines"),
    "usermap.too_long": form('"0 0 1" + " " * 5000', "5005 bytes"),
}


@pytest.mark.parametrize("row", CASES)
def test_a_condition_of_a_map_is_named_and_mended(row: str) -> None:
    """The row is the one that is found; after its advice the same write succeeds."""
    prove(row, CASES[row])
