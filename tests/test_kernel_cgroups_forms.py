"""The forms of cgroup files, from recorded text and from made-up numbers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import BadInput, LabError, NotFound
from labkit.kernel.cgroups import cpu, events, forms, freeze, io, memory, pids, pressure, tree


@given(st.sets(st.integers(0, 300)))
def test_a_list_of_numbers_survives_being_written(numbers: set[int]) -> None:
    """0-2,5 and back."""
    assert forms.numbers(forms.listed(numbers)) == numbers


@pytest.mark.parametrize(("numbers", "text"), [({0}, "0"), ({0, 1, 2, 5}, "0-2,5"), ({3, 4}, "3-4"), (set(), "")])
def test_a_list_is_as_short_as_the_kernel_writes_it(numbers: set[int], text: str) -> None:
    """Neighbours become a range."""
    assert forms.listed(numbers) == text


@given(st.none() | st.integers(0, 2**63))
def test_an_amount_survives_being_written(number: int | None) -> None:
    """None is max."""
    assert forms.amount(forms.word(number)) == number


def test_a_nested_file_has_a_bare_line_for_an_idle_device() -> None:
    """io.stat of a CD drive that was never read."""
    text = "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n11:0 \n"
    assert forms.nested(text)["254:0"]["wbytes"] == "2" and forms.nested(text)["11:0"] == {}


def test_pressure_is_percent_and_seconds() -> None:
    """The two lines of a pressure file; cpu's may lack the second."""
    text = "some avg10=1.50 avg60=0.25 avg300=0.01 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
    found = pressure.parse(text)
    assert found.some == (1.5, 0.25, 0.01, 2.5) and found.full.total == 1e-06
    assert pressure.parse(text.splitlines()[0]).full == pressure.NOTHING


@pytest.mark.parametrize("reading", [memory.use, cpu.stat, pids.use, io.stat, memory.limits, pids.limits])
def test_a_cgroup_that_is_gone_is_said_to_be(reading: object, tmp_path: Path) -> None:
    """Every reading names the cgroup that is not there."""
    with pytest.raises(NotFound, match="there is no cgroup"):
        reading(tmp_path / "gone")  # type: ignore[operator]


def test_waiting_for_a_cgroup_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """And no endless wait."""
    with pytest.raises(NotFound, match=r"cannot watch memory\.events"):
        events.Watch(tmp_path / "gone", "memory.events")


@pytest.mark.parametrize(("stall", "window"), [(0.1, 0.4), (0.1, 11), (2, 1), (0, 1)])
def test_a_trigger_that_the_kernel_refuses_is_bad_input(stall: float, window: float, tmp_path: Path) -> None:
    """Said before anything is opened."""
    with pytest.raises(BadInput, match=r"0\.5 to 10 s"):
        pressure.Trigger(tmp_path, "memory", stall=stall, window=window)


def test_a_quota_below_a_millisecond_is_bad_input(tmp_path: Path) -> None:
    """1 % of a CPU in periods of 50 ms."""
    with pytest.raises(BadInput, match=r"that is 0.5 ms of each period"):
        cpu.limit(tmp_path, cpus=0.01, period=0.05)


def test_devices_are_named_by_number_or_path(tmp_path: Path) -> None:
    """A number stays; what is no block device is refused with the reason."""
    assert io.device("8:16") == "8:16"
    with pytest.raises(BadInput, match="/dev/null is no block device"):
        io.device("/dev/null")
    with pytest.raises(NotFound, match="there is no block device"):
        io.device(tmp_path / "nothing")


def test_a_cgroup_that_goes_while_it_is_removed_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd takes an empty scope's folder away: between two looks of ours, and that is no error."""
    tries: list[str] = []

    def busy(path: str) -> None:
        tries.append(os.fspath(path))
        raise OSError(errno.EBUSY, "somebody is in it still")

    monkeypatch.setattr(tree.os, "rmdir", busy)
    tree.remove(tmp_path / "gone")
    assert tries == [str(tmp_path / "gone")]


def test_what_does_not_stand_still_in_time_goes_on(tmp_path: Path) -> None:
    """A freeze that fails is taken back: the kernel would complete it later, when nobody reckons with it."""
    (tmp_path / "cgroup.freeze").write_text("0")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(LabError, match="is not frozen yet"):
        freeze(tmp_path, seconds=0.05)
    assert (tmp_path / "cgroup.freeze").read_text() == "0"
