# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (the lab)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · The lab and its kernel
#
# You have typed `docker run` for years. In this course you build what stands behind it, one
# layer at a time, and look into the kernel after each step.
#
# This first notebook asks two questions:
#
# 1. **What is this machine, and does its kernel have what containers are made of?**
# 2. **What is a container, seen from the kernel?** You start a real one, from a real image,
#    with the engine that this course will take apart, and find its traces one by one.
#
# Everything printed here comes from the cell above it. Run the cells in order: select one and press
# Shift+Enter.

# %% [markdown]
# ## The machine
#
# You are root in a virtual machine that exists only for this course. Break it as you like:
# `make lab FRESH=1` on your own computer brings a new one, and your notebooks stay, because
# they lie in the project's folder there.

# %%
import os
import platform

print("kernel   ", platform.system())
print("user     ", "root" if os.geteuid() == 0 else "not root")
print("notebooks", "are shared with your computer" if os.path.ismount("/lab") else "lie on this machine")

# %% [markdown]
# ## What the doctor finds
#
# `labkit doctor` does not read version numbers. It *tries* each thing that the course needs, in a child process
# that is thrown away: it makes a namespace, mounts an overlay, plugs a cable, sets a rule.

# %%
import json
import subprocess

from labkit.draw import doctor as drawing

answer = subprocess.run(["labkit", "doctor", "--json"], capture_output=True, text=True)
assert answer.stdout, answer.stderr
report = json.loads(answer.stdout)
drawing.tiles(report["findings"])

# %% [markdown]
# Each tile says what was found. A tile marked *limited* or *missing* costs something in one of the
# later notebooks; `labkit doctor` in a terminal says what, and how to get it. What the course cannot do without:

# %%
print(drawing.essentials(report["findings"]))
print()
print("fit for the course:", "yes" if report["fit"] else "no")

# %% [markdown]
# ## An image
#
# A container starts from an image, and an image comes from a registry. The lab brings its own registry, at
# `localhost:5000`, with small images made from Debian's packages. So nothing here needs the Internet;
# with it, `nginx` or `alpine` from Docker Hub work the same way.
#
# Pulling fetches the image's parts into a *content store*, each under the hash of its bytes. The hash is
# computed from what arrives: a part that is not what its name promises is refused.

# %%
from labkit.image.store import Store
from labkit.runtime import launch

for name in ("nginx", "busybox"):
    launch.labkit("pull", f"localhost:5000/{name}")
image = Store().find("localhost:5000/nginx")
for number, layer in enumerate(image.manifest.layers, 1):
    print(f"layer {number}: {layer.media_type}")
print("command:", " ".join(image.config.config["Cmd"]))

# %% [markdown]
# Three layers, and a command. Notebook 02 opens these parts by hand.
#
# ## A container
#
# **Predict first.** You start nginx with limits and a published port:
#
#     docker run --name web --memory 256m --cpus 1 --pids-limit 4096 -p 8080:80 nginx
#
# Afterwards, what is new in the kernel? How many processes? Is there a "container" anywhere? Note your answer, then
# count. A census before, the same command with this course's own engine, and a census after:

# %%
from labkit.observe import census

launch.labkit("rm", "--force", "web", "mine", check=False)  # of an earlier run
before = census.take()
limits = {"memory": "256m", "cpus": 1, "pids_limit": 4096}
box = launch.run("localhost:5000/nginx", name="web", publish=["8080:80"], **limits)

# %% [markdown]
# Does it work? `labkit run` is back as soon as the program has begun, and nginx needs a moment more until it listens
# on its port. The kernel knows when: `/proc/PID/net/tcp` has a line for each listening socket.

# %%
from urllib.request import urlopen

from labkit.observe import container as see

see.wait_for_port(box.pid, 80)
page = urlopen("http://127.0.0.1:8080").read().decode()
print(page.partition("<h1>")[2].partition("</h1>")[0])

# %% [markdown]
# Port 8080 of this machine leads to port 80 of the container. It is forwarded to your own computer too: open
# [http://127.0.0.1:8080](http://127.0.0.1:8080) in another tab. (If you started the lab with another `PUBLISH_PORT`,
# `make lab` printed the address.)
#
# And now the count:

# %%
after = census.take()
for kind in ("process", "cgroup", "link", "mount", "netns"):
    # The machine's own services come and go in cgroups too: those of labkit's count.
    wanted = f"+ {kind} {'/labkit' if kind == 'cgroup' else ''}"
    new = [line for line in census.difference(before, after) if line.startswith(wanted)]
    print(f"new {kind:<8} {len(new)}")

