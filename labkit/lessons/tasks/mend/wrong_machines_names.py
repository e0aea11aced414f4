"""own resolv.conf has been changed"""

# exercise: mend
import json
import subprocess
from pathlib import Path


def run(*words, pid=None):
    """A program's output, on the machine or in the network of a container."""
    prefix = ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else []
    return subprocess.run([*prefix, *words], capture_output=True, text=True).stdout


def addresses(pid):
    """The IPv4 addresses of a container's eth0, with prefix length."""
    (device,) = json.loads(run("ip", "-j", "-4", "address", "show", "dev", "eth0", pid=pid)) or [{"addr_info": []}]
    return {f"{one['local']}/{one['prefixlen']}" for one in device["addr_info"]}


def remove_stale_rules(subnet, alive):
    for item in json.loads(run("nft", "-j", "-a", "list", "ruleset"))["nftables"]:
        rule = item.get("rule", {})
        for statement in rule.get("expr", []):
            target = str(statement.get("dnat", {}).get("addr", ""))
            if target.startswith(subnet) and target not in alive:
                run("nft", "delete", "rule", "ip", rule["table"], rule["chain"], "handle", str(rule["handle"]))


def ask_docker(bridge):
    if run("nft", "list", "chain", "ip", "filter", "DOCKER-USER"):
        for direction in ("iifname", "oifname"):
            run("nft", "add", "rule", "ip", "filter", "DOCKER-USER", direction, bridge, "accept")


def mend(pid, address, gateway, bridge, others):
    """Called on the machine: make the container's network work again, whatever of the seven is broken."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    (device,) = json.loads(run("ip", "-j", "link", "show", bridge))
    run("ip", "link", "set", "eth0", "mtu", str(device["mtu"]), pid=pid)
    run("ip", "route", "replace", "default", "via", gateway, pid=pid)
    for other in others:
        if address in addresses(other):
            run("ip", "address", "del", address, "dev", "eth0", pid=other)
            run("ip", "neigh", "flush", "dev", bridge)
    Path("/etc/resolv.conf").write_text(f"nameserver {gateway}\n")
    alive = {one.split("/")[0] for each in (pid, *others) for one in addresses(each)}
    remove_stale_rules(gateway.rpartition(".")[0] + ".", alive)
    ask_docker(bridge)
