"""A cgroup has processes or hands controllers on"""


def hand_down(top, group, names):
    """Hand the controllers `names` (a list) down from the cgroup `top`, through all between, to the children of `group`."""
    steps = [top]
    for part in group.relative_to(top).parts:
        steps.append(steps[-1] / part)
    for step in steps:
        (step / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in names))
