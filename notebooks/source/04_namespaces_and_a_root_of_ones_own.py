# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (the lab)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Namespaces and a root of one's own
#
# A container believes that it is alone on the machine: its processes count from 1, its host name is its own, and
# `/` is its image. Nothing of that is simulated. The kernel shows each process the machine through eight
# *namespaces*, and a process may be given others than its neighbours have.
#
# In this notebook you leave each of the eight, one at a time, and write the five tools that a container runtime
# needs: a launcher, a process 1, `nsenter`, user maps, and a root that cannot be left.
#
# | section | minutes | |
# |---|---|---|
# | 1 One process, eight views | 6 | core |
# | exercise: a child with a host name of its own | 5 | core |
# | 2 Where kernel work happens | 3 | core |
# | 3 Leave them, one by one | 8 | core |
# | exercise: a launcher | 8 | core |
# | 4 Number 1 | 9 | core |
# | exercise: process 1 | 12 | optional |
# | 5 A stale /proc | 5 | core |
# | 6 What keeps a namespace alive | 5 | optional |
# | 7 Enter | 4 | core |
# | exercise: nsenter | 8 | core |
# | 8 Root, and yet not | 7 | core |
# | exercise: root, without being root | 8 | optional |
# | 9 Mounts that leak | 5 | core |
# | 10 A root of one's own | 6 | core |
# | exercise: a root of one's own | 12 | core |
# | 11 Furnish it, with an exercise | 10 | optional |
# | 12 All of it | 4 | core |
#
# The core is what a ninety-minute workshop does. You can leave out any exercise: the button under it, or
# `exercise(NAME).load()`, defines labkit's answer, and all later cells work.
#
# Run the cells in order. The first one counts what the kernel holds now; the last one compares.

# %%
from labkit.observe import census

before = census.take()

# %% [markdown]
# ## 1 · One process, eight views (6 minutes, core)
#
# **Where does it say which namespaces a process is in?** In `/proc/PID/ns`: one name for each kind. Behind each
# name is a number, and the same number means the same namespace.
#
# You need somebody to try things on. A `Child` is a small program that this notebook starts and sends functions to:
# it runs them, and what they return, print or raise comes back here. Here are two. (`fence=False` says: exactly as
# they come. Without it, each child gets a mount namespace of its own as a safety net.)

# %%
import os

from labkit.draw import processes
from labkit.lessons import Child
from labkit.observe import snapshot

ben = Child("ben", fence=False)
anna = Child("anna", fence=False)
for one in (ben, anna):
    one.do(os.getpid, stage=one.name)  # `ps` and the picture show a child by the name of its last stage
processes.matrix(snapshot.take(), [ben.pid, anna.pid])

# %% [markdown]
# A column for each kind, and the same letter in a column means the same namespace. Nothing sets the two apart.
#
# Two system calls change that. `unshare` gives the caller a new namespace of the kinds that it names; `sethostname`
# sets the host name of the *uts* namespace (an old word for the names of a Unix machine) in which the caller is.
#
# **Predict** before you run the cell after the next. Put your answer in place of `...`: `mine=1` means the first
# choice. The first answer is sealed.

# %%
from labkit.lessons import predict

predict(
    "who-is-renamed",
    "anna leaves her uts namespace and sets the host name. Who has the new name?",
    choices=["everybody", "anna", "anna and ben"],
    mine=...,
)

# %%
import socket

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call
from labkit.lessons import measured

machine = socket.gethostname()


def rename(name):
    call("unshare", C.CLONE_NEWUTS)
    call("sethostname", name, len(name))


anna.do(rename, "annas-world")
names = {one.name: one.do(socket.gethostname, stage=one.name) for one in (ben, anna)}
names["notebook"] = socket.gethostname()
renamed = [who for who, name in names.items() if name == "annas-world"]
measured("who-is-renamed", "everybody" if len(renamed) == 3 else " and ".join(renamed))

# %% [markdown]
# The picture says the same: one letter has changed, in one row.

# %%
processes.matrix(snapshot.take(), [ben.pid, anna.pid])

# %% [markdown]
# A child keeps a record of the system calls that its functions made. That is all it took:

# %%
for made in anna.calls:
    print(made)

# %% [markdown]
# (`0xb` is eleven, the length of the name.) Each kind has a flag like `CLONE_NEWUTS`; several of them, joined with
# `|`, leave several kinds at once.
#
# Docker does this for every container: the twelve hexadecimal digits that you see in the prompt of `docker run -it`
# are a host name, set in a uts namespace. `--hostname` sets another one; `--uts host` leaves this namespace out.

# %% [markdown]
# ### Exercise: a host name (5 minutes, core)
#
# You have just read the answer. Write it anyway: it shows how exercises work. Write the function in place of `...`,
# run the cell, and then the check. The check does not look at your text. It calls your function in a child with a
# random name, and asks the kernel.

# %%
# exercise: host-name
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def rename(name: str) -> None:
    """Give this process, and no other, the host name `name`."""
    ...


