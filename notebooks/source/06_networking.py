# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (the lab)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · Networking: a cable, a switch, and a change of address
#
# `docker run --publish 8080:80 nginx`, and a browser on another machine shows a page. Between the two are a cable
# that does not exist, a switch that does not exist, and two rules that lie about addresses.
#
# In this notebook you build all of it, first message by message, in a small internet of your own: a machine,
# containers, and a world outside, each of them a network namespace. Then you break it in seven ways.
#
# | section | minutes | |
# |---|---|---|
# | 1 An empty room | 5 | core |
# | 2 A message to the kernel | 6 | core |
# | exercise: a cable and a switch | 12 | core |
# | 3 Across the bridge | 5 | core |
# | 4 Out into the world | 8 | core |
# | exercise: a way out | 8 | core |
# | 5 Follow a packet | 8 | core |
# | 6 A published port | 6 | core |
# | exercise: a published port | 10 | optional |
# | 7 Docker's rules | 6 | core |
# | 8 Look from outside | 6 | core |
# | 9 Names | 4 | core |
# | exercise: a name server for a network | 12 | optional |
# | 10 Seven breakages | 8 | core |
# | exercise: a mender | 15 | optional |
# | 11 Straight onto the wire | 6 | core |
# | 12 Slow and lossy | 6 | optional |
# | 13 Somebody else's wiring | 4 | optional |
# | exercise: a CNI plugin | 15 | optional |
#
# The core is what a ninety-minute workshop does. You can leave out any exercise: the button under it, or
# `exercise(NAME).load()`, defines labkit's answer, and all later cells work.
#
# Run the cells in order, each once: a device that is there cannot be added again. If you have lost your way, run the
# cell that makes `machine`, `web`, `db` and `world` (section 1) again, which begins with empty networks, and then all
# cells below it. The first cell counts what the kernel holds now; the last one compares.

# %%
from labkit.observe import census

before = census.take()

# %% [markdown]
# ## 1 · An empty room (5 minutes, core)
#
# Every container has a network namespace of its own (notebook 04). **What is in a new one?** A child leaves for it
# and looks around.
#
# The first prediction. `127.0.0.1` is the address by which a machine talks to itself, and no cable is needed for
# that. Put your answer in place of `...`: `mine=1` means the first choice.

# %%
from labkit.lessons import predict

predict(
    "reaches-itself",
    "A process is alone in a new network namespace. Can it reach itself, at 127.0.0.1?",
    choices=["yes", "no"],
    mine=...,
)

# %%
import socket

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call
from labkit.lessons import Child, measured
from labkit.lessons.netground import fetch, serve


def devices():
    return [name for _, name in socket.if_nameindex()]


with Child("alone", leaves=True) as alone:
    alone.do(call, "unshare", C.CLONE_NEWNET)
    alone.do(serve, 80, "hello")  # a server that says hello, and who has called
    print("devices:", *alone.do(devices))
    print("the answer from 127.0.0.1:", answer := alone.do(fetch, "127.0.0.1", 80))
measured("reaches-itself", "yes" if answer.startswith("hello") else "no")

# %% [markdown]
# There is one device, `lo`, and it is *down*: a namespace begins with everything switched off. Every runtime
# switches it on, which is why nobody ever sees this.
#
# Now the ground for the rest: four namespaces. One plays the machine on which Docker runs, two are containers, one is
# the world outside. `own_network` is the `unshare` that you have just seen, with `lo` up, and without IPv6, so
# that the pictures stay small.

# %%
from labkit.draw import network
from labkit.lessons.netground import ip, own_network
from labkit.observe import snapshot

machine, web, db, world = (Child(name, leaves=True) for name in ("machine", "web", "db", "world"))
people = {one.pid: one.name for one in (machine, web, db, world)}
for one in (machine, web, db, world):
    one.do(own_network)

network.wiring(snapshot.take(), people)

# %% [markdown]
# Four rooms without doors. Your real machine's network is not in the picture, and nothing in this notebook touches
# it.
#
# ## 2 · A message to the kernel (6 minutes, core)
#
# **How does `ip link add` tell the kernel what it wants?** Not by a system call of its own: it opens a *netlink*
# socket and sends a message. A message is a header, a fixed part, and *attributes*: length, kind, value, each padded
# to a multiple of four bytes.
#
# These three functions are all of the protocol that we need:

# %%
import os
import struct


def link(flags):
    """What a message about a link begins with: family, type, index, the flags, and which flags to change."""
    return struct.pack("=BxHiII", 0, 0, 0, flags, flags)


