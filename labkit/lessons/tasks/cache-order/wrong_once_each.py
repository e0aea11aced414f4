"""is missing"""

import itertools


def order(lines):
    """The lines of a Dockerfile behind FROM, in the order that costs the fewest seconds a week."""

    def allowed(found):
        return all(need in found[:place] for place, line in enumerate(found) for need in lines[line][0])

    def cost(found):
        total, behind = 0, 0
        for line in reversed(found):
            _, edits, seconds = lines[line]
            behind += seconds
            total += edits * behind
        return total

    return list(min(filter(allowed, itertools.permutations(lines)), key=cost))[1:]