# %%
from labkit.lessons import exercise

exercise("host-name").check(rename)

# %% [markdown]
# ## 2 · Where kernel work happens (3 minutes, core)
#
# **Why a child? Why not call `unshare` in this notebook?** Try:

# %%
import re

from labkit.errors import LabError

try:
    call("unshare", C.CLONE_NEWUTS)
except LabError as refused:
    print(re.sub(r"\d+ threads \(.*?\)", "several threads", str(refused)))

# %% [markdown]
# labkit has refused, and the kernel was never asked. (How many threads there are, and what they are called,
# differs; the cell writes "several".) To the kernel, a namespace belongs to a *thread*. Here is what it would have
# done: a child starts a second thread, which goes past labkit's refusal, straight to the C library.

# %%
import ctypes
import threading


def one_thread_leaves():
    seen = []

    def other():
        ctypes.CDLL(None).unshare(C.CLONE_NEWUTS)
        seen.append(os.readlink("/proc/thread-self/ns/uts"))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    return os.readlink("/proc/self/ns/uts") == seen[0]


print("both threads are in the same uts namespace:", ben.do(one_thread_leaves))

# %% [markdown]
# One process, half in and half out: what it sees depends on which of its threads looks. Other kinds (*user* among
# them) the kernel refuses to a process with threads, with a bare `EINVAL`. So all kernel work in this course is
# done in children that have one thread. `runc` has the same problem, since every Go program has threads: it begins
# with a piece of C that runs before Go does.
#
# ## 3 · Leave them, one by one (8 minutes, core)
#
# **What does each kind keep apart?** For each, the same question twice: inside, after a change was made there, and
# here, while the inside still exists. Read the change, say to yourself what both answers will be, then run the
# cell.

# %%
from labkit.kernel.namespaces import KINDS


def inside_and_here(kind, change, look):
    def there():
        call("unshare", KINDS[kind].flag)
        change()
        return look()

    with Child(kind) as child:
        inside, here = child.do(there), look()
    print(f"{kind}, which isolates {KINDS[kind].isolates}")
    print(f"  inside: {inside}")
    print(f"  here:   {here}")


# %% [markdown]
# **mnt**: a file system in memory is mounted on `/srv`, and a file made on it. (What the first line of the change
# is good for, section 9 shows.)

# %%
from pathlib import Path


def mount_something():
    call("mount", None, "/", None, C.MS_REC | C.MS_PRIVATE, None)
    call("mount", "tmpfs", "/srv", "tmpfs", 0, None)
    Path("/srv/only-inside").touch()


inside_and_here("mnt", mount_something, lambda: Path("/srv/only-inside").exists())

# %% [markdown]
# **ipc**: a message queue, as programs of the nineties use them, is made. The question counts the queues.

# %%
import subprocess


def make_queue():
    subprocess.run(["ipcmk", "--queue"], check=True, stdout=subprocess.DEVNULL)


def queues():
    return len(Path("/proc/sysvipc/msg").read_text().splitlines()) - 1  # the first line is a heading


inside_and_here("ipc", make_queue, queues)

# %% [markdown]
# **net**: a network device called `lesson` is made. A new network namespace is nearly empty: of devices it has
# `lo`. The question asks which of the two there are.

# %%


def make_device():
    subprocess.run(["ip", "link", "add", "name", "lesson", "type", "bridge"], check=True)


def devices():
    return sorted({name for _, name in socket.if_nameindex()} & {"lo", "lesson"})


inside_and_here("net", make_device, devices)

# %% [markdown]
# **time**: the clocks that count from the start of the machine are moved ahead by ten days. Like *pid*, this kind
# is for children: who calls `unshare` stays in the old one, and the next child is born into the new. So a fork
# asks.

# %%
import json