def attribute(kind, value):
    """One attribute: its length, its kind, its value, and zeros up to a multiple of four."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def ask(kind, flags, body):
    """Send one message to the kernel, and read its answer: an error number, 0 for done."""
    message = struct.pack("=IHHII", 16 + len(body), kind, flags | 0x1 | 0x4, 1, 0) + body  # REQUEST, ACK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(message)
        (error,) = struct.unpack_from("=i", kernel.recv(4096), 16)
    if error:
        raise OSError(-error, os.strerror(-error))
    return message


# %% [markdown]
# A bridge is a switch made of software. To make one, the message says: a new link (type 16), called `br-demo`
# (attribute 3), of the kind `bridge` (attribute 1 *inside* attribute 18).

# %%


def make_bridge(name):
    kind = attribute(18, attribute(1, "bridge"))  # IFLA_LINKINFO, IFLA_INFO_KIND
    return ask(16, 0x400 | 0x200, link(0) + attribute(3, name) + kind)  # RTM_NEWLINK; CREATE, EXCL; IFLA_IFNAME


def explain(message):
    parts = [
        *[(16, "header: length, type 16, flags, number, sender"), (16, "link: family, type, index, flags, mask")],
        *[(12, "attribute 3, the name"), (16, "attribute 18, and in it attribute 1, the kind")],
    ]
    for size, words in parts:
        part, message = message[:size], message[size:]
        print(f"{part.hex(' ', 4):38} {words}\n{''.join(chr(x) if 32 < x < 127 else '.' for x in part)}")


sent = machine.do(make_bridge, "br-demo")
explain(sent)
print("\ndevices of the machine:", *machine.do(devices))

# %% [markdown]
# Sixty bytes, and a switch. The kernel's answer is an error number; here is one that is not 0:

# %%
try:
    machine.do(make_bridge, "br-demo")
except OSError as error:
    print(error)

# %% [markdown]
# Whatever makes a network device on Linux sends such a message: `ip` from C, Docker from Go. You can watch `ip` with
# `strace -e sendmsg`.
#
# ### Exercise: a cable and a switch (12 minutes, core)
#
# A cable into a container is a *veth pair*: two network devices, and what goes into one comes out of the other. One
# is a *port* of the bridge. The other is born in the container's namespace: an attribute says where.

# %%
# exercise: cable
import socket

RTM_NEWLINK = 16  # the message's type: make or change a link
NLM_F_CREATE, NLM_F_EXCL = 0x400, 0x200
IFF_UP = 1
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_PID = 3, 10, 18, 19
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2  # inside IFLA_LINKINFO
VETH_INFO_PEER = 1  # inside IFLA_INFO_DATA


def cable(bridge, outside, inside, pid):
    """Lay a cable from the bridge into the network of process `pid`.

    bridge  -- name of the bridge; made when it is not there, and up
    outside -- name of the veth's end here: a port of the bridge, and up
    inside  -- name of the end over there
    link(flags), attribute(kind, value) and ask(kind, flags, body) stand above.
    """
    ...


# %%
from labkit.lessons import exercise

exercise("cable").check(cable)

# %% [markdown]
# ## 3 · Across the bridge (5 minutes, core)
#
# Your cable (or labkit's; the line says whose) into both containers, and then addresses. From here on `ip` sends the
# messages; `ip(...)` in these cells is `ip -batch`, a command a line.

# %%
from labkit.lessons import mine

cable = mine("cable")
machine.do(ip, "link del br-demo")
machine.do(cable, "lab0", "v-web", "eth0", web.pid)
machine.do(cable, "lab0", "v-db", "eth0", db.pid)
web.do(ip, "addr add 172.30.0.2/24 dev eth0", "link set eth0 up")
db.do(ip, "addr add 172.30.0.3/24 dev eth0", "link set eth0 up")

network.wiring(snapshot.take(), people)

# %%
web.do(serve, 80, "this is web, and you are")
print(db.do(fetch, "172.30.0.2", 80))

# %% [markdown]
# Two containers talk. The machine has no address on that bridge yet, and is not part of their conversation. It only
# carries frames from port to port, as a switch does, and as a switch it has learned who lives behind which port:

# %%
import re

from labkit.lessons.netground import run

table = machine.do(run, "bridge", "fdb", "show", "br", "lab0", "dynamic")
print("learned, behind:", *sorted(set(re.findall(r"dev (\S+)", table))))

# %% [markdown]
# This is a *user-defined bridge* of Docker: `docker network create` makes such a bridge, `docker run --network`
# lays such a cable. Two networks are two bridges, and there is no way from one to the other but through the
# machine.
#
# ## 4 · Out into the world (8 minutes, core)
#
# The machine gets an address on the bridge, and a cable to the world (in life: its network card). The world is a
# server, and its owner has never heard of `172.30.0.0/24`: such addresses are private, and thousands of
# machines with Docker use the same ones.

# %%
machine.do(
    ip,
    "addr add 172.30.0.1/24 dev lab0",
    f"link add uplink type veth peer name eth0 netns {world.pid}",
    "addr add 203.0.113.2/24 dev uplink",
    "link set uplink up",
)
world.do(ip, "addr add 203.0.113.1/24 dev eth0", "link set eth0 up")
world.do(serve, 80, "this is the world, and you are")
print("the machine:", machine.do(fetch, "203.0.113.1", 80))
print("web:        ", web.do(fetch, "203.0.113.1", 80))

# %% [markdown]
# The container's own kernel gives up: it has no route. **First mend:** a default route, by the machine.

# %%
for one in (web, db):
    one.do(ip, "route add default via 172.30.0.1")
print("web:", web.do(fetch, "203.0.113.1", 80, 1.0))

# %% [markdown]
# Another fault now, and worse: silence. The machine gets packets that are not for itself, and throws them away. It is
# no router until it is told to be one. **Second mend:** `ip_forward`.
#
# And then? Predict before you run it.

# %%
predict(
    "after-forwarding",
    "The machine forwards now. web calls the world: what becomes of its packet?",
    choices=["it is answered", "it stops at the machine", "it arrives, but the answer does not"],
    mine=...,
)

# %%
from labkit.lessons.netground import forward
from labkit.observe import traffic

machine.do(forward, True)
old = traffic.read(world.pid)
heard = web.do(fetch, "203.0.113.1", 80, 1.0)
arrived = traffic.between(old, traffic.read(world.pid))["eth0"].packets_in
print("web:", heard)
print("packets came into the world:", arrived > 0)
measured(
    "after-forwarding",
    "it is answered" if heard.startswith("this") else
    "it arrives, but the answer does not" if arrived else "it stops at the machine",
)  # fmt: skip

# %% [markdown]
# The world got it, and knows no way back to `172.30.0.2`. So the sender has to be somebody whom the world can
# answer. The machine puts its own address in place of the container's on the way out, remembers the connection, and
# puts the container's back when the answer comes: *source NAT*, in nftables `masquerade`.

# %% [markdown]
# ### Exercise: a way out (8 minutes, core)

# %%
# exercise: masquerade
import subprocess
from pathlib import Path


def way_out(bridge, subnet):
    """Called on the machine: let the containers of `bridge` reach the world, and change nothing else.

    bridge -- name of the bridge
    subnet -- the containers' addresses, such as "172.30.0.0/24"
    What leaves the machine, and comes from the subnet, carries the machine's own address. Nothing else does.
    """
    ...


# %%
exercise("masquerade").check(way_out)

# %%
way_out = mine("masquerade")
machine.do(way_out, "lab0", "172.30.0.0/24")
print(web.do(fetch, "203.0.113.1", 80))

# %% [markdown]
# The world says whom it has seen: the machine. It cannot tell which container called, nor that there is one.
#
# ## 5 · Follow a packet (8 minutes, core)
#
# **Where does a packet go, one hop after the other?** Every device counts what passes it, and so does a rule with
# the word `counter`. Here are two that do nothing else. One stands where the machine forwards, in a chain of the type
# *filter*; the other where packets leave, in a chain of the type *nat*, just before your rule of the exercise.

# %%
from labkit.lessons.netground import counters, nft

machine.do(
    nft,
    """
    table ip watch {
        chain forward {
            type filter hook forward priority filter - 1
            meta l4proto icmp counter comment "forward, filter"
        }
        chain postrouting {
            type nat hook postrouting priority srcnat - 1
            meta l4proto icmp counter comment "postrouting, nat"
        }
    }
    """,
)

# %% [markdown]
# web will send ten pings to the world, and ten answers come back.

# %%
predict(
    "nat-rule",
    "Ten pings and ten answers go through the machine. How often is the rule in the chain of type nat reached?",
    choices=["20 times", "10 times", "once"],
    mine=...,
)

# %%
from labkit.lessons.netground import reaches


def counted_while(action):
    """{(network, device): packets in and out}, and {rule: packets}, that were counted during `action`."""
    old, old_rules = {pid: traffic.read(pid) for pid in people}, machine.do(counters, ", ")
    action()
    rules = {rule: count - old_rules[rule] for rule, count in machine.do(counters, ", ").items()}
    seen = {
        (people[pid], device): str(more)
        for pid in people
        for device, more in traffic.between(old[pid], traffic.read(pid)).items()
        if more.packets_in or more.packets_out
    }
    return seen, rules


seen, rules = counted_while(lambda: print("all came back:", web.do(reaches, "203.0.113.1", 56, 2.0, 10)))
seen["machine", ""] = "\n".join(f"rule in {rule}: {count}" for rule, count in rules.items())
network.wiring(snapshot.take(), people, seen)

# %% [markdown]
# Read it from web's `eth0` to the world's: each hop has counted ten packets in one direction and ten in the other, and
# db's cable none. The rules stand at the end of the machine's box.

# %%
measured("nat-rule", {1: "once", 10: "10 times", 20: "20 times"}[rules["postrouting, nat"]])

# %% [markdown]
# A NAT rule is asked about the *first* packet of a connection. What it decides goes into a table, *conntrack*, and
# the kernel does the same to all further packets, and the opposite to the answers. (This is why a new rule does
# not change connections that exist.)
#
# Counters say how many. A capture says *what*: `tcpdump` on all of the machine's devices, while web sends one ping.

# %%
import tempfile
import time

work = Path(tempfile.mkdtemp())


def listen(path):
    """Start tcpdump; its pid, when it is listening."""
    words = ["tcpdump", "-n", "-l", "-t", "-i", "any", "--immediate-mode", "icmp"]
    tcpdump = subprocess.Popen(words, stdout=open(path, "w"), stderr=subprocess.PIPE, text=True)
    for line in tcpdump.stderr:
        if line.startswith("listening on"):
            return tcpdump.pid


def wait_until(question):
    """Ask until the answer is yes, ten seconds at most."""
    for _ in range(500):
        if question():
            return
        time.sleep(0.02)


machine.do(listen, str(work / "capture"))
web.do(reaches, "203.0.113.1")
wait_until(lambda: len((work / "capture").read_text().splitlines()) >= 6)
for line in (work / "capture").read_text().splitlines():
    device, way, packet = re.match(r"(\S+) +(\S+) +IP (.*), id .*", line).groups()
    print(f"{device:9} {'out' if way == 'Out' else 'in':4} {packet}")

# %% [markdown]
# Six lines, one ping. Follow the addresses: the request has web's address as far as the bridge, and the machine's
# from `uplink` on. The answer comes to the machine's address, and from the bridge on it is web's again.
#
# When something does not arrive, the picture and the capture are how to find out where it stops: behind the last device
# that has counted it.
#
# ## 6 · A published port (6 minutes, core)
#
# **How does somebody outside reach a container?** Nobody outside can name it. But they can name the machine, and a
# rule can say that what comes for port 8080 of the machine is meant for port 80 of web: *destination NAT*.

# %%
machine.do(
    nft,
    """
    table ip published {
        chain prerouting {
            type nat hook prerouting priority dstnat
            fib daddr type local tcp dport 8080 counter dnat to 172.30.0.2:80
        }
    }
    """,
)
print(world.do(fetch, "203.0.113.2", 8080))

# %% [markdown]
# `fib daddr type local` means: addressed to this machine, at whatever address. And web sees who has really called,
# since nobody has changed the sender.
#
# Now you sit at the machine itself, and try the port with `curl localhost:8080`, as everybody does.

# %%
predict(
    "own-loopback",
    "The machine itself calls 127.0.0.1, port 8080. What does it get?",
    choices=["web's answer", "Connection refused", "no answer"],
    mine=...,
)

# %%
answer = machine.do(fetch, "127.0.0.1", 8080)
measured("own-loopback", "web's answer" if answer.startswith("this is web") else answer)

# %% [markdown]
# What the machine sends itself does not come in from anywhere: it never passes the hook *prerouting*. There is a
# hook for it, *output*; so one might put the same rule there:

# %%
machine.do(
    nft,
    """
    table ip published {
        chain output {
            type nat hook output priority -100
            ip daddr 127.0.0.1 tcp dport 8080 counter dnat to 172.30.0.2:80 comment "loopback"
        }
    }
    """,
)
print("web answers:", machine.do(fetch, "127.0.0.1", 8080, 1.0).startswith("this is web"))
print("the rule has been reached:", machine.do(counters)["loopback"] > 0)

# %% [markdown]
# The rule is reached, but the packet's sender is `127.0.0.1`, and the kernel lets no such packet leave the machine:
# to whom would web answer? So Docker does without a rule here. A small program, `docker-proxy`, listens on the port
# and passes on what is said. labkit does the same.
#
# ### Exercise: a published port (10 minutes, optional)

# %%
# exercise: publish
import os
import socket
import subprocess
import threading


def publish(port, address, inner):
    """Called on the machine: its TCP port `port` leads to port `inner` of a container, whose address is `address`.

    From outside, at every address of the machine, and the container sees who calls.
    From the machine itself, at 127.0.0.1. The function returns, and the port stays open.
    """
    ...


# %%
exercise("publish").check(publish)

# %%
publish = mine("publish")
machine.do(nft, "delete table ip published")
machine.do(publish, 8080, "172.30.0.2", 80)
print("from outside:    ", world.do(fetch, "203.0.113.2", 8080))
print("from the machine:", machine.do(fetch, "127.0.0.1", 8080))

# %% [markdown]
# Both reach web. For the second one, the caller is the machine at its end of the bridge: the forwarder is a program,
# and its connection to web is a new one.
#
# ## 7 · Docker's rules (6 minutes, core)
#
# Docker's rules are older than nftables. They are written for `iptables`, whose language has options instead of
# sentences. Here is, in essence, what `iptables-save` prints on a machine where `docker run --publish 8080:80` has run. It
# is written down by hand: without the rules that keep several networks apart, and each version of Docker has its own
# words for some of the others. Below each line is what `iptables-restore-translate` makes of it. Which of these lines have
# you written yourself?

# %%
docker_rules = """\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
"""


def translated(text):
    """The same for nft, a line for each line."""
    (work / "rules").write_text(text)
    lines = run("iptables-restore-translate", "-f", str(work / "rules")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


as_nft = translated(docker_rules)
pairs = zip(
    [line for line in docker_rules.splitlines() if line.startswith("-A")],
    [line for line in as_nft if line.startswith("add rule")],
    strict=True,
)
for old_way, new_way in pairs:
    print(f"{old_way}\n    {new_way.removeprefix('add rule ip ')}")
print("\nthe chain with a policy:\n    ", next(line for line in as_nft if "policy drop" in line))

# %% [markdown]
# Four in *nat*: which packets are looked at at all (to this machine, from outside and from itself), the way out with
# both bounds, and the published port. The rest is new: the *filter* of what passes through. Its **policy is drop**:
# what no rule accepts is thrown away, and that is so for everything that the machine forwards, Docker's or not.
# `DOCKER-USER` is the one chain that Docker leaves to others.
#
# Are the translated rules right? The proof: the machine forgets yours and gets Docker's, with our names and addresses.

# %%
machine.do(nft, "flush ruleset")
ours = docker_rules.replace("docker0", "lab0").replace("172.17.0.0/16", "172.30.0.0/24").replace("172.17", "172.30")
machine.do(nft, "\n".join(translated(ours)))
print("web calls the world:", web.do(fetch, "203.0.113.1", 80))
print("the world calls web:", world.do(fetch, "203.0.113.2", 8080))

# %% [markdown]
# The same wiring, now by Docker's rules. And here is the trap of the policy: your own rules, in a table of your own,
# cannot overrule it. A table that accepts everything:

# %%
accept_all = """
table ip mine {
    chain forward {
        type filter hook forward priority -10
        counter accept
    }
}
"""
machine.do(nft, accept_all)
db.do(serve, 80, "this is db, and you are")
world.do(ip, "route add 172.30.0.0/24 via 203.0.113.2")
print("the world calls db, accepted in our table:   ", world.do(fetch, "172.30.0.3", 80, 1.0))
machine.do(nft, "add rule ip filter DOCKER-USER ip daddr 172.30.0.3 counter accept")
print("the world calls db, accepted in DOCKER-USER:", world.do(fetch, "172.30.0.3", 80, 1.0))

# %% [markdown]
# *accept* ends the work of one table, and the packet goes on to the next; *drop* is the end. This is why a
# virtual machine or a VPN may lose its network on the day when Docker is installed.

# %% [markdown]
# And the kit's own? Here is the table that labkit writes for its networks, into an empty ruleset:

# %%
from labkit.lessons.netground import ruleset
from labkit.network import rules as labkit_rules


def kit_rules():
    nft("flush ruleset")
    labkit_rules.write([], new=True)  # for no network yet
    return ruleset()


for line in machine.do(kit_rules).splitlines():
    if found := re.match(r"\s*((?:set|chain) \w+|.* comment \".*\"|type .*)", line):
        said = re.sub(r"counter packets \d+ bytes \d+ ", "", found[1])
        print(f"{'' if said.startswith(('set', 'chain')) else '    '}{said}")

# %% [markdown]
# One table, for IPv4 and IPv6, that can be removed whole. The rules never change: the bridges and the subnets are
# *sets* (`@bridges`, `@sources4`) that grow with each network, where Docker adds rules for each. The policy is accept,
# and a drop stands at the end for what enters a bridge of labkit's own. Rules for the published ports come into
# `prerouting`. And what does labkit do where dockerd has set its policy? It puts an accept into `DOCKER-USER`, as you
# did.

# %%
machine.do(nft, "flush ruleset")
world.do(ip, "route del 172.30.0.0/24")
machine.do(way_out, "lab0", "172.30.0.0/24")

# %% [markdown]
# ## 8 · Look from outside (6 minutes, core)
#
# A container often has no `ip`, no `tcpdump`, not even a shell. You do, and can take them in. You may have read that
# `ip netns exec NAME` does it. **Which names are there?**

# %%


def names():
    return [line.split()[0] for line in run("ip", "netns", "list").splitlines()]


machine.do(call, "mount", "tmpfs", "/run", "tmpfs", 0, None)  # names are files below /run; ours is not touched
print("names:", machine.do(names))
machine.do(run, "ip", "netns", "attach", "web", str(web.pid))
print("names:", machine.do(names))
print(machine.do(run, "ip", "netns", "exec", "web", "ip", "-brief", "-4", "address").rstrip())

# %% [markdown]
# None at first. A namespace has no name; `ip netns` gives it one, by mounting its file below `/run/netns`, and Docker
# does not do that (it has a folder of its own). So first the name, by the pid, then `exec`. Or without a name:
# `nsenter --net --target PID ip address`, which does the same.
#
# You may have read, too: `ethtool vethXYZ`, to check duplex and MTU.

# %%
predict(
    "veth-speed",
    "A veth is memory that is handed on. What does ethtool say about its speed?",
    choices=["no speed", "10 Gb/s, full duplex", "what was measured last"],
    mine=...,
)

# %%
said = machine.do(run, "ethtool", "v-web")
facts = dict(line.strip().split(": ", 1) for line in said.splitlines() if ": " in line)
for name in ("Speed", "Duplex", "Port", "Link detected"):
    print(f"{name}: {facts[name]}")
measured("veth-speed", "10 Gb/s, full duplex" if facts["Speed"] == "10000Mb/s" else "no speed")
print("it says something about the MTU:", "mtu" in said.lower())

# %% [markdown]
# Twisted pair! The numbers stand in the driver's source, and nobody has measured anything. Here is what a pair of
# *this* machine carries (a figure, as it differs from machine to machine):

# %%
import matplotlib.pyplot as plt


def pour(address, port, seconds):
    """Gigabits a second that go through one connection."""
    block, sent = bytes(1 << 20), 0
    with socket.create_connection((address, port)) as line:
        begun = time.monotonic()
        while time.monotonic() < begun + seconds:
            sent += line.send(block)
        return sent * 8 / (time.monotonic() - begun) / 1e9


def drain(port):
    """Start a server that throws away what it gets."""
    listener = socket.create_server(("0.0.0.0", port))
    if os.fork():
        return
    caller, _ = listener.accept()
    while caller.recv(1 << 20):
        pass
    os._exit(0)


web.do(drain, 9)
speed = db.do(pour, "172.30.0.2", 9, 0.5)
figure, axes = plt.subplots(figsize=(7, 1.6), layout="constrained")
axes.barh(["ethtool says", "measured"], [10, speed], color=["#d0d4d9", "#2f6fa8"])
axes.bar_label(axes.containers[0], fmt=" %.1f Gb/s")
axes.set(xlabel="gigabits a second, db to web, over two cables and a bridge", xlim=(0, max(10, speed) * 1.2))
axes.invert_yaxis()
plt.show()
print("measured, it is what ethtool says:", 9.9 < speed < 10.1)

# %% [markdown]
# The MTU, the largest packet that a device takes, is not in `ethtool`. It is in `ip link`, and in every picture
# above where your pointer rests on a device. Both ends of a cable have one, and each may be set alone. What happens
# then is one of the breakages.

# %% [markdown]
# ## 9 · Names (4 minutes, core)
#
# **Who tells one container where another one is?** Addresses are given out in order of starting, and change. Docker's
# default bridge knows no names; on a network of your own, a *name server* answers for every container, and passes all
# other questions on to the machine's. Write one, or use labkit's.
#
# ### Exercise: a name server for a network (12 minutes, optional)

# %%
# exercise: name-server
import socket

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


def serve_names(address, names, upstream):
    """Answer, for ever, what is asked over UDP at `address`, port 53.

    names    -- {"web": "172.30.0.2", ...}: answered from here
    upstream -- address of another name server, asked for all other names
    What is no question is passed over. When upstream says nothing for a second, the answer is SERVFAIL.
    """
    ...


# %%
exercise("name-server").check(serve_names)

# %% [markdown]
# The server runs on the machine, at the bridge's address. The world has one too, for the rest. db gets a
# `resolv.conf` of its own, with one line that matters: `nameserver 172.30.0.1`.

# %%
from labkit.lessons.netground import background, end, lookup, name_server, own_resolver, resolver

serve_names = mine("name-server")
containers = {"web": "172.30.0.2", "db": "172.30.0.3"}
upstream = world.do(background, str(work / "up"), name_server, "203.0.113.1", {"shop.example": "203.0.113.80"})
server = machine.do(background, str(work / "names"), serve_names, "172.30.0.1", containers, "203.0.113.1")
db.do(own_resolver)
db.do(resolver, "172.30.0.1")
wait_until(lambda: db.do(lookup, "web"))
for name in ("web", "shop.example", "nobody"):
    print(f"{name:13} {db.do(lookup, name) or 'has no address'}")

# %%
machine.do(end, [server])
world.do(end, [upstream])

# %% [markdown]
# Two networks are two servers with two lists: that is why a container finds those of its own network by name, and
# nobody else's. (Docker puts the server at `127.0.0.11`, inside each container's own namespace; labkit at the bridge.)
#
# ## 10 · Seven breakages (8 minutes, core)
#
# **It does not work. Where do you look?** Each row is the same small internet with one thing broken, and asks six
# questions. From web: does it reach its neighbour, its gateway (the machine), the world; does a large packet (3000
# bytes) come through; does it find a name? And from outside: does somebody reach web's published port? What web's
# own kernel says is in the last column.
#
# Before you run it, take one breakage that you have met in life, and say which of the six will fail.

# %%
from labkit.lessons import breakages

machine.do(nft, "flush ruleset")
place = breakages.Place(machine, web, db, world, "lab0", "172.30.0", "203.0.113")
breakages.settle(place, servers=False)
breakages.unbreak(place)


def row(name, seen):
    marks = [f"{'ok' if getattr(seen, key) else '-':10}" for key in breakages.WORDS]
    return f"{name:40} {''.join(marks)}{seen.says}".rstrip()


print(f"{'':41}{''.join(f'{key:10}' for key in breakages.WORDS)}web's kernel says")
print(row("Nothing is broken", breakages.symptoms(place)))
for name, break_it in breakages.BREAKAGES.items():
    break_it(place)
    print(row(name, breakages.symptoms(place)))
    breakages.unbreak(place)

# %% [markdown]
# Compare the rows. Three are alike in what works: *forwarding off*, *no route*, and *dockerd*. The second is
# told apart by the word of web's own kernel. The other two are silent, and only the machine knows: look at
# `ip_forward`, then at the counters of its rules.
#
# *MTU*: everything works until somebody sends a large packet, which is often the first picture or the first `git
# push`. Both ends of the cable are up, and the end that expects less throws away what is larger, without a word.
#
# *The same address*: nothing works for web, though web has changed nothing. Whoever spoke last is whom the machine
# remembers. In life both go on speaking, so that it works and fails in turns: the cruellest of the seven.
#
# *A stale rule*: from inside all is well. *A name server where nobody is*: everything works, and everybody says "the
# network is down".
#
# ### Exercise: a mender (15 minutes, optional)

# %%
# exercise: mend
import json
import subprocess
from pathlib import Path


def mend(pid, address, gateway, bridge, others):
    """Called on the machine: make the container's network work again, whatever of the seven is broken.

    pid     -- a process of the container; its device is eth0
    address -- the container's, such as "172.30.0.2/24"; nobody else should have it
    gateway -- the machine's address on the bridge; the name server is there too
    bridge  -- name of the bridge; its MTU is right
    others  -- a list: a process of each other container on the bridge
    Nothing that is right is taken away, and no rule or policy of somebody else.
    """
    ...


# %%
exercise("mend").check(mend)

# %% [markdown]
# Your mender at work, in the order in which you have met them:

# %%
mend = mine("mend")
for name, break_it in breakages.BREAKAGES.items():
    break_it(place)
    machine.do(mend, web.pid, "172.30.0.2/24", "172.30.0.1", "lab0", [db.pid])
    print(f"{name:40} {'mended' if breakages.symptoms(place).fine else 'still broken'}")
    breakages.unbreak(place)

# %% [markdown]
# ## 11 · Straight onto the wire (6 minutes, core)
#
# **And without a bridge?** A *macvlan* device is a second network card on top of the machine's own: it has a hardware
# address of its own, and what it sends goes straight onto the wire. `docker network create --driver macvlan --option
# parent=eth0` makes such networks. No NAT, no published ports: the container is a neighbour in the office's network.
#
# An appliance is connected in this way: its card is a child of the machine's `uplink`.

# %%
appliance = Child("appliance", leaves=True)
appliance.do(own_network)
machine.do(ip, f"link add link uplink name eth0 netns {appliance.pid} type macvlan mode bridge")
appliance.do(ip, "addr add 203.0.113.50/24 dev eth0", "link set eth0 up")
appliance.do(serve, 80, "this is the appliance, and you are")
print(world.do(fetch, "203.0.113.50", 80))

# %%
predict(
    "macvlan-parent",
    "The world reaches the appliance. The machine is nearer: it has the parent device. Does it reach the appliance?",
    choices=["yes", "no"],
    mine=...,
)

# %%
print("the machine calls:", answer := machine.do(fetch, "203.0.113.50", 80, 1.0))
measured("macvlan-parent", "yes" if answer.startswith("this is") else "no")

# %% [markdown]
# What the machine sends goes to `uplink`, and there onto the wire. The appliance hears what comes in *from* the wire.
# The wire does not turn frames round, so the two never meet. They sit on the same card, and would need a switch that
# sends a frame back by the port by which it came.
#
# The mend: the machine takes a macvlan device too. Siblings do hear each other.

# %%
machine.do(
    ip,
    "link add link uplink name sibling type macvlan mode bridge",
    "addr add 203.0.113.3/32 dev sibling",
    "link set sibling up",
    "route add 203.0.113.50/32 dev sibling",
)
print(machine.do(fetch, "203.0.113.50", 80))

# %%
network.wiring(snapshot.take(), people | {appliance.pid: "appliance"})

# %% [markdown]
# No wire leads to the appliance: a macvlan is no pair, it borrows its parent's. Another limit shows only elsewhere:
# many clouds, and Wi-Fi, let one hardware address through for each machine. For them there is *ipvlan*, whose
# children share the parent's.
#
# ## 12 · Slow and lossy (6 minutes, optional)
#
# **What does distance do?** In front of every device is a queue. Usually the kernel sends from it as fast as it can;
# `netem` is a queue that waits, and loses things, on purpose. First: everything that web sends is late by 100 ms.

# %%
predict(
    "page-at-100-ms",
    "Every packet from web takes 100 ms. db opens a connection to web and reads one line. How long does that take?",
    choices=["0.1 s", "0.2 s", "0.4 s"],
    mine=...,
)

# %%


def seconds(address, port):
    begun = time.monotonic()
    fetch(address, port)
    return time.monotonic() - begun


web.do(run, *"tc qdisc add dev eth0 root netem delay 100ms".split())
took = min(db.do(seconds, "172.30.0.2", 80) for _ in range(5))
print("at least 0.2 s, in five tries:", took >= 0.2)
measured("page-at-100-ms", "0.1 s" if took < 0.15 else "0.2 s" if took < 0.35 else "0.4 s")

# %% [markdown]
# A connection begins with a greeting and its answer: web's side of it is late once, and the line is late again. With
# TLS on top it would be late once or twice more. So latency counts by round trips, not by bytes.
#
# Then one packet in a hundred gets lost. A thousand datagrams, which nobody repeats:

# %%


def hear(port, word):
    """Count datagrams until none has come for a second; from the background, into a file."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE: a queue that surely holds them all
        line.bind(("0.0.0.0", port))
        Path(word).write_text("ready")
        line.settimeout(20)
        count = 0
        while True:
            try:
                line.recv(100)
            except TimeoutError:
                break
            count += 1
            line.settimeout(1)
    Path(word).write_text(str(count))


