"""pivot: Device or resource busy"""


def order(steps):
    return ["namespaces", "pivot", "mounts", "name", "bounding", "user", "filter", "program"]