def fork_and_ask(question):
    """What the next child of this process answers."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, json.dumps(question()).encode())
        os._exit(0)
    os.wait()
    return json.loads(os.read(reading, 1000))


def days_up():
    return float(Path("/proc/uptime").read_text().split()[0]) / 86400


def ten_days_ahead():
    call("unshare", C.CLONE_NEWTIME)
    Path("/proc/self/timens_offsets").write_text("boottime 864000 0")
    return fork_and_ask(days_up)


with Child("time") as child:
    inside = child.do(ten_days_ahead)
print("time, which isolates", KINDS["time"].isolates)
print(f"  inside, the machine has run {inside - days_up():.0f} days longer than here")

# %% [markdown]
# The date is the same on both sides: only the clocks that count from the start can be moved. This kind exists so
# that a program that was moved from another machine finds its timers right.
#
# **cgroup**: where a process stands in the tree of control groups (notebook 05) is a path, and paths tell. A child
# moves itself into a new group below the root, `/lesson-04`, and only then leaves its cgroup namespace. The question
# is the path of the child, asked by the child, and asked here.

# %%


def path_in_the_tree(pid):
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line.removeprefix("0::") for line in lines if line.startswith("0::"))


def group(name):
    call("mount", "cgroup2", "/srv", "cgroup2", 0, None)  # seen by this child only
    return Path("/srv", name)


def go_down(name):
    folder = group(name)
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.procs").write_text("0")  # 0: whoever writes
    call("unshare", C.CLONE_NEWCGROUP)
    return path_in_the_tree("self")


def sweep(name):
    try:
        group(name).rmdir()
    except OSError:
        pass  # another notebook's child is in it, or has swept it already


with Child("cgroup") as child:
    print("cgroup, which isolates", KINDS["cgroup"].isolates)
    print("  inside:", child.do(go_down, "lesson-04"))
    print("  here:  ", path_in_the_tree(child.pid))
with Child("sweeper") as child:
    child.do(sweep, "lesson-04")

# %% [markdown]
# The root of the tree, it thinks. Nothing is limited by that; only names are hidden.
#
# When you wonder what a cell really did to the kernel, write `%%xray` in its first line. Here is one that leaves
# two kinds, mounts something and starts a program. Say first what you expect to appear: how many namespaces,
# mounts, processes?

# %%
# %load_ext labkit.lessons

# %%
# %%xray
with_sleep = Child("with-sleep", leaves=True)  # leaves: it is meant to leave programs running
with_sleep.do(call, "unshare", C.CLONE_NEWNS | C.CLONE_NEWPID, stage="leave")
with_sleep.do(call, "mount", "tmpfs", "/srv", "tmpfs", 0, None, stage="mount")
with_sleep.do(call, "mount", None, "/srv", None, C.MS_PRIVATE, None, stage="private")  # section 9
sleeper = with_sleep.spawn("sleep", "1000")

# %% [markdown]
# One of each, and the program has two numbers. On the right are the calls that made it so. labkit's own record
# knows the calls that went through labkit; what `sleep` itself called, only `strace` can tell, and the last line
# says so.
#
# Two kinds are left, *pid* and *user*. They are the most surprising ones, and have sections 4 and 8.
#
# What Docker does with them: `docker run` makes six new ones, all but *user* and *time*. `--uts`, `--ipc`, `--pid`,
# `--net` and `--cgroupns` take `host` (leave it out); `--ipc`, `--pid` and `--net` also take `container:NAME`: join
# the one of another container. Nobody has an option for *mnt*: a container without it would have no root of its
# own.

# %% [markdown]
# ### Exercise: a launcher (8 minutes, core)
#
# `unshare` moves the one who calls it. A launcher wants the opposite: it stays, and its child is born inside. The
# call for that is `clone3(flags)`: a fork, with flags. Write the launcher.

# %%
# exercise: launcher
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call, clone3


def launch(words, flags, name):
    """Start the program `words` (a list) in new namespaces of the kinds in `flags`.

    Its host name is `name`. Return its pid as the caller sees it.
    The caller stays in the namespaces that it is in.
    """
    ...


# %%
exercise("launcher").check(launch)

# %% [markdown]
# ## 4 · Number 1 (9 minutes, core)
#
# **Process numbers.** In a new pid namespace they begin with 1 again. But who is number 1?

# %%
predict(
    "whose-pidns",
    "A process calls unshare(CLONE_NEWPID), and then forks. Who is in the new pid namespace?",
    choices=["the process", "its child", "both"],
    mine=...,
)

# %%


def leave_and_fork():
    number = os.getpid()
    call("unshare", C.CLONE_NEWPID)
    return {"the process": os.getpid() != number, "its child": fork_and_ask(os.getpid) == 1}


adam = Child("adam")
inside = [who for who, is_inside in adam.do(leave_and_fork).items() if is_inside]
measured("whose-pidns", "both" if len(inside) == 2 else inside[0])

# %% [markdown]
# A process keeps its number for life: programs rely on that. So the call only changes where *children* are born,
# and `/proc/PID/ns` has two names for it: `pid`, and `pid_for_children`.
#
# Now a breakage. The child above has answered and ended: number 1 of that namespace is dead. The same process forks
# a second time:

# %%


def fork_again():
    try:
        os.fork()
    except OSError as error:
        return str(error)


print(adam.do(fork_again))
adam.close()

# %% [markdown]
# There is plenty of memory. The message is the kernel's way to say: the namespace in which this child would be born
# has lost its number 1, and nobody can be born there any more. When you meet `Cannot allocate memory` from a fork,
# think of this.
#
# Your launcher (or labkit's; the line says whose) makes a process 1 that stays. The picture shows a box for each
# pid namespace, and both numbers of who is inside. `labkit:launch` is the child that called the launcher:

# %%
import time

from labkit.lessons import mine
from labkit.observe.scope import Tree


def wait_until(question):
    """Ask until the answer is yes, ten seconds at most: a program needs a moment to start."""
    for _ in range(1000):
        if question():
            return
        time.sleep(0.01)


def runs(pid, program):
    return Path(f"/proc/{pid}/comm").read_text().strip() == program


launch = mine("launcher")
maker = Child("maker", leaves=True)
eve = maker.do(launch, ["sleep", "1000"], C.CLONE_NEWPID | C.CLONE_NEWUTS, "eden")
wait_until(lambda: runs(eve, "sleep"))
processes.tree(snapshot.take(Tree(maker.pid)))

# %% [markdown]
# **Number 1 is not like the others.** Four predictions: SIGTERM, the polite request to end, and SIGKILL, which no
# program can refuse; each sent from inside, by number 1 to itself, and from outside, by the machine's root.

# %%
outcomes = ["it ends", "nothing happens"]
predict("term-inside", "Inside, number 1 gets SIGTERM, for which it has no handler.", outcomes, mine=...)
predict("kill-inside", "Inside, number 1 gets SIGKILL.", outcomes, mine=...)
predict("term-outside", "From outside, number 1 gets SIGTERM, for which it has no handler.", outcomes, mine=...)
predict("kill-outside", "From outside, number 1 gets SIGKILL.", outcomes, mine=...)

# %% [markdown]
# From inside: a shell that sends both to itself, and says so if it still can.

# %%
script = "kill -TERM $$ && echo survived TERM; kill -KILL $$ && echo survived KILL"


def said_by(start, *arguments):
    """What a program prints that `start` starts."""
    reading, writing = os.pipe()
    screen = os.dup(1)
    os.dup2(writing, 1)  # the program inherits our standard output
    pid = start(*arguments)
    os.dup2(screen, 1)
    os.close(writing)
    os.waitpid(pid, 0)
    return os.read(reading, 1000).decode()


said = maker.do(said_by, launch, ["sh", "-c", script], C.CLONE_NEWPID | C.CLONE_NEWUTS, "eden")
measured("term-inside", outcomes["survived TERM" in said])
measured("kill-inside", outcomes["survived KILL" in said])

# %% [markdown]
# And from outside, the `sleep` that your launcher started:

# %%
import signal


def state(pid):
    """One letter: S sleeps, Z has ended and waits for its parent to notice."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def after(pid, number):
    os.kill(pid, number)
    for _ in range(20):  # a fair chance to end
        if state(pid) == "Z":
            return "it ends"
        time.sleep(0.05)
    return "nothing happens"


