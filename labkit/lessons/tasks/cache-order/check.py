"""Top floor: the check of cache-order.

Owns: Dockerfiles with random numbers, what an order of their lines costs, and why one is too dear.
Read: Docker's documentation, "Optimize cache usage in builds".
"""

from __future__ import annotations

import itertools

from labkit.lessons.outcome import Wrong


def usual(lab):
    """The one that everybody knows: libraries before sources."""
    name, sources = lab.token(), lab.token()
    copy, install = f"COPY {name}.lock ./", f"RUN install {name}.lock"
    every, build = f"COPY {sources} ./{sources}", f"RUN build {sources}"
    return {
        every: ([], lab.number(60, 90), 1),
        build: ([every, install], 0, lab.number(20, 40)),
        install: ([copy], lab.number(1, 2), lab.number(90, 200)),
        copy: ([], lab.number(1, 2), 1),
    }


def slow(lab):
    """Two lines that need nothing: the one that is edited less often takes a hundred times as long... behind."""
    quick, long = f"COPY {lab.token()} /etc/", f"RUN fetch {lab.token()}"
    last = f"RUN test {lab.token()}"
    return {
        long: ([], lab.number(10, 12), lab.number(200, 300)),
        quick: ([], lab.number(5, 8), 1),
        last: ([long], 0, lab.number(2, 4)),
    }


def blocked(lab):
    """A long line waits behind one that is edited often, and beside them stands one in the middle."""
    often, long = f"COPY {lab.token()} ./", f"RUN compile {lab.token()}"
    middle, rare = f"RUN generate {lab.token()}", f"RUN apt-get install {lab.token()}"
    scale = lab.number(2, 5)
    return {
        long: ([often], 0, 30 * scale),
        often: ([], 12, scale),
        middle: ([], 6, scale),
        rare: ([], 1, 2 * scale),
    }


def check(order, lab):
    """The function runs in a child; each answer is priced here."""
    child = lab.child()
    for make in (usual, slow, blocked, usual):
        lines = make(lab)
        found = child.do(order, lines)
        judge(found, lines)


def judge(found, lines):
    """All lines, each after what it needs, at the least cost."""
    if not isinstance(found, list | tuple) or not all(isinstance(line, str) for line in found):
        raise Wrong(f"a list of lines is wanted; {found!r:.80} came back")
    if sorted(found) != sorted(lines):
        odd = sorted(set(lines) - set(found)) or sorted(set(found) - set(lines)) or ["a line"]
        word = "is missing" if set(lines) - set(found) else "is there and does not belong there, or is there twice"
        raise Wrong(f"{odd[0]!r} {word}: the same lines are wanted, in another order")
    if bad := early(found, lines):
        raise Wrong(f"{bad[0]!r} stands before {bad[1]!r}, which it needs")
    orders = (one for one in itertools.permutations(lines) if not early(one, lines))
    best = min(cost(one, lines) for one in orders)
    paid = cost(found, lines)
    if paid > best:
        raise Wrong(f"{dear(found, lines)}; your order costs {paid} seconds a week, {best} is possible")


def early(found, lines):
    """(a line, what it needs and only comes behind it), or nothing."""
    for place, line in enumerate(found):
        for need in lines[line][0]:
            if need not in found[:place]:
                return line, need
    return None


def cost(found, lines):
    """Seconds a week: every edit runs the line and all behind it."""
    return sum(lines[line][1] * sum(lines[each][2] for each in found[place:]) for place, line in enumerate(found))


def dear(found, lines):
    """Why an order is too dear: two neighbours that should change places, if there are such."""
    for first, second in itertools.pairwise(found):
        swapped = lines[first][1] * lines[second][2] > lines[second][1] * lines[first][2]
        if swapped and first not in lines[second][0]:
            if lines[first][1] > lines[second][1]:
                return f"each of the {lines[first][1]} edits a week of {first!r} runs {second!r} again, without need"
            return f"{first!r} is edited less often than {second!r}, but that one takes so long that it must go first"
    return "no two neighbours should change places, and still another order is cheaper: a whole group must move"
