# exercise: cni-plugin
import ipaddress
import subprocess
from pathlib import Path


def ip(*words, netns=None):
    prefix = ["nsenter", f"--net={netns}"] if netns else []
    subprocess.run([*prefix, "ip", *words], check=True)


def take(config, owner):
    """A free address of the subnet; a file keeps it."""
    for address in ipaddress.ip_network(config["subnet"]).hosts():
        if str(address) == config["gateway"]:
            continue
        try:
            with open(Path(config["dataDir"], str(address)), "x") as file:
                file.write(owner)
            return str(address)
        except FileExistsError:
            pass
    raise RuntimeError(f"no address of {config['subnet']} is free")


def add(environment, config):
    name, netns, owner = environment["CNI_IFNAME"], environment["CNI_NETNS"], environment["CNI_CONTAINERID"]
    bridge, prefix = config["bridge"], config["subnet"].split("/")[1]
    address = take(config, owner)
    if not Path(f"/proc/sys/net/ipv4/conf/{bridge}").exists():
        ip("link", "add", bridge, "type", "bridge")
        ip("address", "add", f"{config['gateway']}/{prefix}", "dev", bridge)
        ip("link", "set", bridge, "up")
    outside = "v" + owner[:12]
    ip("link", "add", outside, "type", "veth", "peer", "name", name, "netns", netns)
    ip("link", "set", outside, "master", bridge, "up")
    ip("address", "add", f"{address}/{prefix}", "dev", name, netns=netns)
    ip("link", "set", name, "up", netns=netns)
    ip("route", "add", "default", "via", config["gateway"], netns=netns)
    return {
        "cniVersion": config["cniVersion"],
        "interfaces": [{"name": name, "sandbox": netns}],
        "ips": [{"address": f"{address}/{prefix}", "gateway": config["gateway"], "interface": 0}],
    }


def delete(environment, config):
    owner = environment["CNI_CONTAINERID"]
    subprocess.run(["ip", "link", "delete", "v" + owner[:12]], stderr=subprocess.DEVNULL)  # it may be gone
    for file in Path(config["dataDir"]).iterdir():
        if file.read_text() == owner:
            file.unlink()
    return {}


def plugin(environment, config):
    """Do what environment["CNI_COMMAND"] says; return the dictionary that a plugin prints as JSON."""
    return {"ADD": add, "DEL": delete}[environment["CNI_COMMAND"]](environment, config)