def shout(address, port, count):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        for _ in range(count):
            line.sendto(b"x", (address, port))


web.do(run, *"tc qdisc change dev eth0 root netem delay 100ms loss 1% limit 10000".split())
heard = work / "heard"
db.do(background, str(work / "trouble"), hear, 7, str(heard))
wait_until(heard.exists)
web.do(shout, "172.30.0.3", 7, 1000)
wait_until(lambda: heard.read_text().isdigit())
lost = 1000 - int(heard.read_text())
print("some were lost:", lost > 0)
print("fewer than 40: ", lost < 40)

# %% [markdown]
# (Ten would be the average; that it is none happens once in 23 000 runs.) TCP repeats what is lost, and takes a loss
# for a sign that it is too fast. What that does to a download is in the figure: what has arrived, over one and a half
# seconds, without netem, late, and late with losses.

# %%


def receive(address, port, seconds):
    """[(time, bytes so far)] of one download."""
    begun, total, seen = time.monotonic(), 0, [(0.0, 0)]
    with socket.create_connection((address, port), 5) as line:
        line.settimeout(0.1)
        while (now := time.monotonic() - begun) < seconds:
            try:
                total += len(line.recv(1 << 18))
            except TimeoutError:
                continue
            if now - seen[-1][0] > 0.01:
                seen.append((now, total))
    return seen


