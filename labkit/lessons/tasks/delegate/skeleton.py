# exercise: delegate
import os


def delegate(group, uid):
    """Let the user `uid` make cgroups in the cgroup `group` (its folder), move its processes among them and hand on.

    The limits of `group` itself stay out of its reach.
    """
    ...
