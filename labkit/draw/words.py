"""Drawing floor: words that come from outside, made fit for a picture.

Owns: showing what cannot be printed, how wide words are, and cutting them to a room with
an ellipsis.  Widths are those of DejaVu Sans, the widest of the fonts that browsers take
for `sans-serif`, rounded up: what fits by this table fits in the others too.

Read: the Unicode Standard, annexes 11 (East Asian width) and 15 (normalisation).
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

# {width in parts of the font's size: the ASCII letters that are at most as wide}
PLAIN = {
    0.30: "'ijlIJ",
    0.37: " ,./:;\\|f-",
    0.47: '()[]t!r"',
    0.54: "*_`sz?",
    0.62: "cLFkvxyPTY",
    0.64: "$0123456789{}aoeESbdghnpqu",
    0.70: "KAVBRXZC",
    0.79: "UHNDG&OQ",
    0.87: "w#+<=>^~M",
    1.00: "%mW@",
}
BOLD = {
    0.35: "'ijl ",
    0.42: "/IJ\\|,.:;-",
    0.50: "f!()[]tr",
    0.60: '_`"*?zcs',
    0.69: "LvxyakEFTeo",
    0.74: "$0123456789hnu{}SYbdgpqCPZ",
    0.88: "BAKRVXUGD#+<=>HN^~OQ&",
    0.93: "w",
    1.11: "%@MmW",
}
WIDTHS = {bold: {letter: width for width, letters in table.items() for letter in letters}
          for bold, table in ((False, PLAIN), (True, BOLD))}  # fmt: skip
MONO = 0.61  # every letter
SMALL, OTHER, WIDE = 1.2, 1.6, 1.4  # small letters of other scripts; signs; the squares of East Asia, and emoji
ELLIPSIS = "…"
LONGEST = 600  # letters of a name that are looked at; the kernel's names have at most 255 bytes, commands any


def clean(words: str) -> str:
    """The words in one line, with what cannot be printed as an escape: \\x1b, \\n, \\u202e.

    A byte that is no UTF-8 (as os.fsdecode gives it) becomes \\xff.  More than two accents
    on a letter are escaped too: they would climb over the line above.
    """
    if words.isascii() and words.isprintable():
        return words
    shown, accents = [], 0
    for letter in words:
        accents = accents + 1 if unicodedata.combining(letter) else 0
        if 0xDC80 <= ord(letter) <= 0xDCFF:
            shown.append(f"\\x{ord(letter) - 0xDC00:02x}")
        elif not letter.isprintable() or accents > 2:
            shown.append(letter.encode("unicode_escape").decode())
        else:
            shown.append(letter)
    return "".join(shown)


def width(words: str, size: float, bold: bool = False, mono: bool = False) -> float:
    """How many pixels the words take at most, in a font of `size` pixels."""
    return sum(_letter(letter, bold, mono) for letter in words) * size


@lru_cache(maxsize=4096)
def _letter(letter: str, bold: bool, mono: bool) -> float:
    if letter.isascii():
        return MONO if mono else WIDTHS[bold].get(letter, OTHER)
    if letter in "…·–—→←↔×":
        return 1.0
    if unicodedata.east_asian_width(letter) in "WF":
        return WIDE
    usual = SMALL if unicodedata.category(letter) == "Ll" else OTHER
    parts = unicodedata.normalize("NFD", letter)
    if parts == letter:  # a ligature is about as wide as its letters
        return max(usual, len(unicodedata.normalize("NFKD", letter)) * 0.8)
    return sum(0.0 if unicodedata.combining(part) else _letter(part, bold, mono) for part in parts)  # é is an e


def cut(words: str, room: float, size: float, bold: bool = False, mono: bool = False) -> str:
    """The words (clean), shortened in the middle until they take at most `room` pixels; never less than an ellipsis."""
    whole = clean(words if len(words) <= LONGEST else words[: LONGEST // 2] + words[-LONGEST // 2 :])
    if len(words) <= LONGEST and width(whole, size, bold, mono) <= room:
        return whole
    left = room - width(ELLIPSIS, size)
    head, tail = 0, len(whole)
    while head < tail:
        at_head = head <= len(whole) - tail  # one letter from the front, one from the end, in turn
        left -= width(whole[head] if at_head else whole[tail - 1], size, bold, mono)
        if left < 0:
            break
        head, tail = (head + 1, tail) if at_head else (head, tail - 1)
    return whole[:head] + ELLIPSIS + whole[max(tail, head) :]
