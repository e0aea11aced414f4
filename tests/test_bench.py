"""The benchmark's arithmetic and order, on made-up commands: that it measures, never how fast anything is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench import images, machine, observe, race, runtimes
from bench.race import Contestant
from labkit.errors import LabError

TREE = Path(__file__).resolve().parents[1]


def writer(name: str, file: Path) -> Contestant:
    """A command that adds its name to a file."""
    return Contestant(name, ["sh", "-c", f'echo {name} >>"{file}"'])


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], (2.0, 2.0, 2.0)),
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5, (3.0, 2.0, 4.0)),
        ([5.0], [10.0], (0.5, 0.5, 0.5)),
        # One round in which the machine did something else moves the mean, not the median.
        ([1.0, 1.0, 1.0, 1.0, 100.0], [2.0] * 5, (0.5, 0.5, 0.5)),
    ],
)
def test_a_ratio_is_the_median_of_the_rounds(
    mine: list[float], theirs: list[float], expected: tuple[float, float, float]
) -> None:
    """The ratio is the median over the rounds, with the quartiles beside it."""
    assert race.ratio(mine, theirs) == pytest.approx(expected)


def test_a_ratio_compares_within_a_round() -> None:
    """A slow round that slows both leaves the ratio alone, though the medians of the times would not agree."""
    assert race.ratio([1.0, 10.0, 100.0], [2.0, 20.0, 200.0]) == pytest.approx((0.5, 0.5, 0.5))


def test_a_ratio_of_unequal_rounds_is_refused() -> None:
    """Times of different numbers of rounds are no pairs."""
    with pytest.raises(ValueError, match="shorter"):
        race.ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_turns_are_fair(count: int) -> None:
    """Over a whole cycle each is first equally often, and runs before each other one as often as after it."""
    cycle = [race.turns(count, number) for number in range(2 * count)]
    assert all(sorted(order) == list(range(count)) for order in cycle)
    assert set(Counter(order[0] for order in cycle).values()) == {2}
    before = Counter((a, b) for order in cycle for a in order for b in order if order.index(a) < order.index(b))
    assert all(before[a, b] == before[b, a] for a in range(count) for b in range(count) if a != b)


def test_contestants_take_turns(tmp_path: Path) -> None:
    """Every round runs each once in its order; the first run of each is not counted."""
    file = tmp_path / "order"
    times = race.race([writer(name, file) for name in "abc"], 4)
    assert {name: len(found) for name, found in times.items()} == {"a": 4, "b": 4, "c": 4}
    assert file.read_text().split() == [*"abc", *"abc", *"bca", *"cab", *"cba"]


def test_whatever_is_measured_takes_turns() -> None:
    """Not commands alone: each is first equally often, and the first round does not count."""
    asked: list[str] = []

    def measure(name: str) -> float:
        asked.append(name)
        return float(len(asked))

    times = race.rotated("abc", 4, measure)
    assert "".join(asked) == "abc" + "abc" + "bca" + "cab" + "cba"
    assert times == {"a": [4.0, 9.0, 11.0, 15.0], "b": [5.0, 7.0, 12.0, 14.0], "c": [6.0, 8.0, 10.0, 13.0]}


def test_memory_is_what_a_process_has_alone_and_all_of_it() -> None:
    """From a recorded smaps_rollup; text that others share counts in the one and not in the other."""
    text = ("55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:     4000 kB\nPss:     2500 kB\nShared_Clean:  2000 kB\n"
            "Private_Clean:  500 kB\nPrivate_Dirty:  1500 kB\n")  # fmt: skip
    assert runtimes.kinds(text) == {"Private": 2000 * 1024.0, "Rss": 4000 * 1024.0}


def test_the_way_is_cleared_before_each_run(tmp_path: Path) -> None:
    """`before` runs ahead of every run, the uncounted one too."""
    cleared: list[int] = []
    times = race.race([Contestant("a", ["mkdir", str(tmp_path / "x")], lambda: cleared.append(clear(tmp_path)))], 2)
    assert (len(times["a"]), len(cleared)) == (2, 3)


def clear(folder: Path) -> int:
    return subprocess.run(["rm", "-rf", str(folder / "x")]).returncode


def test_the_clock_runs_for_the_whole_command() -> None:
    """A command that waits 0.2 s takes no less."""
    assert race.once(Contestant("sleep", ["sleep", "0.2"])) >= 0.2


def test_a_contestant_that_fails_ends_the_race() -> None:
    """A failure is never measured: it is an error with the command's own words."""
    with pytest.raises(LabError, match="b ended with status 7") as caught:
        race.race([Contestant("a", ["true"]), Contestant("b", ["sh", "-c", "echo no luck >&2; exit 7"])], 3)
    assert caught.value.why == "no luck"


def test_the_generated_layer_comes_from_its_seed() -> None:
    """Two generations give the same files, many small and a few large."""
    first, second = images.generated(50), images.generated(50)
    assert [(e.header.name, e.data) for e in first] == [(e.header.name, e.data) for e in second]
    assert sum(len(entry.data) == images.LARGE_SIZE for entry in first) == 1
    assert sum(0 < len(entry.data) < 1 << 18 for entry in first) == images.SMALL_FILES // 50


def _groups() -> list[Path]:
    """The benchmark's cgroups in every hierarchy; one that was killed earlier may have left some."""
    return sorted(path for place in machine.hierarchies().values() for path in place.glob("bench-*"))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")
@pytest.mark.parametrize("view", machine.VIEWS)
def test_a_view_shows_what_it_says_and_leaves_nothing(view: str, tmp_path: Path) -> None:
    """Inside, process 1 sees the view over /sys/fs/cgroup; afterwards mounts and cgroups are as they were."""
    if view == "v1" and set(machine.hierarchies()) <= {""}:
        view = "v2"  # a kernel without v1 has this view alone
    mounts, groups = Path("/proc/self/mountinfo").read_text(), _groups()
    (tmp_path / "inner.py").write_text(
        "import os, subprocess, sys\n"
        f"sys.path.insert(0, {str(TREE)!r})\n"
        "from bench import machine\n"
        "machine.arrange(sys.argv[2])\n"
        "said = subprocess.run(['stat', '-f', '-c', '%T', '/sys/fs/cgroup'], capture_output=True, text=True).stdout\n"
        "(machine.CGROUPS / 'left-behind' if sys.argv[2] == 'v2' else machine.CGROUPS / 'aside/left').mkdir()\n"
        "subprocess.Popen(['sleep', '1000'])\n"
        "sys.exit(0 if (os.getpid(), said.strip()) == (1, {'v2': 'cgroup2fs', 'v1': 'tmpfs'}[sys.argv[2]]) else 4)\n"
    )
    script = (
        f"import os; os.chdir({str(tmp_path)!r}); from bench import machine; exit(machine.within({view!r}, 'inner'))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=TREE, env={**os.environ, "PYTHONPATH": str(TREE)})
    assert done.returncode == 0
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert _groups() == groups


@pytest.mark.long
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="races containers: needs root")
def test_the_whole_benchmark_runs() -> None:
    """`python -m bench --quick` prints a ratio for each comparison and a verdict for each aim, and leaves nothing."""
    done = subprocess.run([sys.executable, "-m", "bench", "--quick"], cwd=TREE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peers = ["podman run", "runc run", "umoci unpack", "umoci raw unpack", "podman pull", "python -c pass"]
    assert all(peer in done.stdout for peer in peers)
    assert all(name in done.stdout for name in ("difference of two", "live view of one container", "netavark"))
    assert done.stdout.count("aim: ") == 3 + len(observe.AIMS) + 1 + 2