measured("term-outside", after(eve, signal.SIGTERM))
measured("kill-outside", after(eve, signal.SIGKILL))

# %% [markdown]
# The kernel protects number 1, as it protects the machine's own: a signal for which it has installed no handler is
# thrown away. From inside that holds for SIGKILL too. Only SIGKILL and SIGSTOP that come from outside go through.
#
# So signals go in. Do they come out? A number 1 asks whether it may signal the notebook (signal 0 is never sent,
# the kernel only says whether it could be):

# %%


def signal_from_inside(pid):
    def first():
        try:
            os.kill(pid, 0)
        except OSError as error:
            return error.strerror
        return "it could"

    call("unshare", C.CLONE_NEWPID)
    return fork_and_ask(first)


with Child("prisoner") as prisoner:
    print("from inside: ", prisoner.do(signal_from_inside, os.getpid()))

# %% [markdown]
# Who is outside has no number inside, and without a number nothing can be said to it. It is a one-way mirror: from
# here, each process in there has a number.
#
# What this means for Docker: `docker stop` sends SIGTERM and, ten seconds later, SIGKILL. If a container always
# takes ten seconds to stop, its number 1 is a program without a handler for SIGTERM. `docker run --init` puts a
# small process 1 before it. Its second duty: when a process ends, its orphaned children get number 1 as their
# parent, and if that never waits for them, they stay in the table as zombies.
#
# ### Exercise: process 1 (12 minutes, optional)

# %%
# exercise: init
import os
import signal


def be_init(words):
    """Called in process 1 of a new pid namespace: start the program `words` (a list) and stay.

    Pass SIGTERM, SIGINT and SIGHUP on to the program, take in every process that has ended,
    and return when the program ends: its exit status, or 128 + the signal that ended it.
    """
    ...


# %%
exercise("init").check(be_init)

# %% [markdown]
# ## 5 · A stale /proc (5 minutes, core)
#
# **What does `ps` show in a new pid namespace?** `ps` has no system call of its own: it reads `/proc`.

# %%
predict(
    "stale-proc",
    "Number 1 of a new pid namespace, in a new mount namespace too, lists /proc. Whose processes does it find?",
    choices=["its own", "the machine's", "none"],
    mine=...,
)

# %% [markdown]
# **An attack.** Somewhere on the machine runs a program with a password on its command line. Somebody in a pid
# namespace of his own looks for it.

# %%