def stream(port):
    """Start a server that sends zeros to its callers, one after the other, as long as they listen."""
    listener = socket.create_server(("0.0.0.0", port))
    if os.fork():
        return
    while True:
        caller, _ = listener.accept()
        try:
            while True:
                caller.sendall(bytes(1 << 16))
        except OSError:
            caller.close()


web.do(stream, 19)
arrived = {}
figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
for label, settings in {
    "as it is": "delay 0ms limit 10000",
    "100 ms": "delay 100ms limit 10000",
    "100 ms, 1 % lost": "delay 100ms loss 1% limit 10000",
}.items():
    web.do(run, *f"tc qdisc change dev eth0 root netem {settings}".split())
    times, total = zip(*db.do(receive, "172.30.0.2", 19, 1.5), strict=True)
    axes.plot(times, [count / 1e6 for count in total], label=label)
    arrived[label] = total[-1]
axes.set(yscale="symlog", ylim=0, xlabel="seconds", ylabel="megabytes")
axes.yaxis.set_major_formatter("{x:g}")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
print("most arrived:", max(arrived, key=arrived.get))
_ = web.do(run, "tc", "qdisc", "del", "dev", "eth0", "root")

# %% [markdown]
# ## 13 · Somebody else's wiring (4 minutes, optional)
#
# Kubernetes makes no networks itself. For each pod (containers that share one network namespace) it has a program
# started, a *CNI plugin*, that finds `ADD` or `DEL` in its environment and answers in JSON. What the plugin does is
# what you did in sections 2 to 4.
#
# ### Exercise: a CNI plugin (15 minutes, optional)

