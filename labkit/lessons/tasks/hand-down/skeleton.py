# exercise: hand-down
from pathlib import Path


def hand_down(top, group, names):
    """Hand the controllers `names` (a list) down from the cgroup `top`, through all between, to the children of `group`.

    `group` lies below `top`, one or several levels. Processes that sit in the way move into a child `leaf` of the
    cgroup in which they sit; those in other cgroups stay where they are.
    """
    ...
