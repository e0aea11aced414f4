# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (the lab)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Cgroups: a budget
#
# Namespaces narrow what a process *sees*. They do not keep it from eating all memory, filling all processors, or
# forking until nobody else can. For that the kernel has a second mechanism, which knows nothing of the first: *control
# groups*. A group is a folder, a limit is a line in a file, and the kernel does the sums.
#
# That part is easy, and takes ten minutes. The rest of this notebook goes *to the limit*: what happens there, to whom,
# and who is told. That is what you need to know when a service is slow, or ends with status 137.
#
# | part | minutes | |
# |---|---|---|
# | 1 The tree | 7 | core |
# | *exercise* limit | 7 | core |
# | 2 Three files, written three times | 7 | core |
# | *exercise* docker-flags | 8 | optional |
# | *exercise* born-inside | 8 | core |
# | 3 At the limit: memory | 11 | core |
# | *exercise* oom-or-not | 9 | core |
# | 4 At the limit: processor time | 8 | core |
# | 5 Weights | 4 | core |
# | 6 At the limit: processes | 6 | core |
# | *exercise* kill-tree | 8 | core |
# | 7 At the limit: the disk | 5 | optional |
# | 8 Pressure | 5 | core |
# | *exercise* psi-trigger | 9 | optional |
# | 9 Frozen | 3 | optional |
# | 10 Rules of the tree | 5 | core |
# | *exercise* hand-down | 10 | optional |
# | *exercise* delegate | 8 | optional |
# | 11 Meters | 3 | core |
# | 12 What Docker does with it | 2 | core |
#
# The core is what a ninety-minute workshop does. You can leave out any exercise: the button under it, or
# `exercise(NAME).load()`, defines labkit's answer, and all later cells work.
#
# Run the cells in order. The first one counts what the kernel holds now; the last one compares.

# %%
from labkit.observe import census

before = census.take()

# %% [markdown]
# ## 1 · The tree (7 minutes, core)
#
# **Where are the groups?** In a file system of their own, mounted on `/sys/fs/cgroup`. Every folder in it is a cgroup,
# and every process of the machine is in exactly one of them. Here are the upper two levels as they are now. Your
# machine's differ from mine, so the next picture is one of the few that nobody compares:

# %%
import io
from pathlib import Path

from IPython.display import Image

from labkit.draw import cgrouptree
from labkit.observe import cgroups as groups


def as_image(picture):
    """The picture as pixels, for what differs from machine to machine."""
    pixels = io.BytesIO()
    picture.figure().savefig(pixels, format="png")
    return Image(pixels.getvalue())


as_image(cgrouptree.tree(groups.read(), "the machine's cgroups, two levels", depth=2))

# %% [markdown]
# systemd made these: a group for each service, each login, each user. You had cgroups all along. (Most of the processes
# in `/` itself are the kernel's own threads.)
#
# What a group can count and limit depends on its **controllers**. A group has those that its parent *hands on*. This
# notebook needs five:

# %%
tree = Path("/sys/fs/cgroup")
FIVE = ["cpu", "cpuset", "io", "memory", "pids"]
print([name for name in FIVE if name in (tree / "cgroup.controllers").read_text().split()])

# %% [markdown]
# We want a piece of that tree for ourselves, in which nothing can be broken. `Plot` makes it, a cgroup `/lesson-05`
# which hands all five on to its children. It stands in labkit's ledger, so that `labkit reset` finds it even after a
# crash. Everything below it, we make by hand.

# %%
from labkit.lessons.plot import Plot

plot = Plot("lesson-05", FIVE)
here = plot.path

one = here / "one"
one.mkdir()
for file in ("cgroup.procs", "memory.current", "memory.max", "cpu.max", "pids.max"):
    print(f"{file:<16}{(one / file).read_text().strip()}")

# %% [markdown]
# One `mkdir`, and the folder is full of files. `cgroup.procs` lists who is inside: nobody. `memory.current` is what they
# use, and every limit says `max`: none.
#
# Who writes a process's number into `cgroup.procs` moves it there. Its *children* will be born there too. And what
# happens to the memory that it has already?

# %%
from labkit.lessons import predict

predict(
    "memory-moves",
    "A process takes 50 MiB of memory, and is then moved into the empty cgroup `one`. What does one/memory.current say?",
    choices=["about 50 MiB", "nearly nothing"],
    mine=...,
)

# %%
from labkit.lessons import Child, measured

MIB = 1 << 20


def number(file):
    return int(file.read_text())


def take_and_move(group, mib):
    kept = b"x" * (mib * MIB)
    (group / "cgroup.procs").write_text("0")  # 0: whoever writes
    return number(group / "memory.current") / MIB, len(kept)


mover = Child("mover")
used, _ = mover.do(take_and_move, one, 50, stage="mover")
measured("memory-moves", "nearly nothing" if used < 25 else "about 50 MiB")

# %% [markdown]
# Memory is charged to the group in which it is *touched first*, and stays there until it is freed. That is why the order
# matters: first the limits, then the process, best before it does anything at all. The picture names who is inside. (Blue:
# there are processes; orange: it hands controllers on; violet: it is frozen, which comes in section 9; white: none of these.)


# %%
def picture(path="/lesson-05"):
    """A part of the tree, with the names of who is inside."""
    found = groups.read([path])
    names = {}
    for pid in (pid for group in found.values() for pid in group.members):
        names[pid] = Path(f"/proc/{pid}/comm").read_text().strip().removeprefix("labkit:")
    return cgrouptree.tree(found, names=names)


picture()

# %% [markdown]
# ### Exercise: a process with a budget (7 minutes, core)
#
# The three limits that every introduction names: memory, CPU time, number of processes. `cpu.max` holds two numbers:
# microseconds of CPU time, and the period (in microseconds) in which they may be used up.

