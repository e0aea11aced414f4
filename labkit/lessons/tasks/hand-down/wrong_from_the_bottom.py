"""begin at the top"""


def hand_down(top, group, names):
    """Hand the controllers `names` (a list) down from the cgroup `top`, through all between, to the children of `group`."""
    step = group
    while True:
        for pid in (step / "cgroup.procs").read_text().split():
            (step / "leaf").mkdir(exist_ok=True)
            (step / "leaf" / "cgroup.procs").write_text(pid)
        (step / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in names))
        if step == top:
            return
        step = step.parent