def passwords():
    """Every command line in /proc that holds a password."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_text().split("\0")
        except OSError:  # it has ended meanwhile
            continue
        found += [word for word in words if word.startswith("password=")]
    return found


def look_from_inside(fresh):
    """Number 1 of new pid and mount namespaces looks around, after it has mounted a fresh /proc or not."""

    def first():
        if fresh:
            call("mount", "proc", "/proc", "proc", C.MS_NOSUID | C.MS_NODEV | C.MS_NOEXEC, None)
        numbers = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return {"processes": len(numbers), "numbers": sorted(numbers)[:3], "passwords": passwords()}

    call("unshare", C.CLONE_NEWPID | C.CLONE_NEWNS)
    call("mount", None, "/", None, C.MS_REC | C.MS_PRIVATE, None)
    return fork_and_ask(first)


victim = Child("victim", leaves=True)
victim.spawn("sh", "-c", "sleep 1000; true", "password=swordfish")

with Child("spy") as spy:
    seen = spy.do(look_from_inside, False)
whose = {0: "none", 1: "its own"}.get(seen["processes"], "the machine's")
measured("stale-proc", whose)
print("stolen:   ", seen["passwords"])

# %% [markdown]
# The mount table was copied, and the `/proc` in it is still the old one. A `/proc` belongs to the pid namespace in
# which it was *mounted*, not to the one who reads it. Worse, for root `/proc/1/root` leads into the machine's
# files.
#
# The cure is to mount a new one, from inside:

# %%
with Child("spy") as spy:
    seen = spy.do(look_from_inside, True)
print("processes:", seen["processes"], "with the numbers", seen["numbers"])
print("stolen:   ", seen["passwords"])
victim.close()

# %% [markdown]
# Every runtime does this for every container. And `docker run --pid=host`, which some monitoring tools ask for,
# takes it back: all command lines of the machine can be read inside.

# %% [markdown]
# ## 6 · What keeps a namespace alive (5 minutes, optional)
#
# **A namespace is made by a process. Does it end with it?**

# %%
predict(
    "keeps-alive",
    "The last process of a uts namespace ends. Somebody still has the file /proc/PID/ns/uts open. The namespace ...",
    choices=["ends", "lives on"],
    mine=...,
)

# %%
with Child("last") as last:
    last.do(call, "unshare", C.CLONE_NEWUTS)
    last.do(call, "sethostname", "still-here", 10)
    held = os.open(f"/proc/{last.pid}/ns/uts", os.O_RDONLY)
# here the child has ended


def visit(path):
    fd = os.open(path, os.O_RDONLY)
    call("setns", fd, C.CLONE_NEWUTS)
    return socket.gethostname()


with Child("visitor") as visitor:
    name = visitor.do(visit, f"/proc/{os.getpid()}/fd/{held}")
os.close(held)
measured("keeps-alive", "lives on" if name == "still-here" else "ends")

# %% [markdown]
# A namespace lives as long as anybody holds it: a process in it, an open descriptor, or a bind mount of its file.
# `ip netns add blue` is no more than that: a network namespace without a process, held by a mount on
# `/run/netns/blue`. Docker keeps those of its containers under `/run/docker/netns`.
#
# A pid namespace can be held this way too, and it is of no use: you have seen in section 4 that nobody can be born
# in it once its number 1 has ended.

# %% [markdown]
# ## 7 · Enter (4 minutes, core)
#
# `setns`, in the cell above, goes into a namespace that exists. **Is that all that `docker exec` needs?** Nearly.
# It takes a descriptor: of one namespace, or of a whole process (a *pidfd*), and then several kinds in one call.
# The tool for the command line is `nsenter`.
#
# ### Exercise: nsenter (8 minutes, core)

# %%
# exercise: enter
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def enter(pid, words):
    """Run the program `words` (a list) in the mount, uts, ipc, net, pid and cgroup namespaces of the process `pid`.

    Return the pid of the program as the caller sees it. Do not wait for it. The caller may move.
    """
    ...


# %%
exercise("enter").check(enter)

# %% [markdown]
# Now use it on something real: an nginx in a container. Where there is no registry (the course can be run on a
# machine without the lab), a process in namespaces of its own takes nginx's place.

# %%
import secrets

from labkit.runtime import launch as containers

place = Child("place", leaves=True)
box = None
try:
    box = containers.run("localhost:5000/nginx", name="web-04", replace=True, network="none")
    target = box.pid
except LabError:
    six = C.CLONE_NEWNS | C.CLONE_NEWUTS | C.CLONE_NEWIPC | C.CLONE_NEWNET | C.CLONE_NEWPID | C.CLONE_NEWCGROUP
    target = place.do(launch, ["sleep", "1000"], six, f"a1{secrets.token_hex(5)}")
    wait_until(lambda: runs(target, "sleep"))
print(f"its process 1 is process {target} here")

# %% [markdown]
# The host name, as a program reads it that you send in:

# %%
enter = mine("enter")
with Child("guest") as guest:
    inside = guest.do(said_by, enter, target, ["cat", "/proc/sys/kernel/hostname"]).strip()
print("inside:", inside)
print("the same as here:", inside == machine)

# %% [markdown]
# And seen from outside, a program that you sent in is in the same namespaces as its host:

# %%
from labkit.kernel.namespaces import inode

guest = Child("guest", leaves=True)
sent = guest.do(enter, target, ["sleep", "1000"])
print(f"process {sent} is in these namespaces of process {target}:")
print(" ", *(kind for kind in KINDS if inode(kind, sent) == inode(kind, target)))

# %% [markdown]
# All eight: six were entered, and *user* and *time* are the machine's for both.
#
# `docker exec` does what your function does, and then takes on the container's cgroup, capabilities and seccomp
# filter too. Your `enter` did not: a program that is sent in with `nsenter` has all the powers of the machine's
# root, and the container's limits do not hold for it. Good for debugging, bad for anything else.

# %%
guest.close()
if box:
    box.remove()
place.close()

# %% [markdown]
# ## 8 · Root, and yet not (7 minutes, core)
#
# **Root inside, nobody outside?** A user namespace gives numbers another meaning. Its two tables,
# `/proc/PID/uid_map` and `gid_map`, have lines of three numbers: the first number inside, the first number outside,
# how many.

# %%
predict(
    "file-owner",
    "In a user namespace, number 0 is the machine's user 100000. Root inside makes a file. Who owns it, seen from here?",
    choices=["root", "user 100000", "nobody"],
    mine=...,
)

# %%
import tempfile

work = Path(tempfile.mkdtemp())
work.chmod(0o777)
rootless = Child("rootless")
rootless.do(call, "unshare", C.CLONE_NEWUSER)
print("no map yet:   it is user", rootless.do(os.geteuid))

for table in ("uid_map", "gid_map"):
    Path(f"/proc/{rootless.pid}/{table}").write_text("0 100000 65536")


def be_number_0():
    os.setgid(0)
    os.setuid(0)


rootless.do(be_number_0)
print("with the map: it is user", rootless.do(os.geteuid))
rootless.do(Path.touch, work / "made-inside")
owner = (work / "made-inside").stat().st_uid
measured("file-owner", {0: "root", 65534: "nobody"}.get(owner, f"user {owner}"))

# %% [markdown]
# 65534 is what the kernel says for "a number that has no name here". On disk there is only one set of numbers, and
# the file carries the machine's.
#
# And what is this root allowed to do? It is asked for its capabilities, and then renames the machine:

# %%
from labkit.kernel import capabilities


def count_powers():
    return len(capabilities.names(capabilities.held("self")["CapEff"]))


def try_to_rename():
    try:
        call("sethostname", "mine-now", 8)
    except OSError as error:
        return error.strerror
    return "done"


everything = int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1
print("it has all capabilities:", rootless.do(count_powers) == everything)
print("the machine's host name:", rootless.do(try_to_rename))
rootless.do(call, "unshare", C.CLONE_NEWUTS)
print("a host name of its own: ", rootless.do(try_to_rename))
rootless.close()

# %% [markdown]
# Both answers come from the same root with the same powers. **Every namespace belongs to a user namespace**: the
# one its maker was in. A capability counts for what belongs to the own user namespace (or to one below), and for
# nothing else. The machine's uts namespace belongs to the machine's user namespace; the new one is its own.
#
# This is why *user* is the one kind that ordinary users may make, and why rootless Docker and Podman work: first a
# user namespace, and in it all the others. Docker, installed as usual, does without: root in the container is the
# machine's user 0, with fewer powers. `dockerd --userns-remap` changes that.
#
# ### Exercise: root, without being root (8 minutes, optional)
#
# Here the maps were written by the machine's root. An ordinary user writes its own, under stricter rules: one
# number, its own, and only after giving something up. The hints know what.

# %%
# exercise: id-maps
import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def become_root():
    """Called by an ordinary user: go into a new user namespace and be user 0 and group 0 there."""
    ...


# %%
exercise("id-maps").check(become_root)

# %% [markdown]
# ## 9 · Mounts that leak (5 minutes, core)
#
# A new mount namespace is a copy of the old one's table. **Is a copy private?** Not if the original is *shared*:
# then the two mounts are peers, and what is mounted below one appears below the other. systemd makes every mount of
# a machine shared, so that a USB stick that is plugged in appears in running services too.
#
# **An attack**, or rather an accident. A child plays the machine (so that yours stays clean): `/srv` is a shared
# mount there. It starts a process in a new mount namespace, which mounts something on `/srv/data`.

# %%
from labkit.draw import mounttree
from labkit.observe import mountinfo


def play_machine():
    call("mount", "tmpfs", "/srv", "tmpfs", 0, None)
    call("mount", None, "/srv", None, C.MS_SHARED, None)
    os.mkdir("/srv/data")


def start(private):
    """A process in a new mount namespace that mounts something and stays; its pid."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        call("unshare", C.CLONE_NEWNS)
        if private:
            call("mount", None, "/", None, C.MS_REC | C.MS_PRIVATE, None)
        call("mount", "tmpfs", "/srv/data", "tmpfs", 0, None)
        os.write(writing, b".")
        signal.pause()
    os.read(reading, 1)
    return pid


