"""Drawing floor: which namespaces some processes share.

Owns: the matrix: a row for each kind of namespace, a column for each process.

Read: namespaces(7); lsns(8) shows the same in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping

from labkit.draw.svg import BLUE, DEEP_BLUE, DEEP_GREEN, FAINT, GREEN, Canvas, Picture, table

ROW, COLUMN, HEAD, NAMES = 34, 190, 62, 250  # pixels


def matrix(columns: Mapping[str, Mapping[str, int]], isolates: Mapping[str, str]) -> Picture:
    """columns -- {process: {kind: inode}}, the first one is whom the others are compared with
    isolates -- {kind: what it isolates}, the rows in their order
    """
    first, *others = columns
    canvas = Canvas(NAMES + COLUMN * len(columns) + 20, HEAD + ROW * len(isolates) + 20, "namespaces of processes")
    rows = [("kind", *columns, "", "what it isolates")]
    for number, name in enumerate(columns):
        canvas.text(NAMES + COLUMN * number + 85, 32, name, 14, anchor="middle", bold=True)
    for number, (kind, what) in enumerate(isolates.items()):
        top = HEAD + ROW * number
        canvas.text(16, top + 14, kind, 14, bold=True, mono=True)
        canvas.text(16, top + 28, what, 10.5, FAINT)
        cells = []
        for column, name in enumerate(columns):
            inode = columns[name][kind]
            own = name != first and inode != columns[first][kind]
            cells.append(str(inode))
            canvas.box(NAMES + COLUMN * column, top, COLUMN - 20, ROW - 6, GREEN if own else BLUE,
                       DEEP_GREEN if own else DEEP_BLUE, dashed=own)  # fmt: skip
            canvas.text(NAMES + COLUMN * column + 85, top + 18, f"{inode}{' own' if own else ''}", 12, anchor="middle",
                        mono=True)  # fmt: skip
            if column and not own:
                canvas.line(NAMES + COLUMN * column - 20, top + 14, NAMES + COLUMN * column, top + 14, DEEP_BLUE)
        shares = all(columns[name][kind] == columns[first][kind] for name in others)
        rows.append((kind, *cells, "shared" if shares else "own", what))
    return canvas.picture(table(rows))
