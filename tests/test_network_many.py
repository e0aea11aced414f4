"""Twenty containers on three networks, with `labkit` as people use it, and the machine as before afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from runtime_ground import IMAGE, Machine, in_a_machine

pytest_plugins = ["runtime_machine"]
pytestmark = in_a_machine

NETWORKS = ("red", "green", "blue")
COUNT = 20
# Each answers on port 80, by both families, with a token that nobody else has.
SERVE = "exec nc -ll -p 80 -e echo TOKEN-$(hostname)"


@pytest.fixture(scope="module")
def twenty(machine: Machine) -> Iterator[dict[str, dict[str, str]]]:
    """{name: network, v4, v6} of the running containers; the first of each network publishes its port 80."""
    before = machine.census()
    for name in NETWORKS:
        done = machine.labkit("network", "create", "--ipv6", name)
        assert done.returncode == 0, done.stderr
    plans = {f"c{number}": NETWORKS[number % len(NETWORKS)] for number in range(COUNT)}

    def start(name: str) -> None:
        number = int(name[1:])
        words = ["--network-alias", f"alias-{name}"]
        words += ["-p", f"{8000 + number}:80"] if number < len(NETWORKS) else []
        done = machine.labkit("run", "-d", "--rm", "--name", name, "--hostname", name, "--network", plans[name], *words,
                              IMAGE, "sh", "-c", SERVE)  # fmt: skip
        assert done.returncode == 0, done.stderr

    with ThreadPoolExecutor(4) as pool:  # several at once: addresses are given out under a lock
        list(pool.map(start, plans))
    found = {}
    for name in NETWORKS:
        (told,) = json.loads(machine.labkit("network", "inspect", name).stdout)
        for member in told["Containers"].values():
            v4, v6 = (member[f"{family}Address"].partition("/")[0] for family in ("IPv4", "IPv6"))
            found[member["Name"]] = {"network": name, "v4": v4, "v6": v6}
    yield found
    assert machine.labkit("rm", "--force", *plans).returncode == 0
    assert machine.labkit("network", "rm", *NETWORKS).returncode == 0
    after = machine.census()
    assert after == before, [(kind, set(after[kind]) ^ set(before[kind])) for kind in before]


def answers(machine: Machine, name: str, script: str) -> str:
    """What a shell script prints in a container."""
    return machine.labkit("exec", name, "sh", "-c", script, timeout=120).stdout


@pytest.fixture(autouse=True)
def nothing_left(twenty: object) -> None:
    """The census is compared once, when all have gone: see `twenty`."""


def test_no_address_is_given_out_twice(twenty: dict[str, dict[str, str]]) -> None:
    """Twenty containers, twenty IPv4 and twenty IPv6 addresses."""
    assert len(twenty) == COUNT
    for family in ("v4", "v6"):
        assert len({one[family] for one in twenty.values()}) == COUNT


def test_each_reaches_its_own_by_name_and_nobody_elses(machine: Machine, twenty: dict[str, dict[str, str]]) -> None:
    """From one container of each network: every name and alias of its network is found, no other is."""
    for name in ("c0", "c1", "c2"):
        own = {other for other, one in twenty.items() if one["network"] == twenty[name]["network"]}
        script = "".join(f"ping -c 1 -W 2 {other} >/dev/null 2>&1 && echo {other};" for other in twenty)
        script += "".join(f"ping -c 1 -W 2 alias-{other} >/dev/null 2>&1 && echo alias-{other};" for other in own)
        script += "ping -c 1 -W 2 alias-c1 >/dev/null 2>&1 && echo alias-c1; true"
        reached = set(answers(machine, name, script).split())
        assert reached == own | {f"alias-{other}" for other in own}, (name, reached ^ own)


def test_nobody_elses_address_answers_either(machine: Machine, twenty: dict[str, dict[str, str]]) -> None:
    """By address, IPv4 and IPv6: the own network's containers answer, those of the others do not."""
    script = ""
    for other, one in twenty.items():
        for family in ("v4", "v6"):
            script += f"(ping -c 1 -W 2 {one[family]} >/dev/null 2>&1 && echo {other}-{family}) & "
    for name in ("c0", "c1", "c2"):
        own = {other for other, one in twenty.items() if one["network"] == twenty[name]["network"]}
        reached = set(answers(machine, name, script + "wait").split())
        assert reached == {f"{other}-{family}" for other in own for family in ("v4", "v6")}, name


def test_published_ports_answer_with_the_right_token(machine: Machine, twenty: dict[str, dict[str, str]]) -> None:
    """From the host by IPv4 and IPv6 loopback; from containers, of the same and of other networks, by their gateway."""
    ask = "import socket; s = socket.create_connection((HOST, PORT), 5); print(s.recv(99).decode().strip())"
    for number in range(len(NETWORKS)):
        token, port = f"TOKEN-c{number}\n", 8000 + number
        for host in ("127.0.0.1", "::1"):
            code = ask.replace("HOST", repr(host)).replace("PORT", str(port))
            done = machine.sh(sys.executable, "-c", code)
            assert done.stdout == token, (number, host, done.stderr)
        for asker in ("c3", "c4", "c5"):
            (told,) = json.loads(machine.labkit("network", "inspect", twenty[asker]["network"]).stdout)
            for each in told["IPAM"]["Config"]:
                assert answers(machine, asker, f"nc -w 3 {each['Gateway']} {port}") == token, (number, asker, each)