def below_srv(pid):
    return [mount for mount in mountinfo.read(pid) if mount.place.startswith("/srv")]


host = Child("host", leaves=True)
host.do(play_machine)
careless = host.do(start, False)
mounttree.tree(below_srv(careless), "what the process sees")

# %%
mounttree.tree(below_srv(host.pid), "what the machine sees")

# %% [markdown]
# `/srv/data` was mounted inside, and there it is on the machine. `shared:` names the group of peers: both sides
# have the same numbers. And it stays when the process has ended:

# %%
os.kill(careless, signal.SIGKILL)
wait_until(lambda: state(careless) == "Z")
print([mount.place for mount in below_srv(host.pid)])

# %% [markdown]
# A runtime that forgets this leaves a mount on the machine for every container that it has ever started.
#
# The same with one line more, which makes every mount of the copy private first:

# %%
second_host = Child("second host", leaves=True)
second_host.do(play_machine)
careful = second_host.do(start, True)
mounttree.tree(below_srv(second_host.pid), "what the machine sees")

# %%
mounttree.tree(below_srv(careful), "what the process sees")

# %%
host.close()
second_host.close()

# %% [markdown]
# This is why the first call in section 3 was there. The command `unshare --mount` makes everything private without
# being asked; the system call does not. `runc` chooses *slave* for the root (what the machine mounts comes in,
# nothing goes out), Docker private for volumes; `--mount ...,bind-propagation=shared` is how to ask for a leak.

