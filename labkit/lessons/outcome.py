"""Top floor: what can become of an answer to an exercise.

Owns: the outcomes and their names, and the exception by which a check says that an answer is wrong.

Read: CONTRIBUTING.md, "Adding an exercise".
"""

from __future__ import annotations

from typing import NamedTuple

NOT_ATTEMPTED = "not attempted"
WRONG = "wrong"
RIGHT = "right"
BROKEN = "broken"  # the check itself failed: our mistake, never the learner's


class Wrong(Exception):
    """Raised by a check: in its words, what was seen in the kernel and what was expected there."""


class Outcome(NamedTuple):
    """One judgement."""

    state: str  # one of the four above
    message: str  # empty when right
    printed: str = ""  # by the learner's function: shown, never judged
