# exercise: birth-order
def order(steps):
    """The words of `steps` as a list, in an order that works.

    steps -- {"bounding": "...", "filter": "...", ...}: eight words, and what each step does
    """
    ...
