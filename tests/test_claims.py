"""The list of claims names cells that exist, and the verdicts rest on what those cells printed."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from labkit.lessons import task

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
ROWS = [
    [part.strip() for part in line.strip("|").split("|")]
    for line in (FOLDER / "CLAIMS.md").read_text().splitlines()
    if re.match(r"\| \d", line)
]
TESTED = [row for row in ROWS if "cell" in row[2]]

# notebook: cell: what its output must show for the verdicts that name it
EVIDENCE = {
    "00": {
        4: ["layer 3:", "tar+gzip", "command: nginx"],
        8: ["number 1 inside"],
        10: ["own", "shared"],
        12: ["memory.max       268435456", "cpu.max          100000 100000", "pids.max         4096"],
        13: ["pids.max         max"],
        14: ["writable layer", "never"],
        15: ["changed", "in the second container: ['index.html']"],
        16: ["veth", "bridge labkit0"],
        17: ["has 14 capabilities", "may mount inside: False"],
        18: ["oom_kill 1", "exit status 137"],
    },
    "02": {
        4: ["layers: 0", "jq says: Cannot iterate over null", "measured:  an error"],
        6: ["layer 1: application/vnd.oci.image.layer.v1.tar+gzip", "layer 3:"],
        12: ["hash of the plain bytes is that: True"],
        15: [
            "the damaged layer is not what its digest promises",
            "measured:  it is refused, and nothing of it is kept",
        ],
        26: ["annotations in the configuration: False", "annotations in the manifest:      True"],
        29: ["listening sockets   0", "measured:  none", "measured:  sleep 2000"],
        34: ["crane refuses: True", "the manifest of shop is not what its digest promises"],
        48: ["measured:  4 layers", "no layer EXPOSE", "a layer  COPY . ."],
        50: [
            "COPY . .        done, and the digest is the same: True",
            "RUN sh install  done, and the digest is the same: False",
        ],
        52: ["nothing changed: 0 steps done", "measured:  COPY and RUN"],
        62: ["one-stage   5 layers", "the key is in it: yes", "two-stages  2 layers", "the key is in it: no"],
    },
    "03": {
        15: ["nothing is free again", "bytes in the layer: 8388608"],
        56: ["measured:  yes"],
        58: ["in any part of app:3:  True", "in any part of well:3: False"],
        60: ["measured:  not smaller", "at-once   0.0 MiB"],
        61: ["its diff_id", "neither its digest nor its diff_id"],
    },
    "04": {
        28: ["from inside:  No such process"],
        32: ["measured:  the machine's", "password=swordfish"],
        39: ["the same as here: False"],
        40: ["mnt uts ipc pid net user cgroup time"],
        43: ["measured:  user 100000"],
        58: ["reads the secret: No such file or directory", "/           tmpfs  tmpfs     private"],
    },
    "05": {
        15: [
            "memory.max         268435456       268435456       268435456",
            "memory.swap.max    max             268435456",
        ],
        17: ["measured:  different folders", "/lesson-05/by-runc", "/system.slice/docker-lesson-05-b.scope"],
        24: ["measured:  it goes well", "measured:  it is killed"],
        27: ["shell      memory.events.local  oom_kill at least 1: True"],
        38: ["measured:  at full speed for a while, then not at all", "within a tenth of it: True"],
        45: ["measured:  the fork fails with an error", "in the group, at most: 40 processes"],
    },
    "06": {
        19: ["and you are 203.0.113.2"],
        28: ["web answers: False", "the rule has been reached: True"],
        33: ["the world calls web: this is web, and you are 203.0.113.1"],
        37: ["names: []", "172.30.0.2/24"],
        39: ["Duplex: Full", "it says something about the MTU: False"],
        43: ["web           172.30.0.2", "shop.example  203.0.113.80"],
        51: ["the machine calls: no answer", "measured:  no"],
        60: ['"address": "10.1.0.2/24"', "DEL: {}"],
    },
    "10": {
        5: ["I am labkit, process 1", "measured:  status 7"],
        37: ["cloned > mapped", "mounted > hooked > pivoted", "limited > dropped > created > filtered > executed"],
    },
}


def printed(notebook: str, number: int) -> str:
    """Everything that a code cell of a notebook printed, as text."""
    (path,) = FOLDER.glob(f"{notebook}_*.ipynb")
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return "\n".join(
        "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
        for output in cells[number - 1]["outputs"]
    )


@pytest.mark.parametrize("row", TESTED, ids=lambda row: row[1][:40])
def test_a_verdict_rests_on_what_its_cell_printed(row: list[str]) -> None:
    """The cell that a claim names exists and shows the words on which the verdict rests."""
    found = re.fullmatch(r"(\d\d) cell (\d+)", row[2])
    assert found, row
    text = printed(found[1], int(found[2]))
    assert all(words in text for words in EVIDENCE[found[1]][int(found[2])]), text


def test_every_section_of_the_article_has_a_claim() -> None:
    """Eleven sections, none forgotten; a claim without a cell is called open."""
    assert {row[0] for row in ROWS} == {str(number) for number in range(1, 12)}
    assert all("open" in row[3] for row in ROWS if row not in TESTED)


def test_the_map_leads_to_all_notebooks_that_build_something() -> None:
    """Every notebook from 02 on is reached from some flag."""
    rows = [line for line in (FOLDER / "MAP.md").read_text().splitlines() if line.startswith("|")][2:]
    assert {number for row in rows for number in re.findall(r"\b(\d\d)\b", row.rsplit("|", 2)[1])} == {
        f"{number:02}" for number in range(2, 12)
    }


def test_the_eight_steps_of_birth_order_are_in_notebook_10() -> None:
    """Its table says of each word what the exercise's check says of it."""
    source = (FOLDER / "source" / "10_docker_by_hand.py").read_text()
    rows = dict(re.findall(r"^# \| `(\w+)` \| ([^|]+) \|$", source, re.M))
    assert rows == runpy.run_path(str(task.find("birth-order").folder / "check.py"))["STEPS"]