# %%
# exercise: limit
from pathlib import Path


def limit(parent, name, memory, cpus, pids, pid):
    """Make the cgroup `name` below the cgroup `parent` (a Path), and move the process `pid` into it.

    memory -- bytes, at most
    cpus   -- so much CPU time as this many CPUs have, at most: 0.5, 1, 2.25
    pids   -- processes, at most
    """
    ...


# %%
from labkit.lessons import exercise

exercise("limit").check(limit)

# %% [markdown]
# ## 2 · Three files, written three times (7 minutes, core)
#
# You often read: `docker run --memory 256m --cpus 1` makes the folder `/sys/fs/cgroup/docker/ID` and writes three
# files: `memory.max` 268435456, `cpu.max` 100000 100000, `pids.max` 4096. Let us see. **First by hand**, with your
# function (or labkit's; the line says whose). `%%xray` shows what the cell did to the kernel:

# %%
# %load_ext labkit.lessons

# %%
from labkit.lessons import mine

limit = mine("limit")

# %%
# %%xray
limit(here, "by-hand", 256 * MIB, 1, 4096, mover.pid)

# %% [markdown]
# One folder, three files, and a process that is elsewhere in the tree. (`one` is still there, but x-ray looks at our own
# processes, and nobody of them is in it any more.) No system call is on record: there is none that is special, `open` and
# `write` are all.

# %% [markdown]
# **Then with `labkit run`**, which takes Docker's options:

# %%
from labkit.observe import container as see
from labkit.runtime import launch as containers

options = {"memory": "256m", "cpus": 1, "pids_limit": 4096, "network": "none"}
box = containers.run("localhost:5000/busybox", "sleep", "1000", name="five", replace=True, **options)

# %% [markdown]
# **And with runc**, the runtime that Docker itself uses. It reads what to do from a file, `config.json` (notebook 10 is
# about it). Here is all of it that matters: a root, a command, the limits, and *where the cgroup shall be*.

# %%
import json
import subprocess
import tempfile

work = Path(tempfile.mkdtemp(dir="/var/tmp"))