# %%
# exercise: cni-plugin
import ipaddress
import subprocess
from pathlib import Path


def plugin(environment, config):
    """Do what environment["CNI_COMMAND"] says; return the dictionary that a plugin prints as JSON.

    environment -- CNI_COMMAND (ADD or DEL), CNI_CONTAINERID, CNI_NETNS (path of a network namespace), CNI_IFNAME
    config      -- cniVersion, name, bridge, subnet ("10.1.0.0/24"), gateway ("10.1.0.1"), dataDir (an empty folder)

    ADD: device CNI_IFNAME in the namespace, up, with a free address of the subnet; a default route by the gateway;
    its other end a port of the bridge, which has the gateway's address. Returns
    {"cniVersion": ..., "interfaces": [{"name": ..., "sandbox": CNI_NETNS}],
     "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}]}
    DEL: all of it is gone, and the address is free again. Also when there is nothing to remove. Returns {}.
    """
    ...


# %%
exercise("cni-plugin").check(plugin)

# %% [markdown]
# A namespace, and what the plugin says. (`/proc/PID/ns/net` is a path like any other.)

# %%
plugin = mine("cni-plugin")
data = work / "addresses"
data.mkdir()
config = {"cniVersion": "1.0.0", "name": "lesson", "bridge": "cni0", "dataDir": str(data)}
config |= {"subnet": "10.1.0.0/24", "gateway": "10.1.0.1"}
asked = {"CNI_CONTAINERID": "appliance", "CNI_IFNAME": "net1", "CNI_NETNS": f"/proc/{appliance.pid}/ns/net"}
said = machine.do(plugin, asked | {"CNI_COMMAND": "ADD"}, config)
print(json.dumps(said, indent=1))
print("devices of the appliance:", *appliance.do(devices))
print("DEL:", machine.do(plugin, asked | {"CNI_COMMAND": "DEL"}, config))
print("devices of the appliance:", *appliance.do(devices))