# %% [markdown]
# Processes (those in the container, and those of labkit's that wait for its end and serve it from outside), a control
# group inside a parent of its own, two network devices. No mount that this machine can see, no network namespace with
# a *name*, such as `ip netns` gives (it has one without), and nothing at all that is called a container: the kernel
# does not know the word. *Container* is what people call processes whose view and budget are narrowed in several ways
# at once. The rest of this notebook looks at each of those ways.
#
# ## Processes with two numbers
#
# Inside, `ps` shows nginx with a small process number. Predict: is it the same process here, with the same number?

# %%
group = see.cgroup(box.pid)
family = see.processes(group)
for outside, name, inside in family:
    print(f"{name:<12} pid {outside} here, number {inside} inside")

# %% [markdown]
# One process, two numbers: a *pid namespace* numbers the processes in it from 1 again. `labkit-init` is number 1. It takes in
# orphans and passes signals on, as `docker run --init` does. (Without `--init`, Docker makes the command itself number 1; so does `labkit run --no-init`.)
#
# The parent of nginx, seen from both sides, is the same process:

# %%
init, server = family[0], family[1]
parent = int(see.status(server[0])["PPid"])
print(f"nginx has the parent pid {parent}, and labkit-init is pid {init[0]}")
print("the same process:", parent == init[0])

# %% [markdown]
# ## Namespaces: its view
#
# Every process stands in one namespace of each kind; `/proc/PID/ns` shows which, as numbers. The same number means the same
# namespace. Predict: of the eight kinds, how many does a container share with this machine?

# %%
from labkit.draw import namespaces as matrix
from labkit.kernel.namespaces import KINDS

columns = see.namespace_table({"this machine": "self", "container": box.pid})
matrix.matrix(columns, {kind.name: kind.isolates for kind in KINDS.values()})

# %% [markdown]
# Six of its own, two shared. Docker by default does just the same: no *user* namespace (root inside is root outside, with
# fewer powers), and no *time* namespace. An independent witness, `lsns` from util-linux, agrees:

# %%
listing = subprocess.run(["lsns", "--json", "-p", str(box.pid)], capture_output=True, text=True, check=True)
for line in json.loads(listing.stdout)["namespaces"]:
    print(f"{line['type']:<7} {line['ns']}")

# %% [markdown]
# ## Control group: its budget
#
# Every limit that you gave is a line in a file. These are the files, as the kernel holds them now:

# %%
asked = ["memory.max", "memory.swap.max", "cpu.max", "pids.max"]
for name, value in see.cgroup_files(group, asked).items():
    print(f"{name:<16} {value}")

# %% [markdown]
# | you said | the kernel holds |
# |---|---|
# | `--memory 256m` | `memory.max`, in bytes, and as much swap again in `memory.swap.max` (Docker's rule) |
# | `--cpus 1` | `cpu.max`: 100000 microseconds of processor time in every 100000 |
# | `--pids-limit 4096` | `pids.max` |
#
# You often read that Docker limits every container to 4096 processes. It does not unless you say so. Measure it:
# the same image, no limits.

# %%
with launch.run("localhost:5000/nginx", name="free") as free:
    for name, value in see.cgroup_files(see.cgroup(free.pid), asked).items():
        print(f"{name:<16} {value}")

# %% [markdown]
# `max` everywhere: without options a container may take the whole machine.
#
# ## Layers: its root
#
# Its `/` is no copy of the image. It is a stack of folders on this machine, seen as one: the image's layers, which are
# never written to, and one folder on top that takes every write.

# %%
from labkit.draw import layers

steps = [step["created_by"] for step in image.config.history if not step.get("empty_layer")]
names = [*(f"layer {number}" for number, _ in enumerate(steps, 1)), "writable layer"]
slabs = zip(names, see.root_layers(box.pid), [*steps, "the container itself"], strict=True)
layers.stack([layers.Slab(name, one.size, one.files, one.writable, step) for name, one, step in slabs])

# %% [markdown]
# Predict: if the container changes its front page, which folder changes? And what does a second container of the
# same image serve?

# %%
from pathlib import Path

box.exec("sh", "-c", "echo changed > /usr/share/nginx/html/note.txt")
top = see.root_layers(box.pid)[-1].folder
print(Path(f"{top}/usr/share/nginx/html/note.txt").read_text().strip())
with launch.run("localhost:5000/nginx", name="second") as second:
    listing = second.exec("ls", "/usr/share/nginx/html").split()
