# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (the lab)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 · Docker by hand
#
# Below every engine there is a program that takes a folder with a file `config.json` in it and makes a container.
# podman, containerd and Docker call it by its name, `runc`, and do not look inside. Its language is a standard, the
# OCI runtime specification, so another program can stand in its place. This kit has one: `labkit-runtime`, and it is
# written to be read.
#
# In this notebook you are the engine. You write the folder, change it line by line, and watch a container being
# born, one step at a time.
#
# | section | minutes | |
# |---|---|---|
# | 1 A bundle by hand | 6 | core |
# | 2 Change a line, look inside | 14 | core |
# | 3 A life in five words | 6 | core |
# | *exercise* wait-for-start | 10 | core |
# | *exercise* let-go | 8 | core |
# | 4 The birth, step by step | 12 | core |
# | *exercise* birth-order | 10 | optional |
# | 5 A hook gives it its network | 6 | optional |
# | *exercise* hook-network | 12 | optional |
# | *exercise* one-thing | 10 | core |
# | 6 An attack | 4 | core |
# | 7 When one does not start | 6 | optional |
# | *exercise* six-patients | 15 | optional |
# | 8 Two others beside it | 6 | optional |
# | 9 An engine that does not notice | 8 | optional |
#
# The core is what a ninety-minute workshop does. You can leave out any exercise: the button under it, or
# `exercise(NAME).load()`, defines labkit's answer, and all later cells work.
#
# Run the cells in order. The first one counts what the kernel holds now; the last one compares.

# %%
from labkit.kernel import cgroups
from labkit.observe import census

before = census.take()
handed_down = set((cgroups.root() / "cgroup.subtree_control").read_text().split())

# %% [markdown]
# ## 1 · A bundle by hand (6 minutes, core)
#
# **What does a runtime need to make a container?** A *bundle*: a folder with a root file system and a `config.json`.
# The root file system is a plain folder of files; here it is the one layer of the kit's busybox image, copied.

# %%
import shutil
import subprocess
from pathlib import Path

from labkit.image import layers, store
from labkit.lessons import scratch

disk = scratch("notebook-10")  # a folder on the machine's disk, for as long as the notebook runs
bundle = Path("/var/tmp/by-hand")  # a short name: pictures show it
shutil.rmtree(bundle, ignore_errors=True)
subprocess.run(["labkit", "pull", "localhost:5000/busybox"], capture_output=True, check=True)
(layer,) = layers.layer_folders(store.Store().find("localhost:5000/busybox"))
shutil.copytree(layer, bundle / "rootfs", symlinks=True)
print(sorted(path.name for path in (bundle / "rootfs").iterdir()))

# %% [markdown]
# `spec` writes a `config.json` to begin with, as `runc spec` does.

# %%
import json


