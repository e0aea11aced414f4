"""Floor 3: how the command lines of the container verbs are read.

Owns: one thing: a bad command line is an error like all others.

Read: argparse in Python's documentation; docker(1) on its exit status.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from labkit.errors import BadInput


class Parser(argparse.ArgumentParser):
    """argparse, but a bad command line is an error like all others: what, next, and Docker's 125."""

    def error(self, message: str) -> NoReturn:
        """Raise BadInput."""
        raise BadInput(f"cannot understand the options of {self.prog}", why=message, next=f"{self.prog} --help")