# %% [markdown]
# ## 10 · A root of one's own (6 minutes, core)
#
# **The oldest way to get another root is `chroot`, of 1979. Does it hold?** A folder becomes somebody's `/`; beside
# it lies a file that must not be read.

# %%
root = work / "root"
root.mkdir(exist_ok=True)
secret = work / "secret.txt"
secret.write_text("the machine's secret")


def go_in(folder):
    os.chroot(folder)
    os.chdir("/")


def read(path):
    try:
        return Path(path).read_text()
    except OSError as error:
        return error.strerror


prisoner = Child("prisoner")
prisoner.do(go_in, str(root))
print("reads the secret:", prisoner.do(read, str(secret)))

# %% [markdown]
# **The attack.** `chroot` changes one thing: where a path that begins with `/` starts. The working folder stays. So
# the prisoner, if it is root, makes a second prison deeper down, and stays out of it. The only wall that `..` stops
# at is its own root, and that is now below.

# %%


def escape():
    os.makedirs("/deeper", exist_ok=True)
    os.chroot("/deeper")  # the working folder is now outside the root
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")


prisoner.do(escape)
print("reads the secret:", prisoner.do(read, str(secret)))
prisoner.close()

# %% [markdown]
# Free. What would stop it? A machine in which there is nothing above: a mount namespace whose *root mount itself*
# is the folder, and in which the old root is not mounted any more. The call is `pivot_root`: it swaps the two, and
# then the old one can be unmounted.
#
# It is a call with many conditions and, for nearly all of them, one error. labkit's own `pivot` looks at the
# machine before it speaks:

# %%
from labkit.kernel import mounts


def pivot_too_early(folder):
    call("unshare", C.CLONE_NEWNS)
    mounts.propagate("/", "rshared")  # as on a machine with systemd
    mounts.mount(folder, folder, None, ["bind"])
    mounts.pivot(folder)


with Child("hasty") as hasty:
    try:
        hasty.do(pivot_too_early, str(root))
    except LabError as error:
        print(str(error).replace(str(work), "WORK"))

# %% [markdown]
# ### Exercise: a root of one's own (12 minutes, core)

# %%
# exercise: own-root
import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def pivot(folder):
    """Go into a new mount namespace whose only root is `folder`; nothing of the old root can be reached from it.

    The working folder is its /. No mount made on the way is to be seen outside.
    """
    ...


# %%
exercise("own-root").check(pivot)

# %% [markdown]
# The same prisoner, the same attack, the new prison:

# %%
pivot = mine("own-root")
prisoner = Child("prisoner")
prisoner.do(call, "mount", "tmpfs", str(root), "tmpfs", 0, None)  # in memory, so that nothing stays in the folder
prisoner.do(pivot, str(root))
prisoner.do(escape)
print("reads the secret:", prisoner.do(read, str(secret)))
mounttree.tree(mountinfo.read(prisoner.pid), "all mounts of the prisoner's namespace")

# %%
prisoner.close()

# %% [markdown]
# It climbed 64 steps and is where it was: above this `/` there is nothing. One mount, and the machine is not among
# them. This is how every runtime makes a container's root. Docker's is an overlay of the image's layers (notebook
# 03) where here is a plain folder.
#
# ## 11 · Furnish it (10 minutes, optional)
#
# An empty root is no place to live: programs expect `/dev/null`. And some files in `/proc` show or change the
# machine. Runtimes bind six devices, hide a list of paths and make others read-only. `docker run --privileged`
# leaves all of that out.

