"""cpu.max is"""

from pathlib import Path


def limit(parent, name, memory, cpus, pids, pid):
    """Make the cgroup `name` below the cgroup `parent` (a Path), and move the process `pid` into it."""
    group = Path(parent, name)
    group.mkdir()
    (group / "memory.max").write_text(f"{memory}")
    (group / "cpu.max").write_text(f"{max(round(cpus * 1000), 1000)} 100000")
    (group / "pids.max").write_text(f"{pids}")
    (group / "cgroup.procs").write_text(f"{pid}")
