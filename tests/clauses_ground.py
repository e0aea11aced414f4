"""Ground for the specification's clauses: every runtime asked once, in a machine of its own."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from pytest import MonkeyPatch

from bench import machine
from labkit.runtime import program

TREE = Path(__file__).resolve().parents[1]
OURS = "labkit"
Found = dict[str, dict[str, str]]

# What the specification has and this runtime has not, and why; runc has it neither.
DEVIATIONS = {
    "runtime.md, Delete: of one that is created, and so has not stopped, it is an error":
        "runc, crun and their callers delete a created container by it: containerd's shim relies on that",
}  # fmt: skip


def asked(peers: dict[str, str], *, limits: bool, only: str = "") -> Found:
    """{clause: {runtime: what came of it}}."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="clauses-") as name, MonkeyPatch.context() as patch:
        folder = Path(name)
        folder.chmod(0o755)
        program.write(f"{folder}/labkit-runtime", str(TREE))
        runtimes = {OURS: f"{folder}/labkit-runtime"} | peers
        words = ["--folder", name, "--only", only, *(["--limits"] if limits else [])]
        patch.setenv("PYTHONPATH", f"{TREE}:{TREE / 'tests'}")
        status = machine.within("v2", "rt_clauses", *words, *(f"{one}={what}" for one, what in runtimes.items()))
        assert status == 0, f"rt_clauses ended with {status}"
        found: Found = json.loads((folder / "clauses").read_text())
        if kept := os.environ.get("LABKIT_CLAUSES"):  # for clauses_table
            Path(kept).write_text(json.dumps(found))
        return found


def worse(found: Found) -> dict[str, dict[str, str]]:
    """The clauses where runc passes, and labkit does not."""
    return {name: row for name, row in found.items() if row["runc"] == "passed" and row[OURS] != "passed"}


def failed(found: Found) -> dict[str, str]:
    """The clauses that labkit does not keep, without the deviations that are meant."""
    return {name: row[OURS] for name, row in found.items()
            if row[OURS].startswith("failed") and name not in DEVIATIONS}  # fmt: skip
