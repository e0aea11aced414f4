"""A race: commands that take turns in one run, so that whatever else the machine does meets all of them.

Owns: the order of turns, the clock, and the arithmetic.  A time by itself says little on a busy
machine; the ratio of two neighbours in the same round says much, and the median of these more.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from labkit.errors import LabError

SPARED: set[int] = set()  # daemons that a race needs until its end
Times = dict[str, list[float]]  # a contestant's name: seconds, one a round


class Contestant(NamedTuple):
    """A command; `before` clears its way, outside the clock."""

    name: str
    words: Sequence[str]
    before: Callable[[], object] = lambda: None


class Ratio(NamedTuple):
    """The median of the rounds' ratios, and the quartiles around it."""

    median: float
    low: float
    high: float


def turns(count: int, round_: int) -> list[int]:
    """Who runs in which order in a round: the first moves on each round, and each time around the order turns.

    So nobody is always first, and nobody always runs behind the same other.
    """
    first, backwards = round_ % count, round_ // count % 2
    order = [(first + step) % count for step in range(count)]
    return order[::-1] if backwards else order


def race(contestants: Sequence[Contestant], rounds: int, environment: dict[str, str] | None = None) -> Times:
    """Seconds of each contestant in each round, after one round that does not count.

    Raises LabError, with the command's own words, when one fails.
    """
    by_name = {one.name: one for one in contestants}
    return rotated(by_name, rounds, lambda name: once(by_name[name], environment))


def rotated(names: Iterable[str], rounds: int, measure: Callable[[str], float]) -> Times:
    """What `measure` says of each in each round, in turns, after one round that does not count."""
    times: Times = {name: [] for name in names}
    all_ = list(times)
    for number in range(-1, rounds):
        for place in turns(len(all_), max(number, 0)):
            found = measure(all_[place])
            settle()
            if number >= 0:
                times[all_[place]].append(found)
    return times


def once(one: Contestant, environment: dict[str, str] | None = None) -> float:
    """Seconds that one run took, from its start to its end as a shell sees it. Raises LabError."""
    one.before()
    # A file, not a pipe: what a command leaves running behind it would hold a pipe open.
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        done = subprocess.run(one.words, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        seconds = time.perf_counter() - began
        settle()
        if done.returncode:
            said.seek(0)
            why = said.read().decode(errors="replace").strip()[-1000:]
            raise LabError(f"{one.name} ended with status {done.returncode}", why=why)
    return seconds


def settle() -> None:
    """As process 1, wait for what a command left behind (podman's clean-up), that it does not slow the next."""
    while os.getpid() == 1:
        children = Path("/proc/self/task/1/children").read_text().split()
        left = [int(pid) for pid in children if int(pid) not in SPARED]
        if not left:
            return
        try:
            os.waitpid(left[0], 0)
        except ChildProcessError:
            pass


def ratio(mine: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """My time in theirs, round by round: below 1 I am faster."""
    each = [a / b for a, b in zip(mine, theirs, strict=True)]
    if len(each) == 1:
        return Ratio(each[0], each[0], each[0])
    low, _, high = statistics.quantiles(each, n=4, method="inclusive")
    return Ratio(statistics.median(each), low, high)
