"""`update` and `events` where no controller is needed: what flags and documents come to, and the form of the lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from labkit.errors import BadInput, LabError
from labkit.runtime.life import events, update, words


def asked(*argv: str) -> dict[str, Any]:
    """What `update` with these words wants."""
    return update.asked(words.understand(["update", *argv, "one"]))


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (("--memory", "64m"), {"memory": {"limit": 64 << 20}}),
        (("--memory", "1000", "--memory-swap", "-1"), {"memory": {"limit": 1000, "swap": -1}}),
        (("--cpu-quota", "5000", "--cpu-period", "10000"), {"cpu": {"quota": 5000, "period": 10000}}),
        (("--cpu-share", "512", "--cpuset-cpus", "0"), {"cpu": {"shares": 512, "cpus": "0"}}),
        (("--cpu-idle", "0"), {"cpu": {"idle": 0}}),
        (("--pids-limit", "7", "--blkio-weight", "20"), {"pids": {"limit": 7}, "blockIO": {"weight": 20}}),
        (("--pids-limit", "0"), {}),
        ((), {}),
    ],
)
def test_flags_are_resources(argv: tuple[str, ...], wanted: dict[str, Any]) -> None:
    """In the specification's words; 0 leaves a limit as it is."""
    assert asked(*argv) == wanted


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--memory", "much"), "--memory 'much' is not a size"),
        (("--pids-limit", "x"), "--pids-limit 'x' is no number"),
        (("--cpu-quota", "1.5"), "--cpu-quota '1.5' is no number"),
        (("--cpu-share", "-5"), "linux.resources.cpu.shares"),
        (("--l3-cache-schema", "L3:0=f"), "intelRdt"),
        (("--resources", "/no/such"), "/no/such"),
    ],
)
def test_what_cannot_be_meant_is_refused(argv: tuple[str, ...], said: str) -> None:
    """By the name of the option or the field."""
    with pytest.raises(LabError) as caught:
        asked(*argv)
    assert said in str(caught.value)


def test_a_document_goes_before_flags(tmp_path: Path) -> None:
    """Zeros and empty texts in it mean: as it is; devices are not updated."""
    file = tmp_path / "r"
    file.write_text(json.dumps({"memory": {"limit": 5, "swap": 0}, "cpu": {"cpus": "", "shares": 0}, "devices": [],
                                "unified": {"memory.high": "max"}}))  # fmt: skip
    wanted = {"memory": {"limit": 5}, "unified": {"memory.high": "max"}}
    assert asked("--resources", str(file), "--pids-limit", "3") == wanted
    file.write_text('{"memory": {"limit": "x"}}')
    with pytest.raises(BadInput, match=r"linux.resources.memory.limit"):
        asked("--resources", str(file))


def test_half_a_file_is_completed() -> None:
    """cpu.max has quota and period, and swap counts memory too: the other half is the present one."""
    before = {"cpu": {"quota": 5, "period": 7}, "memory": {"limit": 10, "swap": 20}}
    assert update.completed(before, {"cpu": {"quota": 6}}) == {"cpu": {"quota": 6, "period": 7}}
    assert update.completed({}, {"cpu": {"quota": 6}}) == {"cpu": {"quota": 6, "period": 100000}}
    assert update.completed({}, {"cpu": {"period": 6}}) == {"cpu": {"quota": -1, "period": 6}}
    assert update.completed(before, {"memory": {"swap": 30}}) == {"memory": {"swap": 30, "limit": 10}}
    assert update.completed(before, {"memory": {"limit": 30}}) == {"memory": {"limit": 30}}
    assert before == {"cpu": {"quota": 5, "period": 7}, "memory": {"limit": 10, "swap": 20}}


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("1.5s", 1.5), ("2h", 7200)])
def test_spans_of_time_are_gos(text: str, seconds: float) -> None:
    """The forms that runc takes."""
    assert events.interval(text) == seconds


@given(some.text(alphabet="0123456789smh. x-", max_size=6))
def test_other_spans_are_refused(text: str) -> None:
    """A span above 0, or BadInput."""
    try:
        assert events.interval(text) > 0
    except BadInput as error:
        assert "--interval" in str(error)


def test_readings_have_runcs_form(tmp_path: Path) -> None:
    """From recorded files; what has no limit is the largest number."""
    for name, text in {
        "cpu.stat": "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 2\nnr_throttled 1\nthrottled_usec 3\n",
        "memory.stat": "anon 5\nfile 7\n", "memory.current": "12\n", "memory.max": "max\n", "memory.peak": "15\n",
        "memory.swap.current": "1\n", "memory.swap.max": "0\n", "pids.current": "3\n", "pids.max": "9\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        "hugetlb.2MB.current": "0\n", "hugetlb.2MB.max": "max\n", "hugetlb.2MB.events": "max 4\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    found = events.stats(str(tmp_path))
    assert found["cpu"]["usage"] == {"total": 10000, "kernel": 4000, "user": 6000}
    assert found["cpu"]["throttling"] == {"periods": 2, "throttledPeriods": 1, "throttledTime": 3000}
    assert found["memory"]["usage"] == {"limit": 2**64 - 1, "usage": 12, "max": 15, "failcnt": 0}
    assert found["memory"]["swap"]["usage"] == 13 and found["memory"]["raw"] == {"anon": 5, "file": 7}
    assert found["pids"] == {"current": 3, "limit": 9}
    assert found["blkio"]["ioServicedRecursive"][1] == {"major": 8, "minor": 0, "op": "Write", "value": 4}
    assert found["hugetlb"] == {"2MB": {"usage": 0, "max": 0, "failcnt": 4}}