print("in the second container:", listing)

# %% [markdown]
# The write lies in the writable layer of the first container, in a folder that you can open from here. The second one
# does not have it. Notebook 03 builds this stack.
#
# ## Cable: its network
#
# The container has a network device `eth0` that is not this machine's. It is one end of a virtual cable; the other end
# is plugged into a bridge here.

# %%
from labkit.draw import wires

cable = see.cables(box.pid)[0]
gateway = box.exec("ip", "route").split()[2]
wires.wiring([wires.Wire("web", *cable, gateway, ["8080 -> 80"])])

# %% [markdown]
# ## Powers: root, but less
#
# The container's root has 14 of the kernel's capabilities, the same 14 as under Docker. The bits are in `/proc/PID/status`:

# %%
from labkit.kernel import capabilities

here, there = (capabilities.names(capabilities.held(pid)["CapEff"]) for pid in ("self", server[0]))
print("root inside has", len(there), "capabilities")
print("may mount here:  ", "CAP_SYS_ADMIN" in here)
print("may mount inside:", "CAP_SYS_ADMIN" in there)

# %% [markdown]
# ## Break it
#
# 256 MiB is the budget. Predict what happens to a process that takes 300 MiB: an error from `malloc`? Slowness?

# %%
hungry = ["dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1"]  # one buffer of 300 MiB
limited = ["--rm", "--name", "hungry", "--network", "none", "--memory", "256m"]
end = launch.labkit("run", *limited, "localhost:5000/busybox", *hungry, check=False)
print(end.stderr)
print("exit status", end.returncode)

# %% [markdown]
# No error that the program could handle: the kernel killed it, with signal 9, and 128 + 9 = 137 is what a shell makes of
# that. When `docker run` ends with 137, this is the first thing to suspect; `memory.events` of its cgroup knows.
#
# ## What Docker does with it
#
# | `docker run` option | what the kernel holds | notebook |
# |---|---|---|
# | the image | folders, stacked by overlayfs | 02, 03 |
# | (always) | six namespaces, a root of its own | 04 |
# | `--memory` `--cpus` `--pids-limit` | lines in files of a cgroup | 05 |
# | `--publish`, `--network` | a veth pair, a bridge, NAT rules | 06 |
# | `--volume` | a bind mount | 07 |
# | `--cap-add` `--cap-drop` `--security-opt` | bits in the process | 08 |
#
# The whole list is in [MAP.md](MAP.md).
#
# ## Exercise
#
# In a terminal (File → New → Terminal), start a second nginx that is called `mine`, with half a processor and 64 MiB, published on
# port 8081. Then run this cell. It does not look at what you typed: it asks the kernel.

# %%
from labkit.errors import LabError
from labkit.runtime import state


def check(name: str) -> str:
    try:
        found = state.find(name)
    except LabError:
        return "not attempted: there is no container called " + name
    files = see.cgroup_files(see.cgroup(found["pid"]), ["cpu.max", "memory.max"])
    if files != {"cpu.max": "50000 100000", "memory.max": str(64 << 20)}:
        return f"not yet: the kernel holds {files}"
    try:
        served = urlopen("http://127.0.0.1:8081", timeout=5).read()
    except OSError as error:
        return f"not yet: port 8081 says {error}"
    return "right" if served == page.encode() else "not yet: port 8081 serves something else"


print(check("mine"))

# %% [markdown]
# <details><summary>Hint</summary>
#
# The options are those of `docker run`: `labkit run --help` lists them. `--cpus` takes fractions, `-d` keeps it in the background.
# </details>
#
# <details><summary>Solution</summary>
#
#     labkit run -d --name mine --cpus 0.5 --memory 64m -p 8081:80 localhost:5000/nginx
# </details>
#
# ## Give it back
#
# Whoever takes something from the kernel must give it back. Predict: after the container is removed (and yours from the
# exercise, if there is one), what differs from the census at the start?

# %%
box.remove()
launch.labkit("rm", "--force", "mine", check=False)  # of the exercise
left = census.difference(before, census.take())
print("\n".join(left) or "nothing: the kernel holds what it held before")

# %% [markdown]
# If something is ever left behind, after a crash or a killed program, `labkit reset` in a terminal gives back
# everything that labkit made, and nothing else.
#
# **Next:** 01 follows one `docker run` from the command line to the kernel.
