"""Names between containers of `labkit run`: what the programs inside find on a network of one's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runtime_ground import IMAGE, Machine, in_a_machine

pytest_plugins = ["runtime_machine"]
pytestmark = in_a_machine


@pytest.fixture(autouse=True)
def shop(machine: Machine, nothing_left: None) -> Iterator[None]:
    """A network with a container that says which it is."""
    assert machine.labkit("network", "create", "shop").returncode == 0
    script = "echo token-$(hostname) > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    started = machine.labkit("run", "-d", "--name", "web", "--hostname", "one", "--network", "shop",
                             "--network-alias", "www", IMAGE, "sh", "-c", script)  # fmt: skip
    assert started.returncode == 0, started.stderr
    try:
        yield
    finally:
        machine.labkit("rm", "--force", "web")
        assert machine.labkit("network", "rm", "shop").returncode == 0


@pytest.mark.parametrize("name", ["web", "www", "WEB.shop"])
def test_a_name_leads_to_the_container(machine: Machine, name: str) -> None:
    """The resolver of the C library inside, by name, alias and full name: the answer comes from that very container."""
    script = f"until wget -qO- http://{name}/; do sleep 0.1; done"
    done = machine.labkit("run", "--rm", "--network", "shop", IMAGE, "timeout", "20", "sh", "-c", script)
    assert done.stdout == "token-one\n", done.stderr


def test_resolv_conf_names_the_network_s_server(machine: Machine) -> None:
    """The gateway is the name server; a name that nobody has is told at once, and nobody else's is known."""
    script = "cat /etc/resolv.conf; time -f %e nslookup nobody; nslookup web"
    gateway = machine.python("from labkit.network import plan; say(plan.load('shop').gateway)")
    done = machine.labkit("run", "--rm", "--network", "shop", IMAGE, "sh", "-c", script)
    assert done.stdout.startswith(f"nameserver {gateway}\n") and "options ndots:0\n" in done.stdout
    assert "NXDOMAIN" in done.stdout and "Name:\tweb" in done.stdout
    other = machine.labkit("run", "--rm", IMAGE, "sh", "-c", f"cat /etc/resolv.conf; nslookup web {gateway}")
    assert gateway not in other.stdout.partition("Server")[0] and "REFUSED" in other.stdout + other.stderr


def test_a_killed_server_comes_back_with_the_next_container(machine: Machine) -> None:
    """SIGKILL to the name server: the containers go on, and whoever comes next brings it back for all."""
    program = """
    from labkit.kernel.ledger import Ledger
    say([one.fields["pid"] for one in Ledger("network-shop").entries() if one.kind == "process"])
    """
    (first,) = machine.python(program)
    machine.sh("kill", "-9", str(first))
    done = machine.labkit("run", "--rm", "--network", "shop", IMAGE, "nslookup", "web")
    assert "Name:\tweb" in done.stdout, done.stdout + done.stderr
    (second,) = machine.python(program)
    assert second != first


def test_who_is_on_two_networks_finds_both_their_names(machine: Machine) -> None:
    """The first network's server knows the second's names for those who are on it, and for nobody else."""
    machine.labkit("network", "create", "annex")
    try:
        machine.labkit("run", "-d", "--name", "both", "--network", "annex", IMAGE, "sleep", "1000")
        asked = ["nslookup", "web"]
        assert "NXDOMAIN" in machine.labkit("exec", "both", *asked).stdout
        assert machine.labkit("network", "connect", "shop", "both").returncode == 0
        assert "Name:\tweb" in machine.labkit("exec", "both", *asked).stdout
        alone = machine.labkit("run", "--rm", "--network", "annex", IMAGE, *asked)
        assert "NXDOMAIN" in alone.stdout and "Name:\tboth" in machine.labkit("exec", "both", "nslookup", "both").stdout
    finally:
        machine.labkit("rm", "--force", "both")
        assert machine.labkit("network", "rm", "annex").returncode == 0