def runtime(*words):
    """labkit-runtime WORDS, in the bundle: its exit status and what it said."""
    with open(bundle / "said", "w") as said:
        done = subprocess.run(
            ["labkit-runtime", *words], cwd=bundle, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    return done.returncode, (bundle / "said").read_text()


runtime("spec")
config = json.loads((bundle / "config.json").read_text())
for name, value in config.items():
    print(f"{name:<12}", json.dumps(value)[:90])

# %% [markdown]
# Six fields, and two of them are long. `process` says what is to run, as whom, with which rights. `linux` says in
# which namespaces, what is hidden and what is limited. Everything that `docker run` has options for ends up in here:
# the engine's work is to write this file.
#
# `spec` asks for a shell in a terminal. You want something that prints and ends. **Predict**: the program below ends
# with status 7. What is the status of `labkit-runtime run`? Put your answer in place of `...`: `mine=1` means the first
# choice.

# %%
from labkit.lessons import measured, predict

STATUSES = ["status 0", "status 1", "status 7", "status 125"]
predict("whose-status", "The program ends with 7. With what does `run` end?", STATUSES, mine=...)

# %%
import copy
import os

LOOK = "echo I am $(hostname), process $$; exit 7"
config["process"].update(terminal=False, args=["sh", "-c", LOOK])
config["root"]["readonly"] = False


def run(changed=config):
    """Write this document into the bundle and run it; the exit status and what was said."""
    (bundle / "config.json").write_text(json.dumps(changed))
    return runtime("run", "by-hand")


status, said = run()
print(said)
measured("whose-status", f"status {status}")

# %% [markdown]
# The runtime waited for its container, as a shell waits for a program, and passed the status on. Nothing is left of
# the container:

# %%
print(runtime("list")[1], end="")

# %% [markdown]
# The table has its head, and no line.
#
# ## 2 · Change a line, look inside (14 minutes, core)
#
# **Which line does what?** The way to know is to change one, and to ask the container what it sees. This program
# asks for seven things at once.

# %%
ASK = """
echo name     $(hostname)
echo user     $(id -u):$(id -g)
echo folder   $(pwd)
echo greeting ${GREETING:-none}
echo files    $(ulimit -n)
echo devices  $(ls /sys/class/net | wc -l) network device, $(ls /dev | wc -l) in /dev
echo writes   $(touch /written 2>&1 && echo yes)
"""
config["process"]["args"] = ["sh", "-c", ASK]
plain = run()[1].splitlines()
print("\n".join(plain))

# %% [markdown]
# Now one change at a time. `put` makes a copy of the document with another value at one place, and `differs` prints
# the lines that are not the same any more.


# %%
def put(place, value, document=config):
    """A copy of config.json, or of another document, with `value` at a place such as process.cwd."""
    changed = copy.deepcopy(document)
    *way, last = place.split(".")
    part = changed
    for word in way:
        part = part[word]
    part[last] = value
    return changed


def differs(place, value):
    """Which lines of the answer are others when this stands at that place."""
    lines = run(put(place, value))[1].splitlines()
    print(f"{place} = {json.dumps(value)}")
    for old, new in zip(plain, lines, strict=True):
        if old != new:
            print(f"    {old}   ->   {new}")


differs("hostname", "by-hand")
differs("process.user", {"uid": 1000, "gid": 100})
differs("process.cwd", "/tmp")
differs("process.env", [*config["process"]["env"], "GREETING=hello"])
differs("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}])
differs("root.readonly", True)

# %% [markdown]
# Each line of the file became one thing in the kernel: a name in a namespace, two numbers of a process, a folder, a
# variable, a limit, a flag of a mount.
#
# The other lines need questions of their own. `shows` asks one, without a line and with it.


# %%
def shows(question, place, value, document=config):
    """What the container answers to a question as the document is, and when this stands at that place."""
    asked = put("process.args", ["sh", "-c", question], document)
    old, new = (" ".join(run(one)[1].split()) for one in (asked, put(place, value, asked)))
    print(f"{place} = {json.dumps(value)}\n    {old}   ->   {new}")


shows("umask", "process.user.umask", 0o77)
shows("id -G", "process.user.additionalGids", [27, 100])
shows("grep NoNewPrivs /proc/self/status", "process.noNewPrivileges", False)
shows("cat /proc/self/oom_score_adj", "process.oomScoreAdj", 500)

# %% [markdown]
# *Who it is.* The umask takes rights away from each new file; JSON has no octal numbers, so 077 is written 63.
# Additional groups stand beside the first one. With `noNewPrivileges` no program that is executed can gain rights, not
# even one with the set-user-id bit; `spec` sets it. And where memory is short, the kernel takes the process with the
# highest score first.
#
# Rights are five sets of capabilities. Two of them matter here: *effective* is what the process may do now; *bounding*
# is the most that it, and every program that it ever executes, can get. What is left out of the file is nobody's, and
# nothing has to be forbidden:

# %%
from labkit.kernel import capabilities

config["process"]["args"] = ["sh", "-c", "grep -E '^Cap(Eff|Bnd)' /proc/self/status"]
for document in (config, put("process.capabilities", {})):
    for line in run(document)[1].splitlines():
        name, mask = line.split()
        print(f"{name:<7} {mask}  {' '.join(capabilities.names(int(mask, 16))) or 'none'}")

# %% [markdown]
# *What it is alone with.* `linux.namespaces` lists what the container gets of its own. Which kinds does it share with
# the machine, when one of them is not in the list?

# %%
have = config["linux"]["namespaces"]
here = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns") if "for_" not in name}
config["process"]["args"] = ["sh", "-c", f"for one in {' '.join(here)}; do readlink /proc/self/ns/$one; done"]
for kind in ("nothing", "pid", "network", "ipc", "cgroup"):
    inside = run(put("linux.namespaces", [one for one in have if one["type"] != kind]))[1].split()
    print(f"without {kind:<8} it shares:", *sorted(name for name, number in here.items() if number in inside))

# %% [markdown]
# `user` and `time` are shared as it is, as in Docker. Without `network` the container has the machine's devices and
# addresses: that is `--network host`. A name or a mount without a namespace for it would be the whole machine's, so
# `uts` and `mount` cannot go alone, and the runtime says so:

# %%
print(run(put("linux.namespaces", [one for one in have if one["type"] != "uts"]))[1], end="")

# %% [markdown]
# Three lines belong to one namespace each: a domain name to `uts`, a setting of the kernel (`sysctl`) to the network,
# and an offset of the clock that counts from the start of the machine to a time namespace, which is ordered here. The
# last question is whether this machine has been up for more than 86400000 seconds, a thousand days: 1 is yes.

# %%
TIME = put("linux.namespaces", [*have, {"type": "time"}])
UPTIME = "awk '{print ($1 > 86400000)}' /proc/uptime"  # 1: the machine has been up for longer
shows("cat /proc/sys/kernel/domainname", "domainname", "lab.example")
shows("cat /proc/sys/net/ipv4/ip_default_ttl", "linux.sysctl", {"net.ipv4.ip_default_ttl": "33"})
shows(UPTIME, "linux.timeOffsets", {"boottime": {"secs": 86400000}}, TIME)

# %% [markdown]
# A user namespace needs a map: which user of the machine is root in here? Root of the container is user 100000 then,
# and `/bin/sh`, which belongs to the machine's root, belongs to nobody that it knows (65534).

# %%
ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
mapped = put("linux.namespaces", [*have, {"type": "user"}])
mapped = put("linux.gidMappings", ids, put("linux.uidMappings", ids, mapped))
for document in (config, mapped):
    asked = put("process.args", ["sh", "-c", "cat /proc/self/uid_map; id -u; stat -c %u /bin/sh"], document)
    print("map: {} {} {}   I am {}   /bin/sh belongs to {}".format(*run(asked)[1].split()))

# %% [markdown]
# *What it sees of files.* `mounts` is the list of all that is laid over the root file system: here a folder of the
# machine, read-only, and a small file system in memory.

# %%
(bundle / "shared").mkdir(exist_ok=True)
(bundle / "shared/note").write_text("hello from the machine")
DATA = {"destination": "/data", "type": "bind", "source": str(bundle / "shared"), "options": ["rbind", "ro"]}
MEMORY = {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}
LOOK = "cat /data/note; echo; touch /data/mine; df -m /scratch | tail -n 1"
config["process"]["args"] = ["sh", "-c", LOOK]
print(run(put("mounts", [*config["mounts"], DATA, MEMORY]))[1], end="")

# %% [markdown]
# The note is read, nothing can be written beside it, and the file system in memory has one megabyte. Three more lines:

# %%
DEVICE = {"path": "/dev/nothing", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}
shows("test -c /dev/nothing && echo a device || echo not there", "linux.devices", [DEVICE])
shows("echo mine > /proc/sys/kernel/domainname; cat /proc/sys/kernel/domainname", "linux.readonlyPaths", [])
shows("awk '$5 == \"/\" {print $7}' /proc/self/mountinfo", "linux.rootfsPropagation", "private")

# %% [markdown]
# A device is a file with two numbers: 1 and 3 are the null device, under whatever name. `/proc/sys` is one of
# `readonlyPaths`; without that list the container writes a setting (of its own UTS namespace, here). And mounts that
# the machine makes later reach the root file system of a container as long as it has a *master*; a private one has none
# (`-`).
#
# `maskedPaths` is a list of files that the kernel would show to any root. With the list, such a file is empty, and so
# is such a folder; without it, they tell of the whole machine. (How many lines that are differs from machine to
# machine.)

# %%
config["process"]["args"] = ["sh", "-c", "cat /proc/timer_list | wc -l; ls /sys/firmware | wc -l"]
for words, document in (("masked:    ", config), ("not masked:", put("linux.maskedPaths", []))):
    lines, names = (int(word) for word in run(document)[1].split())
    print(words, "lines in timer_list:", lines and "some", "  names in /sys/firmware:", names and "some")

# %% [markdown]
# *How much it gets.* Limits are the files of a cgroup (notebook 05). The container sees its own, since it has a cgroup
# namespace. Where that cgroup lies in the machine's tree, `cgroupsPath` says; without the namespace, the container sees
# it.

# %%
config["process"]["args"] = ["sh", "-c", "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max"]
resources = {**config["linux"]["resources"], "pids": {"limit": 20}, "memory": {"limit": 64 << 20}}
print(run()[1].split(), "->", run(put("linux.resources", resources))[1].split())
no_cgroup_namespace = put("linux.namespaces", [one for one in have if one["type"] != "cgroup"])
shows("cat /proc/self/cgroup", "linux.cgroupsPath", "/by-hand-group", no_cgroup_namespace)

# %% [markdown]
# *Whom it talks to.* With `terminal` the program gets a terminal of its own. The runtime opens it in the container and
# copies what is typed and printed, so it wants a terminal itself; `script` lends it one.

# %%
config["process"]["args"] = ["tty"]
for wanted in (False, True):
    (bundle / "config.json").write_text(json.dumps(put("process.terminal", wanted)))
    words = ["script", "-qec", "labkit-runtime run by-hand", "/dev/null"]
    done = subprocess.run(words, cwd=bundle, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print(f"terminal = {json.dumps(wanted):<5}", done.stdout.strip())

# %% [markdown]
# **What Docker does with it.** `docker run --hostname --user --group-add --workdir --env --ulimit --read-only
# --cap-drop --network --userns --sysctl --volume --tmpfs --device --pids-limit --memory --cgroup-parent --tty` is a way
# to write these lines. An engine keeps the file that it wrote; in section 9 you read one.

# %% [markdown]
# ## 3 · A life in five words (6 minutes, core)
#
# **Why do engines not call `run`?** Because they have work to do between the making and the running: a network to
# attach, a log to open. So a container's life has five verbs: `create`, `start`, `state`, `kill`, `delete`.

# %%
config["process"]["args"] = ["sh", "-c", "echo the program runs > /proof; exec sleep 1000"]
(bundle / "config.json").write_text(json.dumps(config))
runtime("create", "by-hand")


def state():
    """What the runtime says of the container, and whether the program has done anything."""
    found = json.loads(runtime("state", "by-hand")[1])
    return found["status"], (bundle / "rootfs/proof").exists()


print(state())

# %% [markdown]
# *created*: everything is made, and the program does not run. Its process is there, in all its namespaces. It has
# opened a FIFO, a pipe with a name, and waits for somebody to write into it.

# %%
pid = json.loads(runtime("state", "by-hand")[1])["pid"]
print("it is called", Path(f"/proc/{pid}/comm").read_text().strip())
print("and the runtime keeps", *sorted(path.name for path in Path("/run/labkit-runtime/by-hand").iterdir()))

# %% [markdown]
# `start` writes one byte. The process reads it, and becomes the program: the same process, the same number. While the
# FIFO is there, `state` calls the container *created*; so `start` also takes it away.

# %%
import time

runtime("start", "by-hand")
while not (bundle / "rootfs/proof").exists():
    time.sleep(0.05)
print(state(), (bundle / "rootfs/proof").read_text().strip())
print("the same process:", json.loads(runtime("state", "by-hand")[1])["pid"] == pid)

# %%
print("start twice:  ", runtime("start", "by-hand")[1].splitlines()[:2])
print("delete it now:", runtime("delete", "by-hand")[1].splitlines()[:2])
runtime("kill", "by-hand", "KILL")
while state()[0] != "stopped":
    time.sleep(0.05)
print("delete it:    ", "status", runtime("delete", "by-hand")[0])
print("what is there:", runtime("list", "-q")[1] or "nothing")

# %% [markdown]
# `kill` sends a signal, SIGKILL here, to the process; `delete` takes away what is left of a container that has stopped.
#
# A runtime has no daemon. Between two of these commands nothing of it runs: what it knows lies in that folder, and
# what it does not know, it asks the kernel.

# %% [markdown]
# ### Exercise · Between create and start
#
# `hold` is what the container's process does when all is made. Between `create` and `start` there may be hours, and in
# between people ask for the state: the runtime then opens the FIFO for a moment, to see whether anybody waits.

# %%
# exercise: wait-for-start
import os


def hold(fifo, become):
    """In the container's process, when all is made: wait for `start`, then become the program.

    fifo -- the path of a FIFO, which is there; start writes one byte into it
    become -- become() is execve: it does not return
    """
    ...


# %%
from labkit.lessons import exercise

exercise("wait-for-start").check(hold)

# %% [markdown]
# ### Exercise · The other end of the FIFO
#
# `start` is the verb that lets it go. It may never wait itself: the process may have been killed in between, and then
# nobody will ever read. And a container is started once: while the FIFO is there, `state` calls the container
# *created*; so `start` also takes it away.


# %%
# exercise: let-go
import errno
import os


def start(fifo):
    """Let the process that waits at this FIFO go on: True; False if nobody waits there (any more).

    It never waits itself, and what it has let go, nobody can let go a second time.
    """
    ...


# %%
exercise("let-go").check(start)

# %% [markdown]
# The runtime's own process waits at its FIFO in just this way. So your `start` can start a container that `create` has
# made; `mine` takes your function, or labkit's while there is none.

# %%
from labkit.lessons import mine

runtime("create", "by-hand")
let_go = mine("let-go")
fifo = "/run/labkit-runtime/by-hand/exec.fifo"
print(state()[0], "->", let_go(fifo), state()[0], "-> once more:", let_go(fifo))
status, _ = runtime("delete", "--force", "by-hand")

# %% [markdown]
# ## 4 · The birth, step by step (12 minutes, core)
#
# **In which order does a process become a container?** `labkit-runtime run --step`, in a terminal, stops after each
# step. `Birth` does the same in a notebook, and takes an X-ray before and after. So that every step has something to
# do, the document gets a small seccomp profile: one call, `swapon`, is answered with an error.
#
# **Predict** first. At some moment the process, which began as the machine's root, can no longer name a file of the
# machine's. At which step?

# %%
predict(
    "the-way-back",
    "From which step on can it not reach the machine's files any more?",
    choices=["cloned", "mounted", "pivoted", "dropped", "executed"],
    mine=...,
)

# %%
from labkit.lessons.birth import Birth

config["process"]["args"] = ["sleep", "5"]
NO_SWAP = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]}
(bundle / "config.json").write_text(json.dumps(put("linux.seccomp", NO_SWAP)))
birth = Birth(bundle, ["labkit-runtime"])
cloned = birth.step()
print(*cloned.calls, sep="\n")

# %% [markdown]
# One call (its last word is the size of the structure, 88 bytes, and its answer the number of the process). A step
# shows itself: the lines of `config.json` that it obeys, the call, and what the kernel holds now that it did not hold
# before.

# %%
from IPython.display import display

display(cloned)

# %% [markdown]
# `clone3` has made a process that is born in new namespaces, and in its own cgroup. It waits for its maker,
# who may have numbers of users to map.

# %%
networked = birth.to("networked")
print(*networked.calls, sep="\n")

# %% [markdown]
# One of its first deeds is to turn the loopback of its network namespace on: any socket will do for that. The first
# `ioctl` asks for the flags of the device `lo`, the second one sets them, with `IFF_UP` among them.
#
# The root file system is still one folder among others. Next come the mounts. Each entry of `mounts` is looked for
# beneath that folder by `openat2`, whose flags guard the way: the folder is `/` for this call (`RESOLVE_IN_ROOT`), so
# that no symlink of the image leads out of it, and on the way to `/proc` none is followed at all. Mounted is then on
# the descriptor, `/proc/self/fd/6`, so that nothing can be swapped in between. The first such look, and all mounts:

# %%
mounted = birth.to("mounted")
print(next(call for call in mounted.calls if "RESOLVE_IN_ROOT" in call))
print(*(call for call in mounted.calls if call.startswith("mount(")), sep="\n")


# %%
def reaches(pid):
    """Whether this process, through its own root, sees the file that names this machine's kit."""
    return Path(f"/proc/{pid}/root/lab/README.md").exists()


seen = {}
for name in ("mounted", "pivoted", "masked", "dropped", "filtered"):
    step = birth.steps[-1] if name == "mounted" else birth.to(name)
    seen[name] = reaches(step.pid)
print(seen)
measured("the-way-back", next(name for name, there in seen.items() if not there))

# %% [markdown]
# `pivot_root` did it: three calls, and the whole machine is gone from its sight.

# %%
pivoted = next(step for step in birth.steps if step.name == "pivoted")
print(*pivoted.calls, sep="\n")

# %% [markdown]
# *masked* laid the null device over files and empty folders over folders. *dropped* closed every descriptor, gave the
# bounding set away capability by capability, and became the user of the file. Only then is the program looked for: by
# a process that has nothing left to lose.

# %%
dropped = next(step for step in birth.steps if step.name == "dropped")
given_up = [call for call in dropped.calls if "PR_CAPBSET_DROP" in call]
print(len(given_up), "calls give up a capability for good; the first is", given_up[0])

# %%
print("exit status", birth.finish())
birth.close()
print(*(step.name for step in birth.steps), sep=" > ")

# %% [markdown]
# The whole film: a picture for each step, below the lines of `config.json` that it obeyed. Drag the slider, or play it.
#
# Three steps have no call on record. *mapped* has no users to map without a user namespace; *labelled* writes a score
# and a security label into files of `/proc`, and this document has neither; *attached* puts the standard streams in
# their place, by Python's own `dup2`, which strace would show and this record does not.

# %%
birth.film()

# %% [markdown]
# A stepped birth makes the same calls as a straight one: it is the same walk, and a test compares the two by strace.

# %% [markdown]
# ### Exercise · Only some orders work
#
# Eight steps of a birth, in the order of the alphabet. Give them in an order in which the kernel lets them all happen,
# to the container and to nobody else. The check makes the steps, as root, in a process of its own, and tells you at
# which one the kernel said no.
#
# | word | what the step does |
# |---|---|
# | `bounding` | every capability but CAP_KILL leaves the bounding set |
# | `filter` | a seccomp filter: no mounts, no names, no change of user |
# | `mounts` | the root file system is mounted on its folder, and the programs into it |
# | `name` | sethostname |
# | `namespaces` | unshare: new mount and UTS namespaces |
# | `pivot` | pivot_root: the folder becomes / |
# | `program` | execve: the program, which prints what it finds |
# | `user` | the groups, the group and the user become 1000; the capabilities go with root |


# %%
# exercise: birth-order
def order(steps):
    """The words of `steps` as a list, in an order that works.

    steps -- {"bounding": "...", "filter": "...", ...}: eight words, and what each step does
    """
    ...


# %%
exercise("birth-order").check(order)

# %% [markdown]
# ### Your own parts, put together
#
# Three things of this list you wrote yourself: the cgroup of *cloned* in notebook 05, the name that *masked* sets, and
# *pivoted*, in notebook 04. One after the other, in a process of its own, they are a small container. Each line says
# whose function it takes.

# %%
from labkit.kernel.namespaces import KINDS, inode
from labkit.lessons import Child

limit, rename, pivot = mine("limit"), mine("host-name"), mine("own-root")
cgroups.enable(cgroups.root(), {"cpu", "memory", "pids"})


def small():
    """The steps, in the order that the kernel allows; then the program, and which namespaces are this process's own."""
    outside = {kind: inode(kind) for kind in KINDS}
    inside = os.open("/proc/self/ns", os.O_RDONLY)  # after the pivot there is no /proc to look into
    limit(cgroups.root(), "by-hand-small", 64 << 20, 1.0, 20, os.getpid())
    rename("small")
    pivot(str(bundle / "rootfs"))
    ask = "echo $(hostname): /lab is $(test -e /lab && echo here || echo not here)"
    done = subprocess.run(["sh", "-c", ask], capture_output=True, text=True)
    return done.stdout, [kind for kind in KINDS if os.stat(KINDS[kind].file, dir_fd=inside).st_ino != outside[kind]]


with Child("small") as child:
    said, own = child.do(small)
    limits = [(cgroups.root() / "by-hand-small" / name).read_text().strip() for name in ("memory.max", "pids.max")]
print(said + f"limits: {' '.join(limits)}\nits own: {' '.join(own)}")
cgroups.remove(cgroups.root() / "by-hand-small")

# %% [markdown]
# It has a name, a root and a budget. What it has not is the rest of the film: four more namespaces, `/proc` and `/dev`,
# closed descriptors, fewer capabilities, a filter. A runtime is that list, each line done without a gap.

# %% [markdown]
# ## 5 · A hook gives it its network (6 minutes, optional)
#
# **Who gives a container its network?** Not the runtime: it makes a network namespace, turns its loopback on, and
# leaves the rest to others. It calls programs at six moments, *hooks*, and hands each the container's state:
#
# | hook | when | where it runs |
# |:--|:--|:--|
# | `prestart` (the oldest), `createRuntime` | the mounts are made: step `hooked` | on the machine |
# | `createContainer` | right after them | in the container's namespaces; `/` is still the machine's |
# | `startContainer` | right before the program: step `created` | in the container |
# | `poststart` | the program has begun | on the machine |
# | `poststop` | the container is deleted | on the machine |
#
# Ours is a `createRuntime` hook. It makes a pair of virtual cards, one here and one in the namespace of the process that
# the state names.

# %%
HOOK = """
pid=$(jq .pid)
ip link add by-hand0 type veth peer name eth0 netns $pid
ip address add 10.99.0.1/24 dev by-hand0
ip link set by-hand0 up
nsenter -t $pid -n sh -c 'ip address add 10.99.0.2/24 dev eth0; ip link set eth0 up'
"""
environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
hooks = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", HOOK], "env": environment, "timeout": 60}]}
config["process"]["args"] = ["sh", "-c", "ls /sys/class/net; ip -4 -o address show eth0 2>/dev/null | awk '{print $4}'"]
print("without:", run()[1].split())
print("with:   ", run({**config, "hooks": hooks})[1].split())

# %% [markdown]
# The pair is gone: a card ends with the namespace that it is in, and its peer with it.
#
# **What breaks when a hook fails?** For a hook that runs before the program: the container. If its network could not be
# made, it must not run. (What fails at the very end, in `poststop`, is only said: there is nothing left to stop.)

# %%
broken = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no cable left >&2; exit 4"]}]}
status, said = run({**config, "hooks": broken})
print(status, *said.splitlines()[:2], sep="\n")

# %% [markdown]
# ### Exercise · A hook that brings the network
#
# The same in Python, and yours: the check puts `attach` into a program, and that into `config.json` as a hook. The
# program in the container then calls the machine by the address that it was told.

# %%
# exercise: hook-network
import subprocess


def attach(state):
    """Give the container of this state a network; what raises makes the hook fail, and the container with it.

    The machine's end of the cable is called host0 and has the address state["annotations"]["net.machine"];
    the container's is eth0, with state["annotations"]["net.container"]: both as 10.1.2.3/24.
    """
    ...


# %%
exercise("hook-network").check(attach)

# %% [markdown]
# ### Exercise · A profile that stops one thing
#
# A seccomp profile decides, call by call, what a program may ask of the kernel. Write one that stops a container from
# making folders, and from nothing else: `mkdir` says *Operation not permitted*, and all other programs work as ever.
#
# There is more than one system call that makes a folder: `mkdir` and `mkdirat`.


# %%
# exercise: one-thing
def profile():
    """linux.seccomp of a config.json: no folder can be made, and all else works.

    {"defaultAction": ..., "syscalls": [{"names": [...], "action": ..., "errnoRet": ...}]}
    The actions have names such as SCMP_ACT_ALLOW, SCMP_ACT_ERRNO and SCMP_ACT_KILL.
    """
    ...


# %%
exercise("one-thing").check(profile)

# %% [markdown]
# ## 6 · An attack (4 minutes, core)
#
# **Can config.json lead out of the container?** In January 2024 it could. A runtime had left a descriptor of a folder
# of the machine's open; with a working directory of `/proc/self/fd/7` the program stood in it, outside of its root
# (CVE-2024-21626). Here every descriptor is closed before the process goes to its folder, and afterwards the kernel
# is asked where it stands.

# %%
config["process"]["args"] = ["sh", "-c", "pwd"]
for number in (7, 8, 9):
    status, said = run(put("process.cwd", f"/proc/self/fd/{number}"))
    print(status, said.splitlines()[0].removeprefix("labkit-runtime run: "))

# %% [markdown]
# The second way was older: a program that is the runtime. `/proc/self/exe` is the file that a process was started
# from, and until the very last call that is the machine's own interpreter (CVE-2019-5736).

# %%
status, said = run(put("process.args", ["/proc/self/exe"]))
print(status, *said.splitlines()[:2], sep="\n")

# %% [markdown]
# ## 7 · When one does not start (6 minutes, optional)
#
# **Where do you look when a container does not start?** What cannot be true is known from the file alone. The rest only
# the kernel knows. **Predict**: which of these four is refused before anything has been made?

# %%
predict(
    "file-alone",
    "Which one is wrong already as a document?",
    choices=["a misspelled program", "a program that is a text file", "two namespaces of one kind", "nothing to mount"],
    mine=...,
)

# %%
NOTHING = {"destination": "/data", "type": "bind", "source": "/no/such", "options": ["rbind"]}
BROKEN = {
    "a misspelled program": put("process.args", ["sh-c"]),
    "a program that is a text file": put("process.args", ["/etc/passwd"]),
    "two namespaces of one kind": put("linux.namespaces", [{"type": "pid"}, {"type": "pid"}]),
    "nothing to mount": put("mounts", [NOTHING]),
}
heard = {name: run(document) for name, document in BROKEN.items()}
for name, (status, said) in heard.items():
    print(f"{name:<30} {status:>3}  {said.splitlines()[0].removeprefix('labkit-runtime run: ')}")
measured("file-alone", next(name for name, (_, said) in heard.items() if "step: " not in said))

# %% [markdown]
# The status is 127 for a program that is not there, 126 for a file that is none, and 1 for all else. The message, whose
# first line stands here, also says at which step of the birth it ended, but for the birth that was never begun.
#
# An engine does not read a terminal. There are three places that it, and you, can ask: the *log*, a line of JSON for
# each error; the *state*; and the birth itself, made once more, step by step.

# %%
from labkit.errors import LabError


def tell(folder):
    """Create and start the container of a bundle, as an engine does, and ask in three places what became of it."""
    log = bundle / "log"
    log.write_text("")
    words = ("--log", str(log), "--log-format", "json")
    if runtime(*words, "create", "--bundle", str(folder), "patient")[0] == 0:
        print("start: ", runtime(*words, "start", "patient")[0])
        time.sleep(3)  # a program that ends at once has ended by then
    status, said = runtime("state", "patient")
    print("state: ", json.loads(said)["status"] if status == 0 else said.splitlines()[0])
    print("log:   ", *[json.loads(line)["msg"] for line in log.read_text().splitlines()] or ["empty"])
    runtime("delete", "--force", "patient")
    with Birth(folder, ["labkit-runtime"]) as birth:
        try:
            birth.to("executed")
        except LabError:
            pass
    print("birth: ", " > ".join(step.name for step in birth.steps) or "nothing was made")
    return birth.film()


(bundle / "config.json").write_text(json.dumps(BROKEN["nothing to mount"]))
film = tell(bundle)

# %% [markdown]
# There is no container, not even a stopped one: a birth that fails gives back all that it has made. The log names the
# step, and so does the birth: the first step that is *not* in its line is the one at which it ended. `tell` returns the
# birth's pictures, an X-ray for each step that went well: `film` in a cell of its own shows them.
#
# Which lines of `config.json` each step obeys is no secret:

# %%
import textwrap

from labkit.runtime.life.stepping import FIELDS

for step, fields in FIELDS.items():
    print(textwrap.fill(", ".join(fields), 100, initial_indent=f"{step:<12}", subsequent_indent=" " * 12))

# %% [markdown]
# ### Exercise · Six that do not start
#
# Six containers, ordered by people who know what they want; each has one mistake in its `config.json`, of a kind that
# people make. Their births end at six different steps. `tell(ward["one"].folder)` asks the three places; the file
# itself is `ward["one"].config`.

# %%
from labkit.lessons import patients

ward = patients.Ward(disk / "patients")
for name, one in ward.bundles.items():
    print(f"{name:<6}", one.config["annotations"]["purpose"])

# %% [markdown]
# Find out where each of them dies and of what, and mend its document, so that the container does what it was ordered
# for: to take away what is in the way is no answer. The check has six of the same kinds, with other numbers and names.


# %%
# exercise: six-patients
def heal(name, config):
    """(step, config): the step of its birth that this one does not survive, and a config.json with which it lives.

    name   -- "one" to "six"
    config -- its config.json; config["annotations"]["purpose"] says what the container is for, and must come true
    """
    ...


# %%
exercise("six-patients").check(heal)

# %% [markdown]
# The six and their folder go:

# %%
ward.close()

# %% [markdown]
# ## 8 · Two others beside it (6 minutes, optional)
#
# **Do all runtimes do the same?** runc is Docker's, and written in Go. crun is podman's on many machines, and written
# in C. strace shows the calls of each on the same bundle, with your filter of the exercise in it.
#
# A runtime has helpers, and asks the kernel what it can do by calls that must fail. So that only the birth is counted:
# calls that succeeded, of the one process that becomes `/bin/true`; for two steps, of other processes too, since
# another one can make this one's namespaces and set its limits.

# %%
import re

STEPS = {
    "cloned": r"(clone3?|unshare)\(.*CLONE_NEW",
    "mounted": r'mount\("(proc|devpts|shm|mqueue|sysfs|cgroup2?)", ',  # what `mounts` of config.json lists
    "pivoted": r"pivot_root\(",
    "masked": r"(mount|move_mount|mount_setattr)\((?!.*MS_(SLAVE|PRIVATE))",  # those behind the last of `mounts`
    "limited": r"prlimit64\(\d+, RLIMIT_NOFILE, \{rlim_cur=1024, rlim_max=1024\}",  # as config.json has it
    "dropped": r"(capset|setuid|setresuid)\(|prctl\(PR_CAPBSET_DROP",
    "filtered": r"seccomp\(SECCOMP_SET_MODE_FILTER|prctl\(PR_SET_SECCOMP",
    "executed": r'execve\("/bin/true"',
}
BY_OTHERS = {"cloned", "limited"}
TRACED = "clone,clone3,unshare,mount,move_mount,mount_setattr,pivot_root,prlimit64,capset,setuid,setresuid,prctl," \
         "seccomp,execve"  # fmt: skip


def calls(name, more=""):
    """[(process, call)] of a runtime and of all its processes while it runs the bundle: those that succeeded."""
    file = bundle / "strace"
    trace = ["strace", "-f", "-qq", "-s", "60", "-e", f"trace={TRACED}{more}", "-e", "signal=none", "-o", file]
    subprocess.run([*trace, name, "run", "traced"], cwd=bundle, check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    begun, found = {}, []
    for line in file.read_text().splitlines():
        process, text = line.split(maxsplit=1)
        if text.endswith("<unfinished ...>"):  # another process came in between: the rest stands further below
            begun[process] = text.removesuffix(" <unfinished ...>")
            continue
        if text.startswith("<..."):
            text = begun.pop(process, "") + text.partition("resumed>")[2]
        if " = -1 " not in text:
            found.append((process, text))
    return found


def sorted_into_steps(lines):
    """{step: [(place in the trace, name of the call, whether the process that becomes the program made it)]}."""
    program = next(process for process, text in lines if re.match(STEPS["executed"], text))
    found = {step: [] for step in STEPS}
    for place, (process, text) in enumerate(lines):
        for step, form in STEPS.items():
            if re.match(form, text) and (process == program or step in BY_OTHERS):
                found[step].append((place, text.partition("(")[0], process == program))
    found["masked"] = [one for one in found["masked"] if one[0] > found["mounted"][-1][0]]
    return found


# %% [markdown]
# In which order do the three take the steps? A step stands where its last call is: then it is done.

# %%
one_thing = mine("one-thing")()
config["process"]["args"] = ["/bin/true"]
linux = {**config["linux"], "cgroupsPath": "/traced", "seccomp": one_thing}
(bundle / "config.json").write_text(json.dumps({**config, "ociVersion": "1.0.2", "hostname": "traced", "linux": linux}))
taken = {name: sorted_into_steps(calls(name)) for name in ("labkit-runtime", "runc", "crun")}
for name, steps in taken.items():
    print(f"{name:<15}", " > ".join(sorted(steps, key=lambda step: steps[step][-1][0])))

# %% [markdown]
# And by which calls? Step by step, the three below each other; what another process did for the container's has a `*`.

# %%
for step in STEPS:
    print(step)
    for name, steps in taken.items():
        print(f"    {name:<15}", ", ".join(sorted({call + ("" if own else "*") for _, call, own in steps[step]})))

# %% [markdown]
# runc takes the steps in this runtime's order, and crun differs in two of them:
#
# - *limited* is crun's first step, and another process's: its maker sets the limits on itself, before it clones, and a
#   process is born with the limits of its maker. runc sets them twice: the process itself, and after the masks its
#   maker once more.
# - *masked* stands before *pivoted*: crun lays the masks over places beneath the folder that is going to be the root,
#   by descriptors. runc and this runtime do it when that folder is `/`.
#
# The kernel allows both. What it does not allow is the same in all three: no mount after the powers are gone, and
# nothing between the filter and the program (the exercise on orders has found that out). Some calls are others: runc
# puts its filter on by `prctl`, an older call for the same; and this runtime masks with `move_mount` and
# `mount_setattr`, newer calls that take descriptors, where the other two use `mount`.
#
# *cloned* has the largest difference: runc calls `unshare`, from another process. It is a Go program, which has several
# threads as soon as it runs, and a program with threads may not make itself a new user namespace, nor enter another's
# mounts. So it executes itself once more, as `runc init`, and that begins with a piece of C, before Go starts. Here is
# that beginning, and how far the C goes:

# %%
lines = calls("runc", ",read")
again = next(place for place, (_, text) in enumerate(lines) if '["runc", "init"]' in text)
family = {process for process, text in lines if text.startswith('prctl(PR_SET_NAME, "runc:[')}
SHOWN = r"execve|prctl\(PR_SET_NAME|unshare|read\(3, |clone3\(.*CLONE_THREAD"
threads = 0
for process, text in lines[again:]:
    if process not in family or not re.match(SHOWN, text):
        continue
    threads += "CLONE_THREAD" in text
    if "CLONE_THREAD" not in text or threads == 1:  # Go starts several, one after the other
        print(re.sub(r" += ", " = ", re.sub(r"0x[0-9a-f]{6,}", "0x...", text))[:100])
    if text.startswith('read(3, "{'):
        break

# %% [markdown]
# Three processes, one after the other, and each gives itself a name: the first reads 32 bytes from descriptor 3, a line
# to its maker (which namespaces, and whether the maker is root); the second makes the namespaces; the third is the
# container's. Only then comes the first thread, with `CLONE_THREAD`: Go has started. It reads the configuration, as
# JSON, from the same line. The runtime here is single-threaded, and needs none of this: one `clone3` does it.
#
# ## 9 · An engine that does not notice (8 minutes, optional)
#
# **Can this stand in runc's place?** containerd is the engine below Docker. It fetches images, keeps layers, and calls
# a runtime: the file system and `config.json` are its work, the container is not. Here is one with folders of its own,
# a child of this notebook that ends with it; the image comes from the lab's registry.

# %%
engine = disk / "engine"
engine.mkdir()
(engine / "config.toml").write_text(
    f"""version = 2
root = "{engine}/root"
state = "{engine}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{engine}/socket"
"""
)
daemon = Child("engine", leaves=True)
serving = daemon.spawn("sh", "-c", f"exec containerd --config {engine}/config.toml > {engine}/log 2>&1")


def ctr(*words):
    """ctr WORDS: what it printed, and its status if that is not 0."""
    done = subprocess.run(["ctr", "--address", engine / "socket", *words], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)  # fmt: skip
    return done.stdout + done.stderr + (f"(status {done.returncode})" if done.returncode else "")


while Path(f"/proc/{serving}").exists() and "Version" not in ctr("version").partition("Server:")[2]:
    time.sleep(0.2)
ctr("image", "pull", "--plain-http", "localhost:5000/busybox:latest")
print(ctr("image", "ls", "-q"), end="")

# %% [markdown]
# A container with the machine's network, that prints its cgroup. With a cgroup namespace that is `/`; without one, the
# place that containerd chose: its namespace of names (`default`), and the container's id.

# %%
RUN = ("run", "--rm", "--net-host")
IMAGE = "localhost:5000/busybox:latest"
print(ctr(*RUN, IMAGE, "by-runc", "cat", "/proc/self/cgroup"), end="")

# %% [markdown]
# And now with this runtime. Between containerd and each container stands a small program, the *shim*: it calls the
# runtime, stays as long as the container lives, and tells containerd how it ended. `--runc-binary` is an option of the
# shim: which program to call.

# %%
OURS = ("--runc-binary", shutil.which("labkit-runtime"))
print(ctr(*RUN, *OURS, IMAGE, "by-ours", "cat", "/proc/self/cgroup"), end="")
print(ctr(*RUN, *OURS, IMAGE, "by-ours", "sh", "-c", "echo I am process $$ of $(hostname); exit 3"))

# %% [markdown]
# The engine gets the number of a process, an exit status and its errors in a log, in a form that it can read: that is
# all it sees of a runtime. podman and dockerd do not notice either, and tests hold that against runc, story by story.
#
# And the bundle? While a container runs, it lies in the engine's folder, and its `config.json` is one like yours.

# %%
ctr("run", "--detach", "--net-host", *OURS, IMAGE, "by-ours", "sleep", "1000")
(bundled,) = (engine / "state").glob("*/default/by-ours/config.json")
written = json.loads(bundled.read_text())
print(bundled.relative_to(engine / "state"))
print("args:        ", *written["process"]["args"])
print("cgroupsPath: ", written["linux"]["cgroupsPath"])
print("namespaces:  ", *(one["type"] for one in written["linux"]["namespaces"]))
print("capabilities:", len(written["process"]["capabilities"]["bounding"]), "in the bounding set, yours has",
      len(config["process"]["capabilities"]["bounding"]))  # fmt: skip
ctr("task", "kill", "--signal", "KILL", "by-ours")
while "STOPPED" not in ctr("task", "ls"):
    time.sleep(0.2)
for what in ("task", "container"):
    ctr(what, "delete", "by-ours")

# %% [markdown]
# `--net-host` is what you did in section 2: no `network` in the list. The fourteen capabilities are those that Docker
# gives too.
#
# An engine goes on for months, and does not tidy up after each container: the cgroup above its containers stays. It is
# removed here.

# %%
daemon.close()
cgroups.remove(cgroups.root() / "default")

# %% [markdown]
# ## What you believed
#
# A `=` marks what you had right, an `!` what you had thought otherwise.

# %%
from labkit.lessons import beliefs

beliefs("10")

# %% [markdown]
# ## Give it back
#
# The folders go. runc, crun and containerd hand every controller down from the top of the tree, and nobody takes it
# back: you do. Then the comparison:

# %%
shutil.rmtree(bundle)
shutil.rmtree(disk)
cgroups.disable(cgroups.root(), set((cgroups.root() / "cgroup.subtree_control").read_text().split()) - handed_down)
left = census.difference(before, census.take()) + os.listdir("/run/labkit-runtime")
print("\n".join(left) or "nothing: the kernel holds what it held before")

# %% [markdown]
# **Next:** 11 puts it all together: your own Docker.
