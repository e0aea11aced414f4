"""What a pytest run came to, from its JUnit file: counts, and what each failure said.

`make test` gives a few failures a second try, alone: a test that fails beside a busy machine and passes by itself
is unsteady.  It does not fail the run, and is not hidden: it has a column, and its first failure is said at the end.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

FEW = 3  # files; more than that is no accident
LINES = 8


class Outcome(NamedTuple):
    """As "file::test": what passed, what was skipped, and {what failed, fixtures too: its last lines}."""

    passed: set[str]
    skipped: set[str]
    failures: dict[str, str]

    @property
    def files(self) -> list[str]:
        """The files with failures, as pytest takes them."""
        return sorted({name.partition("::")[0] for name in self.failures})


def read(file: Path) -> Outcome:
    """A JUnit file of the family xunit1, which names each test's file; no file is no test."""
    found = Outcome(set(), set(), {})
    for case in ET.parse(file).getroot().iter("testcase") if file.exists() else ():
        name = f"{case.get('file')}::{case.get('name')}"
        bad = [one for one in case if one.tag in ("failure", "error")]
        if bad:
            found.failures[name] = "\n".join(map(words, bad))
        elif case.find("skipped") is not None:
            found.skipped.add(name)
        else:
            found.passed.add(name)
    found.passed.difference_update(found.failures)  # a test that passed and whose fixture did not end well
    return found


def words(failure: ET.Element) -> str:
    """The lines that say what was wrong: pytest marks them with E; nbval has none, and puts it last."""
    lines = [line for line in (failure.text or failure.get("message") or "").splitlines() if line.strip()]
    return "\n".join(("    " + line)[:300] for line in ([one for one in lines if one[:2] == "E "] or lines)[-LINES:])


def worth_a_second_try(first: Outcome) -> bool:
    """Whether failures are few enough to be looked at once more."""
    return 0 < len(first.files) <= FEW and all(Path(name).suffix in (".py", ".ipynb") for name in first.files)


def unsteady(first: Outcome, second: Outcome) -> dict[str, str]:
    """What failed at first, and passed alone."""
    return {name: text for name, text in first.failures.items() if name in second.passed}
