"""Meters of a container: the difference of samples, docker's numbers and units, and a picture that is legible."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.draw import meters
from labkit.observe import usage
from labkit.observe.usage import Sample
from labkit.runtime import stats
from tests.draw_ground import faults

FIRST = Sample(10.0, 2.0, 100 << 20, 256 << 20, 1000, 2000, 0, 0, 3)
SECOND = Sample(12.0, 2.5, 128 << 20, 256 << 20, 3000, 2000, 1 << 20, 0, 4)

count = st.integers(0, 1 << 50)
samples = st.lists(
    st.builds(Sample, st.just(0.0), st.floats(0, 1e6), count, count, count, count, count, count, st.integers(0, 99999)),
    min_size=1,
    max_size=60,
).map(lambda found: [one._replace(at=float(place)) for place, one in enumerate(found)])


def test_the_difference_of_two_samples_is_rates_and_shares() -> None:
    """Half a second of CPU time in two seconds is a quarter of a CPU."""
    found = usage.between(FIRST, SECOND)
    assert (found.seconds, found.cpu, found.memory_share) == (2.0, 0.25, 0.5)
    assert (found.received, found.sent, found.read) == (1000.0, 0.0, (1 << 20) / 2)


def test_a_sample_compared_with_itself_moved_nothing() -> None:
    """No division by nothing."""
    found = usage.between(FIRST, FIRST)
    assert (found.cpu, found.received, found.now) == (0.0, 0.0, FIRST)


def test_network_bytes_leave_the_loopback_out() -> None:
    """Columns 1 and 9 of each device, summed."""
    head = "Inter-|   Receive\n face |bytes\n"
    text = head + "    lo: 500 5 0 0 0 0 0 0 500 5 0 0 0 0 0 0\n  eth0: 70 1 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n"
    assert usage.network(text + " eth1:1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n") == (71, 32)


def test_a_row_has_dockers_columns() -> None:
    """As `docker stats` writes them."""
    one = {"id": "0123456789abcdef" * 4, "name": "web"}
    assert stats.row(one, FIRST, SECOND) == (
        *("0123456789ab", "web", "25.00%", "128MiB / 256MiB", "50.00%", "3kB / 2kB", "1.05MB / 0B", "4"),
    )
    document = json.loads(stats._json([stats.row(one, FIRST, SECOND)]))
    assert set(document) == {*stats.KEYS, "Container"} and document["MemUsage"] == "128MiB / 256MiB"


@pytest.mark.parametrize(("number", "text"), [(0, "0B"), (1536, "1.5KiB"), (268435456, "256MiB"), (7654321, "7.3MiB")])
def test_memory_is_written_as_docker_does(number: int, text: str) -> None:
    """Four digits in units of 1024."""
    assert stats.binary(number) == text


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(samples, st.none() | st.floats(0.01, 64), st.text(max_size=40))
def test_meters_of_anything_are_legible(found: list[Sample], cpus: float | None, name: str) -> None:
    """Any counters, one sample or sixty, any name: valid XML, nothing over something else, a printable twin."""
    picture = meters.picture(name, found, cpus)
    ET.fromstring(picture.svg)
    assert faults(picture) == []
    assert len(picture.text.splitlines()) >= 7


def test_meters_say_the_same_in_both_forms() -> None:
    """The numbers of the picture stand in its twin; what nears its limit is red."""
    picture = meters.picture("web", [FIRST, SECOND._replace(memory=250 << 20)], cpus=0.5)
    for words in ("25.0 % of 0.5 CPUs", "262 MB of 268 MB", "in 1.0 kB/s, out 0 B/s", "read 524 kB/s, written 0 B/s"):
        assert words in picture.svg and words in picture.text
    assert meters.DEEP_RED in picture.svg and "98 %" in picture.text


@pytest.mark.skipif(not Path(f"/proc/{os.getpid()}/net/dev").exists(), reason="no /proc")
def test_the_machines_memory_is_the_limit_where_none_is_set() -> None:
    """MemTotal, in bytes."""
    assert usage.machine_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