def bundle(name, where):
    """A folder with an empty root and a config.json for runc, which binds the machine's own programs into it."""
    folder = work / name
    (folder / "root").mkdir(parents=True)
    subprocess.run(["runc", "spec", "--bundle", folder], check=True)
    config = json.loads((folder / "config.json").read_text())
    for link in ("bin", "lib", "lib64"):
        (folder / "root" / link).symlink_to(f"usr/{link}")
    config["mounts"].append({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["bind", "ro"]})
    config["root"] = {"path": "root"}
    config["process"] |= {"terminal": False, "args": ["sleep", "1000"]}
    config["linux"]["cgroupsPath"] = where
    config["linux"]["resources"] |= {
        "memory": {"limit": 256 * MIB},
        "cpu": {"quota": 100_000, "period": 100_000},
        "pids": {"limit": 4096},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def runc(name, where, *driver):
    """Start a container with runc; the pid of its first process."""
    file = work / f"{name}.pid"
    subprocess.run(["runc", "delete", "--force", name], stderr=subprocess.DEVNULL)  # of an earlier run
    words = ["runc", *driver, "run", "--detach", "--bundle", bundle(name, where), "--pid-file", file, name]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return int(file.read_text())


handed = {
    group: (group / "cgroup.subtree_control").read_text().split() for group in (here, tree / "system.slice", tree)
}
by_runc = runc("lesson-05-a", "/lesson-05/by-runc")

# %% [markdown]
# Side by side, as the kernel holds them:

# %%
three = {"by hand": mover.pid, "labkit run": box.pid, "runc": by_runc}
print(f"{'':<18}", *(f"{name:<15}" for name in three))
for file in ("memory.max", "cpu.max", "pids.max", "memory.swap.max", "memory.high", "cpu.weight"):
    row = [see.cgroup_files(see.cgroup(pid), [file]).get(file, "-") for pid in three.values()]
    print(f"{file:<18}", *(f"{value:<15}" for value in row))

# %% [markdown]
# The three files are the same. One is not: `labkit run` follows Docker, where `--memory` alone allows as much *swap* as
# memory; who does not mention swap, as we and our `config.json`, allows all of it.
#
# Now the place. Docker's daemon has a setting, the *cgroup driver*. With `cgroupfs` it makes folders, with `systemd` it
# asks systemd for a unit. runc has the same choice.

# %%
predict(
    "cgroup-path",
    "Two containers of runc, one with each driver. Are their cgroups in the same folder of the tree?",
    choices=["the same folder", "different folders"],
    mine=...,
)

# %%
by_systemd = runc("lesson-05-b", "system.slice:docker:lesson-05-b", "--systemd-cgroup")
places = [see.cgroup(pid) for pid in (by_runc, by_systemd)]
measured("cgroup-path", "the same folder" if places[0].parent == places[1].parent else "different folders")
for name, pid in {**three, "runc, with systemd": by_systemd}.items():
    print(f"{name:<20}{see.cgroup(pid)}")

# %% [markdown]
# With the driver `systemd`, the default on most machines today, the folder is called `system.slice/docker-ID.scope`;
# with `cgroupfs` it is `docker/ID`. So do not guess the path: `/proc/PID/cgroup` tells it for each process.
#
# And `pids.max` 4096, which Docker is said to write? Notebook 00 has measured it: without `--pids-limit`, it holds `max`.
# What follows from it is section 6.
#
# All of it goes. And one thing is set back: on its way down the tree, runc has every group hand on *all* controllers that
# there are. (From the bottom up: a controller that is in use below cannot be taken away.)

# %%
for name in ("lesson-05-a", "lesson-05-b"):
    subprocess.run(["runc", "delete", "--force", name], check=True)
for group, names in handed.items():
    for name in set((group / "cgroup.subtree_control").read_text().split()) - set(names):
        (group / "cgroup.subtree_control").write_text(f"-{name}")
box.remove()
mover.close()
one.rmdir()
(here / "by-hand").rmdir()

# %% [markdown]
# ### Exercise: from options to files (8 minutes, optional)

# %%
# exercise: docker-flags


def files(memory=None, memory_swap=None, cpus=None, pids_limit=None):
    """What Docker writes for these options: {"memory.max": "268435456", ...}. What is not asked for is left out.

    memory, memory_swap -- words like "512k", "256m", "1g"; memory_swap also "-1"; only together with memory
    cpus                -- a number: 0.5
    pids_limit          -- a number
    """
    ...


# %%
exercise("docker-flags").check(files)

# %% [markdown]
# ### Exercise: a program that is born in its cgroup (8 minutes, core)
#
# Start, and then move: in between, the program runs without a limit. There is a call that leaves no such gap. The child
# of a `clone3` can be born in a cgroup of which you hold a descriptor.

# %%
# exercise: born-inside
import os

from labkit.kernel.syscalls import clone3


def start(group, words):
    """Start the program `words` (a list) in the cgroup `group` (its folder); return its pid.

    It is never anywhere else: the cgroup's limits hold for its very birth. The caller stays where it is.
    """
    ...


# %%
exercise("born-inside").check(start)

# %% [markdown]
# ## 3 · At the limit: memory (11 minutes, core)
#
# **What happens to a program that wants more than `memory.max`?** A group with 64 MiB, and two programs. The first one
# writes a *file* of 96 MiB; what was written stays in memory as cache, and that is charged to the group too. The second
# one wants 96 MiB for itself.

# %%
outcomes = ["it goes well", "it is killed", "it gets an error"]
predict("file-96", "A program in a group of 64 MiB writes a file of 96 MiB to the disk.", outcomes, mine=...)
predict("buffer-96", "A program in a group of 64 MiB asks for 96 MiB of memory, and fills them.", outcomes, mine=...)

# %%
start = mine("born-inside")
runner = Child("runner", leaves=True)


def new(name, files=None):
    """A new cgroup below /lesson-05 in which these files have these texts; one of the same name goes first."""
    group = here / name
    if group.exists():
        empty(group)
    group.mkdir()
    for file, text in (files or {}).items():
        (group / file).write_text(text)
    return group


def empty(group):
    """Kill everything in a cgroup and remove it; section 6 says why like this."""
    (group / "cgroup.kill").write_text("1")
    wait_until(lambda: "populated 0" in (group / "cgroup.events").read_text())
    group.rmdir()


def wait_until(question):
    """Ask until the answer is yes, ten seconds at most."""
    for _ in range(1000):
        if question():
            return
        time.sleep(0.01)


def finish(pid):
    """Wait for a child to end; its status, or -N when signal N ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(start, group, words):
    return finish(start(group, words))


import time

with_file = new("with-file", {"memory.max": "64M"})
wish = ["dd", "if=/dev/zero", f"of={work / 'file'}", "bs=1M", "count=96", "status=none"]
status = runner.do(run, start, with_file, wish)
measured("file-96", {0: outcomes[0], -9: outcomes[1]}.get(status, outcomes[2]))

no_swap = {"memory.max": "64M", "memory.swap.max": "0"}  # on a machine with swap, it would land there
with_buffer = new("with-buffer", no_swap)
wish = ["dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1", "status=none"]  # one buffer of 96 MiB
status = runner.do(run, start, with_buffer, wish)
measured("buffer-96", {0: outcomes[0], -9: outcomes[1]}.get(status, outcomes[2]))

# %% [markdown]
# (The kernel understands `64M` too; read back, it is in bytes.) Both programs met the limit. What was different is
# whether there was something to *give up*: cache of a file can be written to the disk and forgotten, the buffer of a
# program cannot. Only when nothing is left to reclaim, somebody dies. The files of the two groups tell it:


# %%
def table(file):
    """A file with a name and a number in each line."""
    return {key: int(value) for key, value in (line.split() for line in file.read_text().splitlines())}


for group in (with_file, with_buffer):
    events, peak = table(group / "memory.events"), number(group / "memory.peak")
    print(f"{group.name}: the limit was met: {events['max'] > 0}, killed: {events['oom_kill']}")
    print(f"  most memory ever: {'never above' if peak <= 64 * MIB else 'above'} the limit,", end=" ")
    print("and within 1 MiB of it" if peak > 63 * MIB else "and well below it")

# %% [markdown]
# **Who is told?** Not the program: signal 9 cannot be handled. Its parent learns from `wait` that signal 9 ended it, and
# nothing of why. A shell makes 128 + 9 of it:

# %%
hungry = "dd if=/dev/zero of=/dev/null bs=96M count=1 2>/dev/null; echo the shell is told: $?"
status = runner.do(run, start, new("shell", no_swap), ["sh", "-c", hungry])

# %% [markdown]
# Why it was killed stands in `memory.events` of its group, and of every group above; `memory.events.local` counts what
# happened for the sake of this very group's limit. And the kernel's log has a line with the name:

# %%
for group in (here / "shell", here):
    for file in ("memory.events", "memory.events.local"):
        print(f"{group.name:<10} {file:<20} oom_kill at least 1: {table(group / file)['oom_kill'] >= 1}")
log = subprocess.run(["dmesg"], capture_output=True, text=True).stdout.splitlines()
found = [line for line in log if "Memory cgroup out of memory" in line]
print("the kernel's log:", found[-1].partition("] ")[2].partition(",")[0].partition(" total")[0] if found else "silent")

# %% [markdown]
# **And who dies, when there are several?** In a group of 128 MiB, a big one holds 100 MiB and sleeps. A small one takes one
# MiB after another.

# %%
predict(
    "who-dies",
    "The small one takes the MiB that is too much. Who is killed?",
    choices=["the small one", "the big one", "both"],
    mine=...,
)

# %%
import signal


def fork_into(group, function, *arguments):
    """A fork of this process, born in the cgroup, calls the function and ends; its pid."""
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    pid = clone3(0, cgroup_fd=folder)
    os.close(folder)
    if pid == 0:
        try:
            function(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def hold(mib):
    kept = [b"x" * MIB for _ in range(mib)]
    signal.pause()
    return kept


def creep(mib):
    kept = []
    for _ in range(mib):
        kept.append(b"x" * MIB)
        time.sleep(0.005)


def contest(group):
    """Who of the two was killed."""
    big = fork_into(group, hold, 100)
    wait_until(lambda: number(group / "memory.current") > 100 * MIB)
    small = fork_into(group, creep, 36)
    dead = ["the small one"] if finish(small) == -9 else []
    for _ in range(50):  # a chance to die too
        if os.waitpid(big, os.WNOHANG)[0]:
            return [*dead, "the big one"]
        time.sleep(0.02)
    return dead


dead = runner.do(contest, new("contest", {**no_swap, "memory.max": "128M"}))
measured("who-dies", "both" if len(dead) == 2 else dead[0])

# %% [markdown]
# The kernel does not ask who took the last page: it chooses the process whose death frees the most. So in a container
# with several processes it may be a worker that dies, while process 1 goes on: no exit, no 137, only requests that fail.
#
# `memory.oom.group` turns that off: all or nobody.

# %%
together = new("together", {**no_swap, "memory.max": "128M", "memory.oom.group": "1"})
print("killed:", *runner.do(contest, together), sep="\n  ")

# %% [markdown]
# (Kubernetes sets this file, Docker does not.)
#
# There is a second limit, `memory.high`. Docker writes `memory.low` for `--memory-reservation` and has no option for
# *high*.

# %%
predict(
    "high",
    "memory.high is 32 MiB, memory.max is not set. A program takes 64 MiB in a hurry; nothing can be reclaimed. It ...",
    choices=["is killed", "gets an error", "goes on, slowly", "does not notice"],
    mine=...,
)


# %%
def curve(name, files, over):
    """Start the program and write down what its group uses, (seconds, MiB), until over(seconds, MiB); how many died."""
    group = new(name, {"memory.swap.max": "0", **files})
    pid = runner.do(fork_into, group, hold, 64, stage="rush")
    begin, points = time.monotonic(), [(0.0, 0.0)]
    while not over(*points[-1]) and points[-1][0] < 20:
        time.sleep(0.02)
        points.append((time.monotonic() - begin, number(group / "memory.current") / MIB))
    died = table(group / "memory.events")["oom_kill"]
    empty(group)
    runner.do(finish, pid)
    return points, died


free, _ = curve("free", {}, lambda seconds, mib: mib >= 64)
needed = free[-1][0]  # seconds, without a limit
high, died = curve("high", {"memory.high": "32M"}, lambda seconds, mib: seconds > 2 * needed + 1)
dead, _ = curve("max", {"memory.max": "32M"}, lambda seconds, mib: seconds > needed and mib < 1)
measured("high", "is killed" if died else "goes on, slowly" if high[-1][1] < 60 else "does not notice")

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
for name, points, style in (
    ("no limit", free, "-"),
    ("memory.high 32 MiB", high, "--"),
    ("memory.max 32 MiB", dead, ":"),
):
    axes.plot(*zip(*points, strict=True), style, label=name, linewidth=2)
axes.set(xlabel="seconds", ylabel="MiB in use", ylim=(0, 72))
axes.legend()
plt.show()
for name, points in (("no limit", free), ("memory.high 32 MiB", high), ("memory.max 32 MiB", dead)):
    print(f"{name:<20}{'went above' if max(mib for _, mib in points) > 40 else 'stayed below'} 40 MiB")

# %% [markdown]
# At `memory.max` the line falls to nothing: the program is dead. At `memory.high` it creeps: whoever is above must pause
# at every step, longer and longer the further it is above. Nobody dies, and whoever watches has time to do something:
# section 8 shows how one is woken for it.

# %%
for name in ("with-file", "with-buffer", "contest", "together", "shell"):
    empty(here / name)

# %% [markdown]
# ### Exercise: out of memory, or not? (9 minutes, core)
#
# Status 137 has three causes: the kernel was out of memory, somebody sent SIGKILL, or the program itself said
# `exit(137)`. Docker shows the first one as `OOMKilled`. How does it know?

# %%
# exercise: oom-or-not
import os
from pathlib import Path


def verdict(group, start):
    """`start()` starts a program in the cgroup `group` (a Path) and returns its pid. Call it, wait, say how it ended:

    "out of memory" -- the kernel killed it for want of memory
    "killed"        -- somebody else sent SIGKILL
    a number        -- the status with which it ended by itself
    """
    ...


# %%
exercise("oom-or-not").check(verdict)

# %% [markdown]
# ## 4 · At the limit: processor time (8 minutes, core)
#
# `cpu.max` with `20000 100000`: 20 ms of CPU time in every 100 ms, a fifth of a processor.

# %%
predict(
    "how-slow",
    "A busy program gets a fifth of a processor. How does it run?",
    choices=["all the time, at a fifth of the speed", "at full speed for a while, then not at all"],
    mine=...,
)


# %%
import itertools


def busy(seconds, file):
    """Use the CPU, and note the moments at which one did not: [from, to] of each stretch in which one ran."""
    begin = last = time.monotonic()
    runs = [[0.0, 0.0]]
    while last - begin < seconds:
        now = time.monotonic()
        if now - last > 0.01:
            runs.append([now - begin, 0.0])
        runs[-1][1], last = now - begin, now
    file.write_text(json.dumps(runs))


def used(group):
    """CPU time so far, in seconds."""
    return table(group / "cpu.stat")["usage_usec"] / 1e6


def measure(group, seconds):
    """The part of a CPU that a busy program in the group gets."""
    before, begin = used(group), time.monotonic()
    finish(fork_into(group, busy, seconds, work / "runs"))
    return (used(group) - before) / (time.monotonic() - begin)


fifth = new("fifth", {"cpu.max": "20000 100000"})
share = runner.do(measure, fifth, 1.5)
runs = json.loads((work / "runs").read_text())
pauses = [after[0] - run[1] for run, after in itertools.pairwise(runs)]
measured(
    "how-slow",
    ["all the time, at a fifth of the speed", "at full speed for a while, then not at all"][max(pauses) > 0.04],
)
print("its share is a fifth, within a tenth of it:", abs(share - 0.2) < 0.02)
print("periods in which it was stopped: at least ten:", table(fifth / "cpu.stat")["nr_throttled"] >= 10)

# %% [markdown]
# The kernel knows no slower processor. The group spends its 20 ms, and then stands still until the period is over:
# *throttled*. `nr_throttled` in `cpu.stat` counts the periods in which that happened.
#
# For a program that computes all day, it is all the same. **What does it do to a service?** Here is one: five times a
# second two requests come in together, and each needs 40 ms of CPU time. That makes 0.4 of a processor. It has 0.5
# (`--cpus 0.5`).

# %%
predict(
    "half-a-core",
    "A service that uses 0.4 of a processor on average, and may use 0.5. Is it ever stopped?",
    choices=["never", "yes"],
    mine=...,
)


# %%
def serve(bursts, file):
    """Two requests every 200 ms, 40 ms of CPU time each; how long each one took, in seconds."""
    took, begin = [], time.monotonic()
    for burst in range(bursts):
        arrival = begin + 0.2 * burst
        time.sleep(max(arrival - time.monotonic(), 0))
        for _ in range(2):
            until = time.thread_time() + 0.04
            while time.thread_time() < until:
                pass
            took.append(time.monotonic() - arrival)
    file.write_text(json.dumps(took))


def served(group):
    finish(fork_into(group, serve, 10, work / "took"))
    return json.loads((work / "took").read_text())


settings = {
    "no limit": {},
    "50 ms in 100 ms": {"cpu.max": "50000 100000"},
    "the same, and a burst of 50 ms": {"cpu.max": "50000 100000", "cpu.max.burst": "50000"},
}
latency, stopped = {}, {}
for name, files in settings.items():
    group = new("service", files)
    latency[name] = runner.do(served, group)
    stopped[name] = table(group / "cpu.stat").get("nr_throttled", 0)
empty(group)
empty(fifth)
measured("half-a-core", "yes" if stopped["50 ms in 100 ms"] else "never")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained", width_ratios=(2, 3))
left.broken_barh([(1000 * a, max(1000 * (b - a), 2)) for a, b in runs if a < 0.5], (0.2, 0.6))
left.set(xlabel="ms", xlim=(0, 500), ylim=(0, 1), yticks=[], title="a fifth of a processor: when it ran")
for (name, took), style in zip(latency.items(), ("-", "--", ":"), strict=True):
    right.plot(range(1, len(took) + 1), [1000 * one for one in sorted(took)], style, label=name, linewidth=2)
right.set(xlabel="requests, the fastest first", ylabel="ms until answered", ylim=(0, None), title="half a processor")
right.legend(fontsize=8)
plt.show()
for name in ("no limit", "50 ms in 100 ms"):
    print(f"{name}: {'stopped' if stopped[name] else 'never stopped'}")

# %% [markdown]
# (Machines differ; this figure is of the one on which the notebook ran.) Two requests at once need 80 ms, and in one
# period there are 50. Where no period ends in between, the second request of a pair waits for the next one, though
# *on average* there is time to spare. The dashed line is what the customers of this service feel. A dashboard that shows
# the mean of a minute shows 40 % use of 50 %, and nothing else.
#
# Ways out: a higher limit; `cpu.max.burst`, which lets a group save up unused time (Docker has no option for it); or no
# limit but a weight.

# %% [markdown]
# ## 5 · Weights (4 minutes, core)
#
# A limit holds even when nobody else wants the processor. A *weight* (`cpu.weight`, 100 unless you say otherwise; Docker:
# `--cpu-shares`) only counts when there is competition. Two busy groups on **one** processor (`cpuset.cpus` nails both to
# it): one with 100, one with 300.

# %%
WEIGHTS = ["half and half", "a third and two thirds", "a quarter and three quarters"]
predict("weights", "Weights 100 and 300, both want all of one processor. Who gets how much?", WEIGHTS, mine=...)

# %%
first_cpu = (tree / "cpuset.cpus.effective").read_text().split("-")[0].split(",")[0].strip()
pair = here / "pair"
pair.mkdir()
(pair / "cpuset.cpus").write_text(first_cpu)
(pair / "cgroup.subtree_control").write_text("+cpu")
for name, weight in {"light": 100, "heavy": 300}.items():
    (pair / name).mkdir()
    (pair / name / "cpu.weight").write_text(str(weight))


def compete(pair, seconds, alone):
    """CPU time of the two groups while both are busy, and of the light one for as long while it is alone."""
    pids = [fork_into(pair / name, busy, 60, Path("/dev/null")) for name in ("light", "heavy")]
    time.sleep(0.2)
    begin = [used(pair / name) for name in ("light", "heavy")]
    time.sleep(seconds)
    both = [used(pair / name) - was for name, was in zip(("light", "heavy"), begin, strict=True)]
    os.kill(pids[1], signal.SIGKILL)
    finish(pids[1])
    before = used(pair / "light")
    time.sleep(alone)
    single = used(pair / "light") - before
    os.kill(pids[0], signal.SIGKILL)
    finish(pids[0])
    return both, single


(light, heavy), single = runner.do(compete, pair, 1.5, 0.7)
part = light / (light + heavy)
measured("weights", WEIGHTS[min(range(3), key=lambda index: abs(part - (1 / 2, 1 / 3, 1 / 4)[index]))])
print("within 15 %:", abs(part - 0.25) < 0.15 * 0.25)
print("alone, the light one gets more than twice as much as before:", single / 0.7 > 2 * light / 1.5)

# %% [markdown]
# 100 of 400 is a quarter. And when the other is gone, the light one takes all of the processor: nothing is wasted.
#
# ## 6 · At the limit: processes (6 minutes, core)
#
# **A fork bomb** is a program that forks, and whose children fork. Without a limit the machine is lost in a second. Here
# is one in a group with `pids.max` 40. (Do not run it outside.)

# %%
FORTY_FIRST = ["the fork fails with an error", "the kernel kills one of them", "the fork waits"]
predict(
    "forty-first", "There are 40 processes in the group, and one of them forks. What happens?", FORTY_FIRST, mine=...
)


# %%
import contextlib


def bomb(file=None):
    """Fork, and let the children do the same; write down the first error."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    while True:
        try:
            os.fork()
        except OSError as error:
            if file:
                with contextlib.suppress(FileExistsError), file.open("x") as once:
                    once.write(error.strerror)


bombed = new("bombed", {"pids.max": "40"})
first = runner.do(fork_into, bombed, bomb, work / "error")
wait_until(lambda: (work / "error").exists() and (work / "error").read_text())
error = (work / "error").read_text() if (work / "error").exists() else ""
killed = number(bombed / "pids.current") < 40  # by itself, none of them ends
measured("forty-first", FORTY_FIRST[0 if error else 1 if killed else 2])
print(error)
print("in the group, at most:", number(bombed / "pids.peak"), "processes")
print("forks refused: at least one:", table(bombed / "pids.events")["max"] >= 1)

# %% [markdown]
# `EAGAIN`, in words *Resource temporarily unavailable*. The bomb goes on trying.
#
# **How do you get rid of such a thing?** Those forty at least stay the same forty. In a worse one, each process forks twice
# and ends, so that every number is new when you read it. Somebody kills all that the list names, one after the other
# (`xargs -n 1 kill -9 <cgroup.procs`), three times.

# %%
predict(
    "three-rounds", "Three times kill -9 for all that cgroup.procs lists. Is anybody left?", ["nobody", "yes"], mine=...
)


# %%
def run_away():
    """Fork twice and end; where a fork fails, try again."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    born = 0
    while born < 2:
        try:
            born = 0 if os.fork() == 0 else born + 1
        except OSError:
            continue


def left_after_three_rounds():
    """Let them run, and kill three times what the list says; who is in the list then."""
    empty(bombed)
    new("bombed", {"pids.max": "40"})
    runner.do(fork_into, bombed, run_away)
    wait_until(lambda: number(bombed / "pids.current") > 20)
    for _ in range(3):
        subprocess.run(["sh", "-c", f"xargs -n 1 kill -9 <{bombed}/cgroup.procs 2>/dev/null"])
    return (bombed / "cgroup.procs").read_text()


# A race, which the list wins now and then: five tries.
measured("three-rounds", "yes" if any(left_after_three_rounds() for _ in range(5)) else "nobody")

# %% [markdown]
# The list was old when it was used. The kernel can do better: it holds the lock that every fork needs. One line into
# `cgroup.kill`:

# %%
_ = (bombed / "cgroup.kill").write_text("1")
wait_until(lambda: "populated 0" in (bombed / "cgroup.events").read_text())
print("left:", (bombed / "cgroup.procs").read_text().split())
bombed.rmdir()

# %% [markdown]
# `populated` in `cgroup.events` says whether anybody is inside, below too; and a group in which nobody is can be removed.
#
# Docker sets no `pids.max` unless `--pids-limit` says so: in a container without it, the bomb has the whole machine.
#
# ### Exercise: end a tree (8 minutes, core)

# %%
# exercise: kill-tree
import time
from pathlib import Path


def end(group):
    """End everything in the cgroup `group` (a Path) and in all cgroups below it, and remove them all.

    What is inside may fork as fast as it can. When this returns, the folder is gone.
    """
    ...


# %%
exercise("kill-tree").check(end)

# %% [markdown]
# ## 7 · At the limit: the disk (5 minutes, optional)
#
# `io.max` limits bytes or operations per second, for each disk. To have a disk to spare, we make one: a file that the
# kernel presents as the block device `/dev/loopN`. Docker's option is `--device-write-bps /dev/loop0:4mb`.

# %%
disk_file = work / "disk"
disk_file.write_bytes(bytes(16 * MIB))
words = ["losetup", "--find", "--show", "--sector-size", "4096", disk_file]
disk = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
held = os.open(disk, os.O_RDONLY)  # or closing it would wait for all that is still to be written
device = os.stat(disk).st_rdev
slow_disk = new("slow-disk")
_ = (slow_disk / "io.max").write_text(f"{os.major(device)}:{os.minor(device)} wbps={4 * MIB}")

# %% [markdown]
# A program writes 8 MiB to a disk that takes 4 MiB a second. It does so twice: past the cache, and as programs usually do.

# %%
HOW_LONG = ["about two seconds", "no time at all"]
predict("direct", "8 MiB, past the cache (O_DIRECT), at 4 MiB a second.", HOW_LONG, mine=...)
predict("cached", "8 MiB as usual, at 4 MiB a second.", HOW_LONG, mine=...)


# %%
def write(disk, flags):
    """Write 8 MiB in pieces of 256 KiB; seconds."""
    import mmap

    piece = mmap.mmap(-1, 256 << 10)  # whole pages, as O_DIRECT wants them
    fd = os.open(disk, os.O_WRONLY | flags)
    begin = time.monotonic()
    for number in range(32):
        os.pwrite(fd, piece, number * (256 << 10))
    took = time.monotonic() - begin
    os.close(fd)
    return took


def timed(group, *arguments):
    """What `write` took in the group."""
    file = work / "took"
    finish(fork_into(group, lambda: file.write_text(str(write(*arguments)))))
    return float(file.read_text())


for question, flags in {"direct": os.O_DIRECT, "cached": 0}.items():
    took = runner.do(timed, slow_disk, disk, flags)
    measured(question, HOW_LONG[took < 1])
    if flags:
        print("two seconds, within 15 %:", abs(took - 2) < 0.3)

# %% [markdown]
# What is written as usual lands in memory. The disk, and with it the limit, come later, when the kernel writes it back:
# you measure `dd` and find the limit without effect, and somebody who calls `fsync` pays for it.

# %%
os.close(held)
empty(slow_disk)
done = subprocess.run(["losetup", "--detach", disk], check=True)

# %% [markdown]
# ## 8 · Pressure (5 minutes, core)
#
# **When is it too little?** How much a group *uses* does not say whether it suffers. *Pressure* does: the part of time
# in which somebody in the group could have worked, and had to wait, for processor, memory or disk. Each group has
# `cpu.pressure`, `memory.pressure` and `io.pressure`; `some avg10=25.00` means: in the last ten seconds, for a quarter of
# the time at least one waited.
#
# Nobody has to read that file again and again. Write a *trigger* into it, and wait with `poll`: "wake me when somebody
# had to wait for half of a second". Here it waits on the group with the two weights, first with one busy program in it,
# then with two. There is one processor.

# %%
predict(
    "one-busy", "One program that is always busy, on one processor. Does the trigger fire?", ["yes", "no"], mine=...
)
predict(
    "two-busy", "Two programs that are always busy, on one processor. Does the trigger fire?", ["yes", "no"], mine=...
)

# %%
import select


def wait_for_pressure(file, stall, window, patience):
    """Whether, within `patience` seconds, somebody had to wait `stall` microseconds of `window`."""
    fd = os.open(file, os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, f"some {stall} {window}".encode())
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    fired = poll.poll(patience * 1000)
    os.close(fd)
    return bool(fired)


for question, names in {"one-busy": ["light"], "two-busy": ["light", "heavy"]}.items():
    for name in names:
        runner.do(fork_into, pair / name, busy, 60, Path("/dev/null"))
    fired = wait_for_pressure(pair / "cpu.pressure", 500_000, 1_000_000, 2.0)
    (pair / "cgroup.kill").write_text("1")
    measured(question, "yes" if fired else "no")

# %% [markdown]
# The processor was full both times. Only the second time, somebody missed it. This is how `systemd-oomd` and Meta's `oomd`
# find out that a service is in trouble *before* the kernel has to kill. Docker itself sets no trigger.
#
# ### Exercise: wake me (9 minutes, optional)

# %%
# exercise: psi-trigger
import os
import select


def wait_for_pressure(file, stall, window, patience):
    """Sleep until tasks in the cgroup had to wait, `stall` microseconds within `window` microseconds.

    file -- one of a cgroup's pressure files; what counts is its line `some`
    Return True then, or False when it did not happen within `patience` seconds.
    """
    ...


# %%
exercise("psi-trigger").check(wait_for_pressure)

# %% [markdown]
# ## 9 · Frozen (3 minutes, optional)
#
# `docker pause` writes 1 into `cgroup.freeze`. Everything inside stops, without a signal that anybody could notice, and
# goes on when a 0 is written.

# %%
predict("kill-frozen", "A frozen process gets SIGKILL. When does it die?", ["at once", "when it is thawed"], mine=...)


# %%
def moves(group):
    """Whether the group uses any CPU time."""
    was = used(group)
    time.sleep(0.2)
    return used(group) > was


def until_frozen(group, number):
    """Freezing takes a moment: cgroup.events says when it is done."""
    wait_until(lambda: f"frozen {number}" in (group / "cgroup.events").read_text())


def dies(pid):
    """Whether a process, killed, is gone within two seconds."""
    os.kill(pid, signal.SIGKILL)
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.02)
    return False


cold = new("cold")
pid = runner.do(fork_into, cold, busy, 60, Path("/dev/null"), stage="busy")
for text, word in {"1": "frozen", "0": "thawed"}.items():
    (cold / "cgroup.freeze").write_text(text)
    until_frozen(cold, text)
    print(f"{word}: it runs: {moves(cold)}")
(cold / "cgroup.freeze").write_text("1")
until_frozen(cold, 1)
picture("/lesson-05/cold")

# %%
measured("kill-frozen", "at once" if runner.do(dies, pid) else "when it is thawed")
empty(cold)

# %% [markdown]
# In version 1 of cgroups it was the other answer, and a paused container could not be killed.

# %% [markdown]
# ## 10 · Rules of the tree (5 minutes, core)
#
# Two rules that everybody runs into. **Controllers come from above**: a group can hand on only what it has been handed.
# Here is a group in a group; nobody hands `memory` to the outer one's children. (labkit's `enable` writes `+memory` into
# `cgroup.subtree_control`, and looks for the reason when the kernel says no.)

# %%
from labkit.errors import LabError
from labkit.kernel import cgroups

outer = here / "outer"
inner = outer / "inner"
inner.mkdir(parents=True)
try:
    cgroups.enable(inner, {"memory"})
except LabError as error:
    print(error)

# %% [markdown]
# Top-down, then. **And a group has processes or hands controllers on, not both.** (Otherwise its own processes would
# compete with its children, and by which rule?)

# %%
sitter = Child("sitter")
sitter.do(os.getpid, stage="sitter")
(outer / "cgroup.procs").write_text(str(sitter.pid))
try:
    cgroups.enable(outer, {"memory"})
except LabError as error:
    print(str(error).replace(f" {sitter.pid} ", " PID "))

# %% [markdown]
# `EBUSY`, says the kernel, and not who. So: move the processes into a child of their own, then hand on. That is what
# systemd does, and what Docker does when you run Docker in Docker.

# %%
(outer / "leaf").mkdir()
(outer / "leaf" / "cgroup.procs").write_text(str(sitter.pid))
cgroups.enable(outer, {"memory"})
cgroups.enable(inner, {"memory"})
picture("/lesson-05/outer")

# %%
sitter.close()
for group in (inner, outer / "leaf", outer):
    group.rmdir()

# %% [markdown]
# ### Exercise: hand it down (10 minutes, optional)

# %%
# exercise: hand-down
from pathlib import Path


def hand_down(top, group, names):
    """Hand the controllers `names` (a list) down from the cgroup `top`, through all between, to the children of `group`.

    `group` lies below `top`, one or several levels. Processes that sit in the way move into a child `leaf` of the
    cgroup in which they sit; those in other cgroups stay where they are.
    """
    ...


# %%
exercise("hand-down").check(hand_down)

# %% [markdown]
# ### Exercise: a piece for somebody else (8 minutes, optional)
#
# Rootless Docker and Podman run as an ordinary user and need groups of their own. Somebody with power gives them a piece
# of the tree: some of the files change their owner. Which ones?

# %%
# exercise: delegate
import os


def delegate(group, uid):
    """Let the user `uid` make cgroups in the cgroup `group` (its folder), move its processes among them and hand on.

    The limits of `group` itself stay out of its reach.
    """
    ...


# %%
exercise("delegate").check(delegate)

# %% [markdown]
# ## 11 · Meters (3 minutes, core)
#
# `docker stats` shows what the files say: `memory.current`, the growth of `usage_usec` in `cpu.stat`, `pids.current`,
# `io.stat`. So does `labkit stats` in a terminal. Here are the meters of a program that takes half a processor and more
# and more memory, live while you run the cell:

# %%
from labkit.draw import meters
from labkit.draw.svg import Canvas
from labkit.lessons import live
from labkit.observe.usage import Follow

over = Canvas(560, 30, "the view has ended")
over.text(12, 20, "The live view has ended. The next cell shows one of its last pictures.")
over = over.picture("the live view has ended\nthe next cell shows one of its last pictures")


def work_on(mib):
    kept = []
    while True:
        if len(kept) < mib:
            kept.append(b"x" * MIB)
        until = time.thread_time() + 0.03
        while time.thread_time() < until:
            pass


working = new("working", {"memory.max": "64M", "cpu.max": "50000 100000"})
pid = runner.do(fork_into, working, work_on, 40)
follow, pictures, ended = Follow(pid, working), [], False


def look():
    if ended:
        return over
    pictures.append(meters.picture("working", follow.look(), cpus=0.5))
    return pictures[-1]


with live.watch(look, rate=4):
    time.sleep(3)
    ended = True

# %%
print("meters:", ", ".join(line.split("  ")[0] for line in pictures[-1].text.splitlines()[2:]))
as_image(pictures[-1])

# %% [markdown]
# On a machine that has time for it, the processor's bar goes to its end and stays there: that is what throttling looks
# like from outside. `docker stats` would say 50 %, and whoever does not know the limit thinks that half of a processor is
# idle.

# %% [markdown]
# ## 12 · What Docker does with it (2 minutes, core)
#
# | `docker run` | the file | what you have seen |
# |---|---|---|
# | `--memory 256m` | `memory.max` | reclaim, then death of the biggest |
# | `--memory-swap` | `memory.swap.max` | what it says, less `--memory` |
# | `--memory-reservation` | `memory.low` | |
# | (none) | `memory.high`, `memory.oom.group`, `cpu.max.burst` | braked; all or nobody; saved up |
# | `--cpus 0.5` | `cpu.max` | full speed, then nothing |
# | `--cpu-shares` | `cpu.weight` | counts only when there is competition |
# | `--cpuset-cpus 0` | `cpuset.cpus` | one processor |
# | `--pids-limit 40` | `pids.max` | fork fails; without the option: `max` |
# | `--device-write-bps` | `io.max` | what is cached comes later |
# | `docker pause` | `cgroup.freeze` | |
# | `docker kill`, `rm -f` | signals, `cgroup.kill` | |
# | `docker stats` | `memory.current`, `cpu.stat`, `pids.current`, `io.stat` | |
#
# ## What you believed
#
# An `!` marks what you had thought otherwise.

# %%
from labkit.lessons import beliefs

beliefs("05")

# %% [markdown]
# ## Give it back
#
# The children end, the plot with everything in it goes, and the folder. Then the comparison:

# %%
import shutil

runner.close()
plot.close()
shutil.rmtree(work)
left = census.difference(before, census.take())
print(left or "nothing: the kernel holds what it held before")

# %% [markdown]
# **Next:** 06 gives the processes a cable.
