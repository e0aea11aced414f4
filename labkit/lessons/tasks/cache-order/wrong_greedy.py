"""a whole group must move"""

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

    found = []
    while len(found) < len(lines):
        ready = [line for line in lines if line not in found and set(lines[line][0]) <= set(found)]
        found.append(min(ready, key=lambda line: lines[line][1] / lines[line][2]))
    return found
