"""memory.max is max"""

from pathlib import Path


def limit(parent, name, memory, cpus, pids, pid):
    """Make the cgroup `name` below the cgroup `parent` (a Path), and move the process `pid` into it."""
    group = Path(parent, name)
    group.mkdir()
    (group / "memory.high").write_text(f"{memory}")
    (group / "cpu.max").write_text(f"{round(cpus * 100_000)} 100000")
    (group / "pids.max").write_text(f"{pids}")
    (group / "cgroup.procs").write_text(f"{pid}")
