"""Drawing floor: several pictures on one sheet, one below the other.

Owns: the sheet, such as the README's.

Read: the SVG 2 specification, "Nested svg elements".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from labkit.draw.svg import FAINT, FONT, INK, PAPER
from labkit.draw.svg import MONO as MONOSPACE
from labkit.draw.words import clean, cut

MARGIN, CAPTION, LINE, SIZE = 16, 34, 17, 11.5  # pixels


def stack(pictures: Sequence[tuple[str, str]], notes: Sequence[Sequence[str]] = ()) -> str:
    """One SVG of several (caption, svg), as wide as the widest. Raises ValueError for what is no SVG of ours.

    notes -- for each picture, lines that stand between its caption and it; what is longer than it is wide is cut
    """
    parts, top, wide = [], float(MARGIN), 0.0
    for number, (caption, svg) in enumerate(pictures):
        found = re.search(r"viewBox='0 0 ([0-9.]+) ([0-9.]+)'", svg)
        if found is None:
            raise ValueError(f"the picture {caption!r} has no viewBox")
        width, height = float(found[1]), float(found[2])
        parts.append(f"<text x='{MARGIN}' y='{top + 18:g}' font-size='16' font-weight='600' fill='{INK}' "
                     f"{FONT}>{escape(clean(caption))}</text>")  # fmt: skip
        for line in notes[number] if notes else ():
            shown = cut(clean(line), width - 2 * MARGIN, SIZE, mono=True)
            parts.append(f"<text x='{MARGIN}' y='{top + CAPTION + 8:g}' font-size='{SIZE}' fill='{INK}' {MONOSPACE}>"
                         f"<title>{escape(clean(line))}</title>{escape(shown)}</text>")  # fmt: skip
            top += LINE
        parts.append(svg.replace("<svg ", f"<svg x='0' y='{top + CAPTION:g}' height='{height:g}' ", 1))
        top += CAPTION + height + MARGIN
        wide = max(wide, width)
        parts.append(f"<line x1='{MARGIN}' y1='{top - 8:g}' x2='{wide - MARGIN:g}' y2='{top - 8:g}' stroke='{FAINT}' "
                     "stroke-width='0.5'/>")  # fmt: skip
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {wide:g} {top:g}' width='{wide:g}'>"
    return "\n".join([head, f"<rect width='{wide:g}' height='{top:g}' fill='{PAPER}'/>", *parts[:-1], "</svg>", ""])