# %% [markdown]
# labkit's own plugin is the program `labkit-cni`, and containerd can call it. With the same contract Calico and Cilium
# do very different things: no bridge, but routes, or programs in the kernel.
#
# | what you wrote | in Docker |
# |---|---|
# | `cable` | `docker network create`, and `--network` of `docker run` |
# | `way_out` | the rule `MASQUERADE` |
# | `publish` | `--publish`, `docker-proxy` |
# | `serve_names` | the server at `127.0.0.11` |
# | `mend` | you, at three in the morning |
# | `plugin` | nothing: Kubernetes, podman |

# %% [markdown]
# ## What you believed
#
# A `=` marks what you had right, an `!` what you had thought otherwise.

# %%
from labkit.lessons import beliefs

beliefs("06")

# %% [markdown]
# ## Give it back
#
# The children end, and all that they started. With the last process a network namespace goes, and with it its
# devices, addresses, routes and rules; a veth pair goes when one of its ends does. Then the folder, and the comparison
# (what another notebook has running at this moment would be counted too).

# %%
import shutil

for one in (web, db, world, appliance, machine):
    one.close()
shutil.rmtree(work, ignore_errors=True)
left = census.difference(before, census.take())
print("\n".join(left) or "nothing: the kernel holds what it held before")

# %% [markdown]
# **Next:** 07 gives containers a memory that outlives them.
