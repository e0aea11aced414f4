"""The wiring picture of a lesson: names instead of letters, counters under devices, and where they come from."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from labkit.draw import network
from labkit.observe import traffic
from tests.draw_ground import faults, snapshot

MACHINE = snapshot()
PEOPLE = {1: "machine", 4711: "web"}
NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0
eth0:1:    9000      10    0    1    0     0          0         0     8000       9    0    3    0     0       0          0
"""  # noqa: E501


def test_only_named_networks_are_drawn_and_by_their_names() -> None:
    """Titles and the ends of cables say machine and web; the third network of the snapshot is not there."""
    text = network.wiring(MACHINE, PEOPLE).text
    assert [line.split()[0] for line in text.splitlines() if not line.startswith(" ")] == ["machine", "web"]
    assert "veth to eth0 in web" in text and "in machine" in text
    assert "network namespace B" not in text and "4026532501" not in text


def test_what_was_counted_stands_under_its_device() -> None:
    """A line under the device of that network alone, and one at the end of the box."""
    counted = {("web", "eth0"): "10 in, 9 out", ("machine", ""): "rule masquerade: 1 packet"}
    picture = network.wiring(MACHINE, PEOPLE, counted)
    lines = picture.text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("web"))
    assert lines[at + 4].strip().startswith("172.") and lines[at + 6].strip() == "10 in, 9 out"
    assert picture.text.count("10 in, 9 out") == 1 and picture.svg.count("rule masquerade: 1 packet") >= 1
    assert not faults(picture)


def test_net_dev_is_read_by_column() -> None:
    """Packets, bytes and drops of both directions; a name may hold a colon."""
    found = traffic.parse(NET_DEV)
    assert found["eth0:1"] == (9000, 10, 1, 8000, 9, 3)
    assert str(traffic.between({"lo": found["lo"]}, found)["eth0:1"]) == "10 in, 9 out"
    assert traffic.between(found, found)["lo"].packets_in == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace: needs root")
@pytest.mark.root
def test_the_counters_are_those_of_ip() -> None:
    """In a network namespace with a few pings over lo, `ip -s -j link` says the same numbers."""
    script = "ip link set lo up; ping -q -c 3 -i 0.01 127.0.0.1 > /dev/null; ip -s -j link show lo; cat /proc/net/dev"
    done = subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=True)
    told, _, text = done.stdout.partition("\n")
    stats = json.loads(told)[0]["stats64"]
    found = traffic.parse(text)["lo"]
    assert found.packets_in == stats["rx"]["packets"] == 6
    assert (found.bytes_in, found.packets_out) == (stats["rx"]["bytes"], stats["tx"]["packets"])
    assert traffic.read(os.getpid()).keys() == traffic.parse(Path("/proc/net/dev").read_text()).keys()
