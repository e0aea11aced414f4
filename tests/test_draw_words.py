"""Words in pictures: shown as they are where that can be, measured on the safe side, cut with a sign."""

from __future__ import annotations

import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.draw import words
from tests.draw_ground import measured
from tests.draw_odd import odd_names


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nginx", "nginx"),
        ("zwei Wörter", "zwei Wörter"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines", "two\\nlines"),
        ("right\u202eto left", "right\\u202eto left"),
        (os.fsdecode(b"caf\xe9"), "caf\\xe9"),
        ("\ufffe", "\\ufffe"),
    ],
)
def test_what_cannot_be_printed_is_escaped(name: str, shown: str) -> None:
    """Ordinary letters stay; what would move the cursor, turn the line round or break XML is written out."""
    assert words.clean(name) == shown


def test_accents_do_not_climb() -> None:
    """A letter under forty accents would paint over the lines above; two accents stay."""
    assert words.clean("e" + "\u0301" * 2) == "e\u0301\u0301"
    assert words.clean("e" + "\u0301" * 40).count("\u0301") == 2


@given(odd_names())
def test_clean_words_are_one_printable_line(name: str) -> None:
    """Whatever the name, it can be printed, encoded, and stays as it is when cleaned again."""
    shown = words.clean(name)
    assert shown.isprintable()
    shown.encode()
    assert words.clean(shown) == shown


@given(st.text(st.sampled_from(string.ascii_letters + string.digits + string.punctuation + " äöüßéñçЖшЩя→…·")),
       st.booleans(), st.booleans())  # fmt: skip
def test_words_are_never_wider_than_taken(text: str, bold: bool, mono: bool) -> None:
    """A real font, among the widest there are, needs no more room than the table says."""
    assert measured(text, 10, mono, bold) <= words.width(text, 10, bold, mono) + 0.01


def test_ordinary_words_are_not_taken_much_too_wide() -> None:
    """The table may be a tenth too careful and no more: labels would be cut for nothing."""
    text = "The quick brown fox jumps over the lazy dog /var/lib/docker 4026531836"
    for bold, mono in ((False, False), (True, False), (False, True)):
        assert words.width(text, 10, bold, mono) <= 1.1 * measured(text, 10, mono, bold)


@given(odd_names(), st.floats(20, 400), st.booleans(), st.booleans())
def test_cut_words_fit_or_are_whole(name: str, room: float, bold: bool, mono: bool) -> None:
    """What does not fit ends up with an ellipsis within the room; what fits is not touched."""
    shown = words.cut(name, room, 12, bold, mono)
    assert words.width(shown, 12, bold, mono) <= room
    whole = words.clean(name)
    assert shown == whole or any(
        whole.startswith(shown[:place]) and whole.endswith(shown[place + 1 :])
        for place, letter in enumerate(shown)
        if letter == "…"
    )


def test_a_cut_keeps_both_ends() -> None:
    """The head tells the family, the tail the member: both stay, in equal parts."""
    shown = words.cut("/var/lib/docker/overlay2/0123456789abcdef/merged", 150, 12, mono=True)
    head, tail = shown.split("…")
    assert "/var/lib".startswith(head[:8])
    assert shown.endswith("merged")
    assert abs(len(head) - len(tail)) <= 1
