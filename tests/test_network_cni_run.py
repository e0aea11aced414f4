"""`labkit run --network cni:NAME` with the distribution's plugins, and `labkit cni`: what it prints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from cni_ground import PLUGINS, on_machine
from runtime_ground import IMAGE, Machine, in_a_machine

pytest_plugins = ["runtime_machine"]
pytestmark = [*in_a_machine, *on_machine]


@pytest.fixture(autouse=True)
def lan(machine: Machine, nothing_left: None) -> Iterator[None]:
    """A configuration by name, with addresses kept below the machine's folder; the plugins' own traces go with it."""
    folder = machine.folder / "net.d"
    folder.mkdir()
    ipam = {"type": "host-local", "dataDir": str(machine.folder / "host-local"),
            "ranges": [[{"subnet": "10.77.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}  # fmt: skip
    bridge = {"type": "bridge", "bridge": "cni7", "isGateway": True, "ipam": ipam}
    plain = {"cniVersion": "1.0.0", "name": "lan", "plugins": [bridge, {"type": "tuning", "mtu": 1400}]}
    (folder / "10-lan.conflist").write_text(json.dumps(plain))
    machine.environment |= {"NETCONFPATH": str(folder), "CNI_PATH": PLUGINS}
    yield
    # The plugin leaves its bridge to the next container, and the machine a router.
    machine.sh("ip", "link", "del", "cni7")
    machine.sh("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    shutil.rmtree(folder)
    shutil.rmtree(machine.folder / "host-local", ignore_errors=True)


def given_out(machine: Machine) -> list[str]:
    return [file.name for file in (machine.folder / "host-local/lan").glob("10.*")]


def test_a_container_runs_on_it(machine: Machine) -> None:
    """Address, MTU, the way out and the gateway as the container itself sees them; its end gives the address back."""
    script = "ip -o -4 addr show eth0; ip route; cat /sys/class/net/eth0/mtu; ping -c1 -W3 10.77.0.1 && cat /etc/hosts"
    done = machine.labkit("run", "--rm", "--network", "cni:lan", "--hostname", "web", IMAGE, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "inet 10.77.0.2/24" in done.stdout and "default via 10.77.0.1" in done.stdout
    assert "\n1400\n" in done.stdout and "10.77.0.2\tweb" in done.stdout
    assert given_out(machine) == []


def test_check_and_stop_of_a_detached_one(machine: Machine) -> None:
    """`labkit cni check` is content, then names what is broken; `labkit rm --force` gives all back."""
    machine.labkit("run", "-d", "--name", "web", "--network", "cni:lan", IMAGE, "sleep", "1000")
    try:
        assert machine.labkit("cni", "check", "web").stdout == "web: as ADD left it\n"
        one: dict[str, Any] = machine.states()[0]
        assert (one["network"], one["address"]) == ("cni:lan", "10.77.0.2")
        machine.sh("nsenter", "-t", str(one["pid"]), "-n", "ip", "addr", "flush", "dev", "eth0")
        broken = machine.labkit("cni", "check", "web")
        assert broken.returncode == 125 and "failed at CHECK of network lan" in broken.stderr
    finally:
        assert machine.labkit("rm", "--force", "web").returncode == 0
    assert given_out(machine) == []


def test_a_killed_monitor_is_made_good_by_reset(machine: Machine) -> None:
    """The keeper dies at once with SIGKILL, the configuration goes: `labkit reset` runs the DEL by the ledger."""
    machine.labkit("run", "-d", "--name", "web", "--network", "cni:lan", IMAGE, "sleep", "1000")
    machine.sh("kill", "-9", str(machine.states()[0]["keeper"]["pid"]))
    (machine.folder / "net.d/10-lan.conflist").unlink()
    assert given_out(machine) == ["10.77.0.2"]
    done = machine.labkit("reset")
    assert done.returncode == 0, done.stderr
    assert given_out(machine) == []
    assert machine.sh("ip", "-o", "link", "show", "master", "cni7").stdout == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--network", "cni:wan"], "there is no CNI network 'wan'"),
        (["--network", "cni:"], "there is no CNI network ''"),
        (["--network", "cni:lan", "-p", "8080:80"], "publishes no ports"),
        (["--network", "cni:lan", "--ip", "10.77.0.9"], "--ip does not reach"),
    ],
)
def test_bad_input_leaves_nothing(machine: Machine, options: list[str], words: str) -> None:
    """Each has its message and docker's 125."""
    done = machine.labkit("run", "--rm", *options, IMAGE, "true")
    assert done.returncode == 125 and words in done.stderr
    assert given_out(machine) == []


def test_the_verb_lists_what_there_is(machine: Machine) -> None:
    """`labkit cni list` names broken files too; `versions` asks the plugin; an empty folder is an error."""
    (machine.folder / "net.d/20-torn.conf").write_text("{")
    listed = machine.labkit("cni", "list").stdout.splitlines()
    assert listed[1].split()[:4] == ["lan", "1.0.0", "bridge,", "tuning"]
    assert listed[2].startswith("-") and listed[2].endswith("20-torn.conf")
    assert machine.labkit("cni", "versions", "bridge").stdout.startswith("bridge 0.1.0 ")
    (machine.folder / "none").mkdir()
    machine.environment["NETCONFPATH"] = str(machine.folder / "none")
    done = machine.labkit("cni", "list")
    assert done.returncode == 1 and "no CNI configuration" in done.stderr
