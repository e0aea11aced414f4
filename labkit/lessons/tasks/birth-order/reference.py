# exercise: birth-order
def order(steps):
    """The words of `steps` as a list, in an order that works."""
    return ["namespaces", "mounts", "pivot", "name", "bounding", "user", "filter", "program"]
