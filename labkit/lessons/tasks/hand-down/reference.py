# exercise: hand-down
from pathlib import Path


def hand_down(top, group, names):
    """Hand the controllers `names` (a list) down from the cgroup `top`, through all between, to the children of `group`."""
    steps = [top]
    for part in group.relative_to(top).parts:
        steps.append(steps[-1] / part)
    for step in steps:
        if pids := (step / "cgroup.procs").read_text().split():
            leaf = step / "leaf"
            leaf.mkdir(exist_ok=True)
            for pid in pids:
                (leaf / "cgroup.procs").write_text(pid)
        (step / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in names))
