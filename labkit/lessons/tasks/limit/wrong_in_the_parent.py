"""the limit stands in the parent"""

from pathlib import Path


def limit(parent, name, memory, cpus, pids, pid):
    """Make the cgroup `name` below the cgroup `parent` (a Path), and move the process `pid` into it."""
    parent = Path(parent)
    (parent / name).mkdir()
    (parent / "memory.max").write_text(f"{memory}")
    (parent / "cpu.max").write_text(f"{round(cpus * 100_000)} 100000")
    (parent / "pids.max").write_text(f"{pids}")
    (parent / name / "cgroup.procs").write_text(f"{pid}")
