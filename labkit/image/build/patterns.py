"""Floor 2: which paths a pattern means: those of COPY, and those of .dockerignore.

Owns: *, ?, [a-z] within one name and ** across names; exceptions (!) and their order.  Paths have no
leading slash here, and / between names.

Read: Docker's documentation, ".dockerignore files"; path/filepath's Match in Go's documentation.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

from labkit.errors import BadInput


def is_pattern(path: str) -> bool:
    """Whether it has one of * ? [ that no backslash takes its meaning from."""
    return bool(re.search(r"(?<!\\)(?:\\\\)*[*?\[]", path))


def compiled(pattern: str) -> re.Pattern[str]:
    """The expression that a whole path must match. Raises BadInput for an open bracket."""
    text, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if at == len(pattern):
                text += ".*"
            else:
                at += pattern.startswith("/", at)
                text += "(?:.*/)?"
            continue
        if char == "[":
            end = pattern.find("]", at + 2)
            if end < 0:
                raise BadInput(f"the pattern {pattern!r} has an open [", next=r"close it, or write \[")
            inside = pattern[at + 1 : end].replace("[", r"\[")
            text += f"[{inside}]"
            at = end
        elif char == "\\" and at + 1 < len(pattern):
            at += 1
            text += re.escape(pattern[at])
        else:
            text += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
        at += 1
    try:
        return re.compile(text, re.DOTALL)
    except re.error as error:
        raise BadInput(f"the pattern {pattern!r} cannot be read", why=str(error)) from error


class Rule(NamedTuple):
    """One line of .dockerignore."""

    expression: re.Pattern[str]
    exception: bool  # it began with !

    def meets(self, path: str) -> bool:
        """Whether the path, or a folder above it, is meant."""
        parts = path.split("/")
        return any(self.expression.fullmatch("/".join(parts[:count])) for count in range(len(parts), 0, -1))


class Patterns(NamedTuple):
    """Rules in their order: the last one that meets a path decides."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> Patterns:
        """From patterns, as in .dockerignore but without comments. Raises BadInput."""
        found = []
        for text in texts:
            exception = text.startswith("!")
            text = posixpath.normpath(text.removeprefix("!").strip() or ".").lstrip("/")
            if text not in ("", "."):
                found.append(Rule(compiled(text), exception))
        return cls(tuple(found))

    @classmethod
    def of_file(cls, text: str) -> Patterns:
        """From the text of a .dockerignore. Raises BadInput."""
        return cls.of(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))

    def leave_out(self, path: str) -> bool:
        """Whether it is not part of the context."""
        left_out = False
        for rule in self.rules:
            if rule.exception == left_out and rule.meets(path):
                left_out = not rule.exception
        return left_out

    @property
    def have_exceptions(self) -> bool:
        """Whether something in a folder that is left out may be wanted all the same."""
        return any(rule.exception for rule in self.rules)