# %%
# exercise: furnish
import os
import stat

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def furnish(root, masked, frozen):
    """Before the pivot: make a small /dev in `root`, hide the paths `masked`, make the paths `frozen` read-only.

    /dev is a tmpfs with the devices null, zero, full, random, urandom and tty. A masked file reads as
    empty, a masked folder shows no file. `masked` and `frozen` are lists of paths that begin with `root`.
    """
    ...


# %%
exercise("furnish").check(furnish)

# %% [markdown]
# ## 12 · All of it (4 minutes, core)
#
# **Is that a container?** Put together what you wrote (or labkit's, where you went on): new namespaces, a host
# name, a furnished root with the machine's own `/usr` in it, read-only, a fresh `/proc`, the pivot, and a process
# 1.

# %%
from labkit.kernel.syscalls import clone3

furnish, be_init = mine("furnish"), mine("init")
SIX = C.CLONE_NEWNS | C.CLONE_NEWUTS | C.CLONE_NEWIPC | C.CLONE_NEWPID | C.CLONE_NEWNET | C.CLONE_NEWCGROUP


def contain(furnish, pivot, be_init, root, name, words):
    """Start a program in a container; its pid."""
    pid = clone3(SIX)
    if pid:
        return pid
    try:
        call("prctl", C.PR_SET_NAME, name, 0, 0, 0)  # for `ps` and the picture
        call("sethostname", name, len(name))
        call("mount", None, "/", None, C.MS_REC | C.MS_PRIVATE, None)
        call("mount", "/usr", f"{root}/usr", None, C.MS_BIND | C.MS_REC, None)
        call("mount", "proc", f"{root}/proc", "proc", 0, None)
        furnish(root, [], [f"{root}/usr"])
        pivot(root)
        os._exit(be_init(words))
    finally:
        os._exit(127)


for name in ("usr", "proc", "dev"):
    (root / name).mkdir(exist_ok=True)
for name in ("bin", "lib", "lib64", "sbin"):
    if Path("/", name).is_symlink() and not (root / name).is_symlink():
        (root / name).symlink_to(f"usr/{name}")

# %%
questions = f"""
echo "host name: $(hostname)"
echo "processes:" /proc/[0-9]*
[ -e {secret} ] && echo "the secret is there" || echo "the secret is not there"
touch /usr/mine 2>&1
exit 7
"""


def run(furnish, pivot, be_init, root, name, words):
    pid = contain(furnish, pivot, be_init, root, name, words)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


with Child("runtime") as runtime:
    status = runtime.do(run, furnish, pivot, be_init, str(root), "by-hand", ["sh", "-c", questions])
print("status:", status)

# %% [markdown]
# Two processes: `be_init` with the number 1, and the shell that it started. The shell's status, 7, came out through
# both of them.
#
# And the picture: this container's process 1, and above it the child that made it and has left nothing.

# %%
runtime = Child("runtime", fence=False, leaves=True)
made = runtime.do(contain, furnish, pivot, be_init, str(root), "by-hand", ["sleep", "1000"])
wait_until(lambda: Path(f"/proc/{made}/task/{made}/children").read_text())  # process 1 has started the sleep
processes.matrix(snapshot.take(Tree(runtime.pid)), [runtime.pid, made])

# %% [markdown]
# Six of eight are its own: the same row that notebook 00 showed for `docker run nginx`.
#
# | what you wrote | in Docker |
# |---|---|
# | `launch` | `runc create`: clone with the namespaces of `config.json` |
# | `be_init` | `docker run --init` |
# | `enter` | `docker exec`, `--net container:NAME` |
# | `become_root` | rootless Docker, `--userns-remap` |
# | `pivot` | the root of every container |
# | `furnish` | `/dev`, masked and read-only paths; left out by `--privileged` |
#
# What is missing: limits (notebook 05), a cable (06), volumes (07), and taking root's powers away (08).
#
# ## What you believed
#
# A `=` marks what you had right, an `!` what you had thought otherwise.

# %%
from labkit.lessons import beliefs

beliefs("04")

# %% [markdown]
# ## Give it back
#
# The children that appear in pictures were kept until now. (The kernel hands the numbers of dead namespaces out
# again; you might have met the same number twice, for different things.) Closing a child ends all that it started,
# and a namespace that nobody holds is gone. Then the folder, and the comparison (what another notebook has running
# at this moment would be counted too):

# %%
import shutil

for one in (anna, ben, with_sleep, maker, runtime):
    one.close()
shutil.rmtree(work, ignore_errors=True)
left = census.difference(before, census.take())
print("\n".join(left) or "nothing: the kernel holds what it held before")

# %% [markdown]
# **Next:** 05 gives the processes a budget.
