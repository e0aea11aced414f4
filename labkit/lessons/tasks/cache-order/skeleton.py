# exercise: cache-order
import itertools


def order(lines):
    """The lines of a Dockerfile behind FROM, in the order that costs the fewest seconds a week.

    lines -- {line: (needs, edits, seconds)}, at most seven:
             needs   -- the lines that must stand before it
             edits   -- how often a week something that it copies, or the line itself, is changed
             seconds -- how long it takes when it is not taken from the cache

    Each edit runs the line again and all lines behind it; those before it come from the cache.
    Returns a list of all the lines.
    """
    ...
