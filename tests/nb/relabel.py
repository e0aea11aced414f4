"""Numbers that the kernel hands out differ in every run; what must hold is how they relate.

A Relabeller replaces process ids, namespace inodes and generated names by labels in the
order of their first appearance.  One for the committed outputs and one for the new ones,
each kept over a whole notebook: a parent's pid that is printed twice gets the same label
both times, or the notebook fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# kind: what is recognised; group 1 (or the whole) is the value.  A pid is a plain number, so
# it counts only where the text says that it is one.
KINDS = {
    "namespace": r"\b(4026[0-9]{6})\b",
    # A container's id is 64 digits, shown as 12, and its cable is named after the first 10.
    "id": r"\b(?:lk)?([0-9a-f]{10})(?:[0-9a-f]{2}(?:[0-9a-f]{52})?)?\b",
    "name": r"\b([a-z]{4,6}_[a-z]{3,6}_[0-9]{3})\b",
    "pid": r"(?<=\bpid )([0-9]+)\b|(?<=\bprocess )([0-9]+)\b|(?<=/proc/)([0-9]+)(?=/)|\b([0-9]+)(?= outside\b)"
    r"|(?<=, 0x58\) = )([0-9]+)\b"  # what clone3 answers
    r"|(?<=>= )([0-9]+)(?=</text>)",  # an answer that has a line of its own in a picture: clone3 is too long for one
    # A keyring's number: what keyctl answers, and, in hexadecimal, what it is then given.
    "key": r"(?<=KEYCTL_SETPERM, )(0x[0-9a-f]+)|(?<=\b0, 0\) = )([0-9]{6,10})\b",
    "address": r"(?<![0-9.])(?!127\.|0\.)([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?![0-9.])",
    # How large the distribution's packages are today.
    "size": r"\b([0-9]+(?:\.[0-9])? (?:B|kB|MB|GB))\b",
    "count": r"\b([0-9]+)(?= files\b)",
    # Groups of mounts that pass mounts on to each other are numbered by the kernel (mountinfo).
    "peers": r"(?<=\bshared:)([0-9]+)\b|(?<=\bmaster:)([0-9]+)\b",
    "device": r"(?<=@if)([0-9]+)\b|(?<=\bifindex )([0-9]+)\b",
}
# A widget's model has a random id; the text beside it is compared.
WIDGET = "application/vnd.jupyter.widget-view+json"
PATTERN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in KINDS.items()))


class Relabeller:
    """Labels for one run of one notebook."""

    def __init__(self) -> None:
        self.labels: dict[tuple[str, str], str] = {}

    def text(self, text: str) -> str:
        """The text with labels for numbers: <pid 1>, <namespace 2>, ..., and columns pushed together."""
        return re.sub(r"(?<=\S) {2,}", "  ", PATTERN.sub(self._label, text))

    def _label(self, found: re.Match[str]) -> str:
        kind = str(found.lastgroup)
        value = next(group for group in found.groups()[found.re.groupindex[kind] :] if group is not None)
        # Ten letters are an id only with digits among them: a ten-digit number is a number, a ten-letter word a word.
        # Behind lk, and where twelve or 64 stand together (an id, a digest), it is one whatever it is made of: one in
        # a hundred begins with ten digits.
        if kind == "id" and len(found[0]) == len(value) and (value.isdigit() or value.isalpha()):
            return found[0]
        known = sum(1 for one, _ in self.labels if one == kind)
        label = self.labels.setdefault((kind, value), f"<{kind} {known + 1}>")
        return found[0].replace(value, label, 1) if kind != "id" else label + ("!" if found[0].startswith("lk") else "")

    def outputs(self, outputs: Iterable[Mapping[str, Any]]) -> list[Any]:
        """The outputs of one cell, relabelled in the order in which a reader meets them; PNGs are left out."""
        return [self._value(output) for output in outputs]

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            # Text first: its order is the reader's, an SVG's is the painter's.
            keys = sorted(set(value) - {WIDGET}, key=lambda key: (key == "image/svg+xml", key))
            return {key: value[key] if key == "image/png" else self._value(value[key]) for key in keys}
        if isinstance(value, list):
            return [self._value(one) for one in value]
        return value
