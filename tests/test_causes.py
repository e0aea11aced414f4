"""The table of causes itself: no row without a proof, and how a failure is told to a person."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path

import pytest
from causes_ground import Case, prove

from labkit.errors import LabError
from labkit.kernel import attempts, causes, syscalls
from labkit.kernel import constants as C
from labkit.lessons import Child

HERE = Path(__file__).parent


def proofs() -> dict[str, set[str]]:
    """The rows that the cases of tests/test_causes_*.py and of the guest's provoke, by file."""
    found: dict[str, set[str]] = {}
    for file in [*HERE.glob("test_causes_*.py"), *HERE.glob("guest/test_causes_*.py")]:
        spec = importlib.util.spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        tables = [one for one in vars(module).values() if isinstance(one, dict)]
        found[f"{file.parent.name}/{file.name}"] = {
            row for table in tables for row, case in table.items() if isinstance(case, Case)
        }
    return found


def test_no_row_without_a_proof() -> None:
    """Every row of the table is provoked, mended and tried again by a case; every case is of a row."""
    rows = [row.name for row in causes.TABLE]
    proved = {row for cases in proofs().values() for row in cases}
    assert len(rows) == len(set(rows))
    assert sorted(proved) == sorted(rows)


def test_every_row_says_what_to_do() -> None:
    """An advice is a sentence without its full stop, and the finder says what it looks for."""
    for row in causes.TABLE:
        assert len(row.advice) > 10 and not row.advice.endswith("."), row.name
        assert row.finder.__doc__ and row.errno in errno.errorcode, row.name


def test_what_is_not_known_stays_the_kernels_word() -> None:
    """A call that the table lacks, arguments of another kind, a file that is not there: nothing is made up."""
    error = OSError(errno.EINVAL, "x")
    for name, arguments in (("read", (0,)), ("mount", (1, 2, 3)), ("pivot_root", ("/none", "/none")), ("setns", ())):
        assert causes.explain(error, name, arguments) == ("", "", "")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")
@pytest.mark.parametrize(
    ("setup", "attempt", "mend"),
    [
        (
            'new = mnt(here / "new"); os.chmod(new, 0o777); (new / "old").mkdir()',
            'tried("pivot_root", new, new / "old")',
            "bind(new)",
        ),
        ('(here / "m").mkdir()', 'tried("umount2", here / "m", 0)', 'mnt(here / "m")'),
        ("", 'tried("fsopen", "tmpfs", 0)', ""),
        (
            "low, low2 = here / 'low', here / 'low2'; low.mkdir(), low2.mkdir()",
            'tried("mount", "overlay", here, "overlay", 0, f"lowerdir={low}:{low2}")',
            "",
        ),
    ],
)
def test_the_same_want_of_rights_is_named_for_every_call_that_has_it(setup: str, attempt: str, mend: str) -> None:
    """pivot_root, umount2, fsopen and an overlay by an ordinary user, then with namespaces of his own."""
    unshare = 'call("unshare", NEWUSER | NEWNS)'
    prove("caps.no_admin", Case(f"{setup}\nordinary()", attempt, f"{unshare}\n{mend}", "lacks CAP_SYS_ADMIN"))


def test_a_failure_is_told_in_four_parts(tmp_path: Path) -> None:
    """What was done, the errno in words, the cause found, the advice; the OSError stays as its cause."""
    with pytest.raises(LabError) as caught:
        attempts.write(tmp_path / "none" / "cgroup.procs", "1")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"cannot write '1' to {tmp_path}/none/cgroup.procs"
    assert lines[1].startswith("  why:  No such file or directory (errno 2). there is no cgroup")
    assert lines[2] == "  next: make it: mkdir GROUP"
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_of_anybodys_code_is_explained_from_the_record() -> None:
    """note_from finds the failed call among the recorded ones; the exception stays what it was, with a note."""
    with syscalls.recording() as calls, pytest.raises(OSError) as caught:
        syscalls.call("setns", 999, 0)
    causes.note_from(caught.value, calls)
    assert caught.value.__notes__ == [
        "  why:  descriptor 999 is not open\n  next: open /proc/PID/ns/KIND, or pidfd_open(PID), and keep it open"
    ]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")
def test_a_function_in_the_stage_child_is_told_its_cause() -> None:
    """The OSError of a learner's own call comes back with why and next; what we look at is no call of his."""

    def twice() -> None:
        syscalls.call("unshare", C.CLONE_NEWPID)
        syscalls.call("unshare", C.CLONE_NEWPID)

    with Child("causes") as one, pytest.raises(OSError) as caught:
        one.do(twice)
    notes = "\n".join(caught.value.__notes__)
    assert caught.value.errno == errno.EINVAL
    assert "why:  this process's children go to another pid namespace already" in notes and "next: fork" in notes
    assert [made.name for made in one.calls][-2:] == ["unshare", "unshare"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")
def test_the_kernels_log_is_heard_for_an_old_mount_call() -> None:
    """mount(2) of a tmpfs with an option that there is not: the kernel's own line is in the message, not older ones."""
    setup = """
    from labkit.errors import LabError
    from labkit.kernel import mounts
    def said(*words):
        try:
            mounts.mount("x", here, "tmpfs", list(words))
        except LabError as error:
            return str(error)
        return "done"
    first = said("nosuchoption")
    second = said("size=many")
    assert "the kernel says: tmpfs: Unknown parameter 'nosuchoption'" in first, first
    assert "nosuchoption" not in second and "size" in second, second
    kind = "nosuchfs"
    """
    prove("mounts.unknown_kind", Case(setup, 'tried("mount", "x", here, kind, 0, None)', 'kind = "tmpfs"'))
