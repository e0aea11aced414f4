"""Floor 1: KEEP, the value of a limit that stays as it is.

Owns: telling "no limit" (None) from "not mentioned".

Read: PEP 661 on such values.
"""

from __future__ import annotations

import enum
from typing import Final, Literal


class Keep(enum.Enum):
    """The type of KEEP."""

    KEEP = "keep"


# The value of a limit that is not mentioned; None already means "no limit".
KEEP: Final = Keep.KEEP
Kept = Literal[Keep.KEEP]
