"""CLAUSES.md: every clause of the OCI runtime specification, its check, and what each runtime did, in each place.

LABKIT_CLAUSES=/tmp/here.json pytest tests/test_rt_clauses.py -k bar
LABKIT_CLAUSES=/tmp/guest.json pytest -m long tests/guest/test_rt_clauses.py     (in the lab's machine)
python tests/clauses_table.py "a hybrid host=/tmp/here.json" "the lab=/tmp/guest.json" > tests/CLAUSES.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import rt_clauses
from clauses_ground import DEVIATIONS, OURS, Found

HEAD = """\
# The OCI runtime specification, clause by clause

Every sentence of runtime.md, config.md and config-linux.md (1.2.1) that binds a runtime and can be seen from outside,
the check that tries it, and what came of it. Made by `tests/clauses_table.py` from runs of `tests/test_rt_clauses.py`
and `tests/guest/test_rt_clauses.py`; the checks are our own, since the validation programs of
opencontainers/runtime-tools cannot be had as packages.

*not here*: this place cannot show it (a controller, a module, a right is missing). *does not start*: the runtime
starts no container at all in this place.
"""


def table(found: dict[str, Found]) -> str:
    """{place: answers} as a table in Markdown, and a count of each column."""
    columns = [(place, peer) for place, rows in found.items() for peer in next(iter(rows.values()))]
    dead = {(place, peer) for place, peer in columns
            if not any(row[peer] == "passed" for row in found[place].values())}  # fmt: skip
    lines = ["| clause | check | " + " | ".join(f"{peer}, {place}" for place, peer in columns) + " |"]
    lines.append("|---|---|" + "---|" * len(columns))
    counts = {column: {"passed": 0, "failed": 0, "not here": 0} for column in columns}
    for one in rt_clauses.every():
        results = []
        for place, peer in columns:
            said = found[place].get(one.name, {}).get(peer, "not here").partition(":")[0]
            counts[place, peer][said] += 1
            results.append("does not start" if (place, peer) in dead else said)
        where = Path(one.check.__code__.co_filename).name
        lines.append(f"| {one.name} ({one.level}) | {where} | {' | '.join(results)} |")
    lines.append("")
    for (place, peer), count in counts.items():
        said = "does not start" if (place, peer) in dead else ", ".join(f"{n} {word}" for word, n in count.items())
        lines.append(f"- {peer}, {place}: {said}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the file."""
    found = {
        place: json.loads(Path(file).read_text()) for place, _, file in (word.partition("=") for word in sys.argv[1:])
    }
    print(HEAD)
    print(table(found))
    print("Not kept, and meant:\n")
    for name, why in DEVIATIONS.items():
        print(f"- {name} ({OURS}): {why}.")


if __name__ == "__main__":
    main()
