# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (the lab)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · Copy-on-write layers
#
# A hundred containers of one image start in a moment and take almost no disk. Each of them may write wherever it likes,
# and none sees what another one wrote. How is that done, and what does it cost?
#
# The answer is one file system, *overlayfs*. In this notebook you stack folders with it, watch where every write lands,
# and build the two commands that Docker puts on top of it: `docker diff`, which becomes a layer, and `docker commit`.
#
# | part | minutes | |
# |---|---|---|
# | 1 A stack of folders | 8 | core |
# | *exercise* mount-stack | 12 | core |
# | 2 Where does it land? | 10 | core |
# | 3 Deleted, and still there | 6 | core |
# | 4 Copying up: what a write costs | 8 | core |
# | 5 Is it the same file? | 8 | optional |
# | 6 Moving a folder | 6 | optional |
# | 7 The work folder, and what the kernel refuses | 8 | core |
# | 8 Waiting for the disk | 6 | optional |
# | 9 Where Docker keeps it | 8 | core |
# | *exercise* layer-diff | 18 | core |
# | *exercise* layer-commit | 15 | optional |
# | 10 Attack: the deleted secret | 8 | core |
# | 11 A Dockerfile does the same | 5 | optional |
# | 12 What Docker does with it | 4 | core |
#
# The core is the ninety-minute route. Run the optional cells all the same; they take seconds. An exercise that you skip is
# filled in with labkit's answer, and says so.

# %% [markdown]
# ## 1 A stack of folders
#
# *8 minutes, core.* Kernel work happens in a **stage child**: a program of its own with one thread and with its own mount
# namespace (notebook 04 explains that word). `stage.do(f)` runs the function `f` there; what it prints appears here. All mounts
# below exist in that child only, and end with it. It begins with an empty file system in memory on `/mnt`:

# %%
import os
import shutil
from pathlib import Path

from labkit.kernel import mounts
from labkit.lessons import Child, beliefs, exercise, measured, mine, predict
from labkit.observe import census

before = census.take()
stage = Child("layers")
stage.do(mounts.mount, "tmpfs", "/mnt", "tmpfs")

# %% [markdown]
# Two folders with a few files, as two layers of an image would be: a system, and an application that somebody put on top. Both
# have a file `srv/page`.


# %%
def layer(name, files):
    for path, text in files.items():
        place = Path("/mnt", name, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


system = {"etc/motd": "welcome\n", "etc/hosts": "127.0.0.1 localhost\n", "srv/page": "of the system\n"}
app = {"srv/page": "of the application\n", "srv/notes/one": "1\n", "srv/notes/two": "2\n"}
stage.do(layer, "system", system)
stage.do(layer, "app", app)

# %% [markdown]
# Now the stack. One call to `mount` names the lower folders, **the top one first**, a folder `upper` that takes every write, and
# a folder `work` that section 7 is about. The three settings at the end are the kernel's usual ones; a distribution may have
# changed them, so they are said aloud. (`attempt` makes the call, and explains its failure if it fails.)

# %%
from labkit.kernel.attempts import attempt

USUAL = "index=off,metacopy=off,redirect_dir=off"


def folders(name):
    """New folders upper, work and merged below /mnt/NAME; of an earlier run of the cell, nothing stays."""
    here = Path("/mnt", name)
    if mounts.is_mounted(here / "merged"):
        mounts.unmount(here / "merged")
    shutil.rmtree(here, ignore_errors=True)
    for part in ("upper", "work", "merged"):
        (here / part).mkdir(parents=True)
    return here


def mount_stack(name, lower, settings=USUAL):
    """Stack the folders `lower` (the bottom first) on /mnt/NAME/merged."""
    here = folders(name)
    top_first = ":".join(f"/mnt/{folder}" for folder in reversed(lower))
    options = f"lowerdir={top_first},upperdir={here}/upper,workdir={here}/work,{settings}"
    attempt(f"cannot mount the stack {name}", "mount", "overlay", f"{here}/merged", "overlay", 0, options)


stage.do(mount_stack, "one", ["system", "app"])

# %% [markdown]
# **Predict** before you run on: put your answer in place of `...` in the next cell, as its number (`mine=1`) or in words, and run
# it. The first answer is sealed; the cell after it measures. Without an answer everything runs on all the same.

# %%
PAGES = ["of the system", "of the application", "both, one after the other"]
predict("which-page", "Both layers have srv/page. What does the stack show?", choices=PAGES, mine=...)

# %%
measured("which-page", stage.do(Path.read_text, Path("/mnt/one/merged/srv/page")).strip())

# %% [markdown]
# The layer on top wins, name by name. Folders of the same name are merged, files are not. The picture is drawn from the
# real folders: each layer, what it holds, and which of it can be seen from above.

# %%
from labkit.draw import overlay
from labkit.observe import stack as on_disk


def picture(name, lower):
    layers = [f"/mnt/{folder}" for folder in lower]
    return overlay.origins(stage.do(on_disk.read, layers, f"/mnt/{name}/upper", lower))


picture("one", ["system", "app"])

# %% [markdown]
# There is no copy of anything: `merged` is a view. The layers lie on disk once, however many stacks they are in.
#
# ### Exercise: mount-stack
#
# *12 minutes, core.* `mount(2)` takes all options as one string of at most one page. Since Linux 5.2 there is another way, in
# four small steps that can be watched one by one; since 6.5 it takes the layers one by one. Write it.
#
# `call(name, ...)` makes the system call of that name, with its arguments in the order of its manual page, and raises `OSError` when
# the kernel refuses. The hints say what each step wants.
#
# Your function runs in a child, on folders that the check makes; one of them has a colon in its name.

# %%
# exercise: mount-stack
import os

from labkit.kernel import constants as C
from labkit.kernel.syscalls import call


def stack(target, lower, upper, work):
    """Mount an overlay on the folder `target`, with the new mount interface.

    lower -- the folders of the layers, the bottom first, as an image lists them
    upper -- the folder that takes every write
    work  -- an empty folder on the same file system as `upper`

    call("fsopen", "overlay", C.FSOPEN_CLOEXEC) is the first step. Close every descriptor that you open.
    """
    ...


# %%
exercise("mount-stack").check(stack)

# %% [markdown]
# From here on the notebook uses your function, or labkit's as long as yours is not right. A second stack of the same two layers:

# %%
stack = mine("mount-stack")


def second():
    stack("/mnt/two/merged", ["/mnt/system", "/mnt/app"], "/mnt/two/upper", "/mnt/two/work")
    Path("/mnt/two/merged/srv/page").write_text("changed in two\n")
    print("two:", Path("/mnt/two/merged/srv/page").read_text(), end="")
    print("one:", Path("/mnt/one/merged/srv/page").read_text(), end="")


stage.do(folders, "two")
stage.do(second)
print("calls:", " ".join(one.name for one in stage.stages[-1].calls))

# %% [markdown]
# (The last line is the child's record of its system calls: the four steps, and `fsconfig` once for each setting.)
#
# That is the whole secret of a hundred containers: the same lower folders a hundred times, and each time another upper one.
#
# **What Docker does:** `docker run` makes an empty upper folder and mounts just such a stack; `docker rm` deletes the upper
# folder. What you lose with a container is that folder.

# %% [markdown]
# ## 2 Where does it land?
#
# *10 minutes, core.* Predict for each of the following what appears in the upper folder: reading a file, appending to one, making
# a new one, deleting one, renaming one, deleting a folder and making it again.

# %%
ACTIONS = ["reading", "appending", "making", "deleting", "renaming"]
predict("nothing-lands", "Which of these leaves the upper folder as it is?", choices=ACTIONS, mine=...)


# %% [markdown]
# The next cell does them in this order and prints what is new in `upper` after each, and what kind of thing it is:


# %%
def upper_of(name):
    return {file.path: file for file in on_disk.read([], f"/mnt/{name}/upper").layers[0].files}


def landed(words, action, name="one"):
    old = upper_of(name)
    action()
    new = [file for path, file in upper_of(name).items() if old.get(path) != file]
    print(words)
    for file in new:
        print(f"    {file.kind:<9}{file.path}{'  (opaque)' if file.opaque else ''}")
    return not new


def changes():
    mount_stack("one", ["system", "app"])
    root = Path("/mnt/one/merged")
    idle = [
        landed("reading etc/motd", (root / "etc/motd").read_text),
        landed("appending to srv/page", lambda: (root / "srv/page").open("a").write("more\n")),
        landed("making etc/new", lambda: (root / "etc/new").write_text("new\n")),
        landed("deleting etc/motd", (root / "etc/motd").unlink),
        landed("renaming etc/hosts", lambda: (root / "etc/hosts").rename(root / "etc/names")),
    ]
    landed("deleting the folder srv/notes", lambda: shutil.rmtree(root / "srv/notes"))
    landed("making srv/notes again", (root / "srv/notes").mkdir)
    return [word for word, nothing in zip(ACTIONS, idle, strict=True) if nothing]


idle = ", ".join(stage.do(changes))
print()
measured("nothing-lands", idle)

# %% [markdown]
# Besides the folders on the way, three kinds of things land in the upper folder, and no others:
#
# - **whole files**: what was made, and what was changed. Appending one line to `srv/page` put all of it there.
# - **whiteouts**: a mark that says "what lies below under this name is gone". Renaming is a copy and a whiteout.
# - **opaque folders**: a folder that was deleted and made again must not show what the old one had. One mark on the folder
#   says so, instead of a whiteout for each file.
#
# Nothing was written to the two lower folders. The same stack, drawn again:

# %%
picture("one", ["system", "app"])

# %% [markdown]
# What are these marks, on disk? Ask for the whiteout and for the opaque folder in the upper folder:


# %%
def marks():
    import stat

    about = os.lstat("/mnt/one/upper/etc/motd")
    kind = "character device" if stat.S_ISCHR(about.st_mode) else "something else"
    print(f"etc/motd   {kind} {os.major(about.st_rdev)}:{os.minor(about.st_rdev)}")
    print("srv/notes ", "trusted.overlay.opaque =", os.getxattr("/mnt/one/upper/srv/notes", "trusted.overlay.opaque"))


stage.do(marks)

# %% [markdown]
# A device 0:0 belongs to no driver; overlayfs uses it as its sign for "nothing". The other mark is an extended
# attribute, whose names under `trusted.` are for root alone.
#
# **What Docker does:** `docker diff CONTAINER` lists what changed as A, C and D: added, changed, deleted. It reads them off such
# marks: a whiteout is a D.

# %% [markdown]
# ## 3 Deleted, and still there
#
# *6 minutes, core.* Somebody's image has a layer with a file of 8 MiB. In a container, you delete it.

# %%
FREED = ["8192 KiB are free again", "nothing is free again"]
predict("freed", "You delete an 8 MiB file of a lower layer. What does the disk say?", choices=FREED, mine=...)


# %%
def free():
    there = os.statvfs("/mnt")
    return there.f_bfree * there.f_bsize // 1024  # KiB


def delete_big():
    os.makedirs("/mnt/data", exist_ok=True)
    Path("/mnt/data/big").write_bytes(b"x" * (8 << 20))
    mount_stack("three", ["system", "data"])
    start = free()
    os.unlink("/mnt/three/merged/big")
    print("seen in the stack: ", os.path.exists("/mnt/three/merged/big"))
    print("bytes in the layer:", os.path.getsize("/mnt/data/big"))
    return free() - start


gained = stage.do(delete_big)
measured("freed", f"{gained} KiB are free again" if gained > 0 else "nothing is free again")

# %% [markdown]
# It cannot be otherwise: another container may stand on the same layer. In a stack, deleting *adds* something.
#
# For images this means: a Dockerfile that puts a large file into one layer and removes it in the next is as large as if it had
# kept it. Section 10 looks at what that means for a secret.

# %% [markdown]
# ## 4 Copying up: what a write costs
#
# *8 minutes, core.* A file of a lower layer is changed for the first time: overlayfs copies it to the upper folder first. That is
# *copy-up*. When exactly, and how much?

# %%
COPIED = ["0 KiB", "4 KiB", "8192 KiB"]
asked = "A program opens an 8 MiB file of a lower layer for writing, writes nothing, and closes it. How much is copied?"
predict("open-copies", asked, choices=COPIED, mine=...)

# %%
predict("chmod-copies", "And if it only changes the file's mode (chmod)?", choices=COPIED, mine=...)


# %% [markdown]
# Five stacks of one lower folder, one action in each, and then what the copy in the upper folder takes on disk:


# %%
def open_and_close(path):
    os.close(os.open(path, os.O_WRONLY))


def append(path):
    with open(path, "ab") as file:
        file.write(b"!")


def truncate(path):
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))


def cost(words, action, settings=USUAL):
    name = words.replace(" ", "-")
    mount_stack(name, ["data"], settings)
    action(f"/mnt/{name}/merged/big")
    copy = Path(f"/mnt/{name}/upper/big")
    kib = copy.stat().st_blocks * 512 // 1024 if copy.exists() else 0
    print(f"{words:<28}{kib:>5} KiB")
    return f"{kib} KiB"


def read_all(path):
    with open(path, "rb") as file:
        file.read()


print("what was done                copied")
opened = stage.do(cost, "open for writing", open_and_close)
stage.do(cost, "append one byte", append)
stage.do(cost, "open and make it empty", truncate)
changed = stage.do(cost, "change the mode", lambda path: os.chmod(path, 0o600))
stage.do(cost, "read all of it", read_all)
print()
measured("open-copies", opened)
print()
measured("chmod-copies", changed)

# %% [markdown]
# The copy is made at `open`, before a single byte is written: overlayfs cannot know what will follow. The whole file goes up,
# whatever the program wants of it (one byte more takes one page more, 4 KiB); only one who throws the old content away
# (`O_TRUNC`) pays nothing. Reading is free.
#
# `chmod` and `chown` pay as if they wrote. An image that runs `chown -R` over its files in a later layer has all of them
# twice.
#
# With the setting `metacopy=on`, the kernel copies owner and mode alone, and the bytes stay below until somebody writes (it wants
# `redirect_dir=on` with it; section 6 is about that one):


# %%
def only_the_mode(path):
    os.chmod(path, 0o600)


stage.do(cost, "mode with metacopy", only_the_mode, "index=off,metacopy=on,redirect_dir=on")
seen = stage.do(upper_of, "mode-with-metacopy")["big"]
print("size of the copy:", seen.size, "bytes; metadata only:", seen.metadata_only)

# %% [markdown]
# The copy says that it has 8 MiB and takes none. Such an upper folder is half a file: without the layer below it is worth
# nothing. That is why Docker leaves this setting alone: a layer must be whole by itself.

# %% [markdown]
# ## 5 Is it the same file?
#
# *8 minutes, optional.* A file that is copied up becomes another file on disk. Programs notice this in three ways. First, hard
# links: one file with two names.

# %%
predict(
    "hard-link",
    "a and b are two names of one file below. You append to a. Does b show it?",
    choices=["yes", "no"],
    mine=...,
)


# %%
def links(name, settings=USUAL):
    root = Path(f"/mnt/{name}/merged")
    os.makedirs("/mnt/twins", exist_ok=True)
    if not os.path.exists("/mnt/twins/a"):
        Path("/mnt/twins/a").write_text("first\n")
        os.link("/mnt/twins/a", "/mnt/twins/b")
    mount_stack(name, ["twins"], settings)
    before = os.path.samefile(root / "a", root / "b")
    with (root / "a").open("a") as file:
        file.write("second\n")
    print(f"one file before: {before}, after: {os.path.samefile(root / 'a', root / 'b')}")
    return "yes" if "second" in (root / "b").read_text() else "no"


measured("hard-link", stage.do(links, "links"))

# %% [markdown]
# The link is broken: `a` is a new file in the upper folder, `b` is still the old one below. With `index=on` the kernel keeps a
# list of what was copied from where, and both names go up together:

# %%
print("b shows it:", stage.do(links, "links-index", "index=on,metacopy=off,redirect_dir=off"))
print("work holds:", *sorted(stage.do(os.listdir, "/mnt/links-index/work")))

# %% [markdown]
# Docker mounts with `index=off`. So in containers, hard links do break like this.
#
# Second, inode numbers. Does a file keep its number when it is copied up?


# %%
def numbers():
    mount_stack("numbers", ["data"])
    path = "/mnt/numbers/merged/big"
    old = os.stat(path)
    open_and_close(path)
    new, copy = os.stat(path), os.stat("/mnt/numbers/upper/big")
    print("the stack shows the same number as before:", new.st_ino == old.st_ino)
    print("the number of the copy in the upper folder:", "the same" if copy.st_ino == new.st_ino else "another one")
    print("how the stack knows:", [name for name in os.listxattr("/mnt/numbers/upper/big") if "origin" in name])


stage.do(numbers)

# %% [markdown]
# The number stays, although the file is another one: the copy remembers in an attribute which file it comes from, so that
# programs which remember files by number, such as `tar`, are not confused. (This holds where all layers are on one file
# system, as here.)
#
# Third, a program that has the old file mapped into its memory:

# %%
OLD_NEW = ["the old bytes", "the new bytes"]
predict(
    "mapped",
    "A program has mapped the lower file; another one writes to it. What does the first one see?",
    OLD_NEW,
    mine=...,
)


# %%
def mapped():
    import mmap

    os.makedirs("/mnt/book", exist_ok=True)
    Path("/mnt/book/page").write_text("old text")
    mount_stack("mapped", ["book"])
    path = "/mnt/mapped/merged/page"
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ) as memory:
        with open(path, "r+b") as other:
            other.write(b"new")
        print("read(): ", os.pread(file.fileno(), 8, 0).decode())
        print("memory: ", memory[:].decode())
        return "the old bytes" if memory[:3] == b"old" else "the new bytes"


measured("mapped", stage.do(mapped))

# %% [markdown]
# `read` on the descriptor that was opened before finds the new file; memory that was mapped before stays with the old one. A
# database whose files come with the image, opened by two programs, can meet this; files that live in a volume
# (notebook 07) cannot, since a volume is no overlay.

# %% [markdown]
# ## 6 Moving a folder
#
# *6 minutes, optional.* Renaming a file of a lower layer was a copy and a whiteout. And a folder, with everything in it?

# %%
MOVES = ["it works at once", "EXDEV: another file system", "EPERM: not allowed"]
predict(
    "move-folder", "os.rename of a folder that comes from a lower layer: what does the kernel say?", MOVES, mine=...
)


# %%
def move(name, settings=USUAL):
    import errno

    mount_stack(name, ["system", "app"], settings)
    try:
        os.rename(f"/mnt/{name}/merged/srv", f"/mnt/{name}/merged/www")
    except OSError as error:
        return errno.errorcode[error.errno]
    return "it works at once"


said = stage.do(move, "moved")
measured("move-folder", next(one for one in MOVES if one.startswith(said)))

# %% [markdown]
# EXDEV is what `rename` says between two file systems. Programs know it: `mv` then copies everything and deletes the old. In a
# container `mv` of a folder out of the image is therefore a copy of all that is in it:


# %%
def by_mv():
    import subprocess

    move("moved")  # fails, as above
    subprocess.run(["mv", "/mnt/moved/merged/srv", "/mnt/moved/merged/www"], check=True)
    for file in upper_of("moved").values():
        print(f"{file.kind:<9}{file.path}")


stage.do(by_mv)

# %% [markdown]
# With `redirect_dir=on` the kernel moves the folder's name alone, and notes where the rest lies:


# %%
def by_redirect():
    print(move("redirect", "index=off,metacopy=off,redirect_dir=on"))
    for file in upper_of("redirect").values():
        note = f"  its content: {file.redirect}, in the layers below" if file.redirect else ""
        print(f"{file.kind:<9}{file.path}{note}")


stage.do(by_redirect)

# %%
picture("redirect", ["system", "app"])

# %% [markdown]
# Quick, but again an upper folder that is not whole by itself. Where a kernel has this setting on by default, Docker notices: it
# does not read the upper folder then, but compares the whole trees to find out what changed.

# %% [markdown]
# ## 7 The work folder, and what the kernel refuses
#
# *8 minutes, core.* What is the folder `work` for? A file that is copied up must appear whole or not at all, even if the
# machine loses power. So the copy is made in `work` and then renamed to its place, and renaming works within one file system
# only. What happens if `work` is elsewhere? Another file system in memory, and `work` on it:


# %%
def elsewhere():
    folders("wrong")
    os.makedirs("/mnt/other", exist_ok=True)
    mounts.mount("tmpfs", "/mnt/other", "tmpfs")
    os.makedirs("/mnt/other/work")
    options = "lowerdir=/mnt/system,upperdir=/mnt/wrong/upper,workdir=/mnt/other/work"
    attempt("cannot mount the stack", "mount", "overlay", "/mnt/wrong/merged", "overlay", 0, options)


from labkit.errors import LabError

try:
    stage.do(elsewhere)
except LabError as error:
    print(error)

# %% [markdown]
# `mount` itself answers with a bare `EINVAL`, "invalid argument", which can mean a dozen things. What is printed after it has
# two sources: the line that the kernel wrote into its log at that moment, and labkit, which compared the folders.
#
# What does `work` hold? Delete three files in a new stack, and look:


# %%
def work():
    mount_stack("work", ["system"])
    for name in ("etc/motd", "etc/hosts", "srv/page"):
        os.unlink(f"/mnt/work/merged/{name}")
    kept = [os.lstat(path) for path in Path("/mnt/work/work/work").iterdir()]
    marks = [os.lstat(f"/mnt/work/upper/{path}") for path, file in upper_of("work").items() if file.kind == "whiteout"]
    print("things in work:                  ", len(kept))
    print("whiteouts in upper:              ", len(marks))
    print("all of them are one inode:       ", all(os.path.samestat(kept[0], mark) for mark in marks))
    print("names of that inode:             ", kept[0].st_nlink)


stage.do(work)

# %% [markdown]
# The work folder keeps one whiteout ready, and each deletion gives it one more name: a hard link. A million deleted files cost a
# million names and one inode.
#
# **A mistake that the kernel does not refuse** is the order of the layers. Images list the bottom first, `mount` wants the
# top first:


# %%
def upside_down():
    mount_stack("upside-down", ["app", "system"])
    print(Path("/mnt/upside-down/merged/srv/page").read_text(), end="")


stage.do(upside_down)

# %% [markdown]
# No error, and the wrong page. The kernel stacks folders; it knows nothing of images.

# %% [markdown]
# ## 8 Waiting for the disk
#
# *6 minutes, optional.* In memory, copying 8 MiB is nothing. On a disk there is one question more: when `open` returns, do the copied
# bytes lie on the disk, or still in memory, to be written at some time? The kernel can be asked how many pages of a file wait
# to be written (`cachestat`, Linux 6.5).

# %%
WAITS = ["all of them wait in memory", "none waits: all are on the disk"]
predict("dirty", "Right after a copy-up: the pages of the copy?", choices=WAITS, mine=...)

# %%
import ctypes

from labkit.kernel.syscalls import call
from labkit.lessons import scratch

disk = scratch("notebook-03")  # a folder on the machine's disk, for as long as the notebook runs


def waiting(path):
    """(pages of the file in memory, those of them that wait to be written)."""
    everything, answer = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    with open(path, "rb") as file:
        call("cachestat", file.fileno(), everything, answer, 0)
    return answer[0], answer[1]


def on_the_disk(name, settings=USUAL, size=8 << 20):
    """Mount a stack on the disk; the lower layer has a file `big`."""
    here = folders(f"{disk}/{name}")
    (here / "lower").mkdir()
    (here / "lower/big").write_bytes(b"x" * size)
    options = f"lowerdir={here}/lower,upperdir={here}/upper,workdir={here}/work,{settings}"
    attempt("cannot mount the stack", "mount", "overlay", f"{here}/merged", "overlay", 0, options)
    return here


def dirty(name, settings=USUAL):
    here = on_the_disk(name, settings)
    open_and_close(here / "merged/big")
    pages, wait = waiting(here / "upper/big")
    return WAITS[0] if wait == pages else WAITS[1] if wait == 0 else f"{wait} of {pages} wait"


measured("dirty", stage.do(dirty, "usual"))

# %% [markdown]
# The kernel calls `fsync` on the copy before it gives it its place, so that the whole-or-nothing promise holds after a power
# cut. Whoever opens a large file of an image for writing waits for the disk to take all of it.
#
# A build that can be started anew needs no such promise. The setting `volatile` drops every wait, even that of a program which
# calls `fsync` itself:


# %%
def with_fsync(name):
    here = Path(disk, name)
    with open(here / "merged/new", "wb") as file:
        file.write(b"x" * (64 << 10))
        file.flush()
        os.fsync(file.fileno())
    pages, wait = waiting(here / "upper/new")
    print(f"{name:<9}after fsync, {wait} of {pages} pages wait")


print("volatile, copy-up:", stage.do(dirty, "volatile", USUAL + ",volatile"))
stage.do(with_fsync, "usual")
stage.do(with_fsync, "volatile")
print("left in work:", stage.do(os.listdir, f"{disk}/volatile/work/work"))

# %% [markdown]
# The folder `incompat` is a warning sign: after a crash nobody could know whether this upper folder is whole. So the kernel
# refuses to mount it a second time, even after an orderly end:


# %%
def again():
    here = f"{disk}/volatile"
    if mounts.is_mounted(f"{here}/merged"):
        mounts.unmount(f"{here}/merged")
    options = f"lowerdir={here}/lower,upperdir={here}/upper,workdir={here}/work"
    attempt("cannot mount it again", "mount", "overlay", f"{here}/merged", "overlay", 0, options)


try:
    stage.do(again)
except LabError as error:
    print(error)

# %% [markdown]
# How long does the wait take? That depends on the disk, so here is a figure of *this* machine. On the left: opening a lower file
# for writing, by its size. On the right: twenty times writing 4 KiB and calling `fsync`, in a plain folder and in two stacks. Each
# is measured three times, and the shortest counts: the others were disturbed.


# %%
def opening(name, settings, size):
    import time

    here = on_the_disk(name, settings, size)
    os.sync()
    start = time.perf_counter()
    open_and_close(here / "merged/big")
    return (time.perf_counter() - start) * 1000  # milliseconds


def syncing(folder):
    import time

    os.sync()
    with open(Path(folder, "log"), "wb", buffering=0) as file:
        start = time.perf_counter()
        for _ in range(20):
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
        return (time.perf_counter() - start) * 1000


def shortest(function, *arguments):
    return min(stage.do(function, *arguments) for _ in range(3))


sizes, kinds = [1, 2, 4, 8], {"usual": USUAL, "volatile": USUAL + ",volatile"}
opens = {kind: [shortest(opening, f"{kind}-{size}", kinds[kind], size << 20) for size in sizes] for kind in kinds}
places = {"plain folder": disk, **{f"{kind} stack": f"{disk}/{kind}-1/merged" for kind in kinds}}
syncs = {words: shortest(syncing, folder) for words, folder in places.items()}

# %%
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
left.plot(sizes, opens["usual"], "o-", color="#a85f00", label="usual: waits for the disk")
left.plot(sizes, opens["volatile"], "s--", color="#0b5e9e", label="volatile")
left.set(title="opening for writing", xlabel="size of the file in MiB", ylabel="milliseconds", ylim=(0, None))
left.legend(frameon=False)
right.bar(list(syncs), list(syncs.values()), color=["#6b7885", "#a85f00", "#0b5e9e"])
right.set(title="20 writes, each with fsync", ylabel="milliseconds")
plt.show()

# %%
print("the one with the shortest wait for fsync:", min(syncs, key=syncs.get))

# %% [markdown]
# In the usual stack `fsync` goes straight to the file in the upper folder, and so costs about what it costs without a stack.


# %%
def leave_the_disk():
    for place in Path(disk).glob("*/merged"):
        if mounts.is_mounted(place):
            mounts.unmount(place)


stage.do(leave_the_disk)
shutil.rmtree(disk)

# %% [markdown]
# **What Docker does:** its containers get the usual mount, with the wait.

# %% [markdown]
# ## 9 Where Docker keeps it
#
# *8 minutes, core.* With its classic store, Docker keeps layers under `/var/lib/docker/overlay2`, one folder each, and in it:
#
# | name | what it is |
# |---|---|
# | `diff` | the layer itself: a lower folder, or a container's upper one |
# | `work`, `merged` | as here; the lowest layer has none |
# | `link` | a file with a short name for this layer, 26 characters |
# | `lower` | a file with the short names of all layers below, the top one first |
# | `../l/SHORT` | a symbolic link of that short name to `diff` |
#
# Why the second set of names? `mount(2)` takes one page of options, 4096 bytes here. Count how many layers fit, and then try it: folders with
# the long names, and links with short ones, mounted from within the folder, as Docker does.

# %%
LONG, SHORT = "/mnt/docker/overlay2/{0:064x}/diff", "l/{0:026X}"


def fits(pattern, count):
    """Does a stack of so many lower folders mount with mount(2)?"""
    layers = ":".join(pattern.format(number) for number in range(count))
    try:
        call("mount", "overlay", "/mnt/docker/merged", "overlay", 0, f"lowerdir={layers}")
    except OSError:
        return False
    mounts.unmount("/mnt/docker/merged")
    return True


def try_names():
    shutil.rmtree("/mnt/docker", ignore_errors=True)
    os.makedirs("/mnt/docker/overlay2/l")
    os.makedirs("/mnt/docker/merged")
    for number in range(150):
        os.makedirs(LONG.format(number))
        os.symlink(f"../{number:064x}/diff", f"/mnt/docker/overlay2/{SHORT.format(number)}")
    os.chdir("/mnt/docker/overlay2")
    for words, pattern in (("full paths", LONG), ("short links", SHORT)):
        each = len(pattern.format(0)) + 1  # a colon
        room = count = os.sysconf("SC_PAGE_SIZE") // each
        while not fits(pattern, count):
            count -= 1
        print(f"{words:<12}{each:>3} bytes a layer, room for {room:>3}, mounted {count:>3}")
    os.chdir("/")


stage.do(try_names)

# %% [markdown]
# (The word `lowerdir=` takes a few bytes too.) With full paths, an image of fifty layers could not start. With the links there is
# room for Docker's own limit of 128, and for other options. The new mount interface, which your exercise uses, takes the
# layers one by one, so a page is no limit. How far does it go?


# %%
def many(count):
    here = folders("many")
    lower = [f"/mnt/many/{number:064x}" for number in range(count)]
    for one in lower:
        os.mkdir(one)
    try:
        stack(f"{here}/merged", lower, f"{here}/upper", f"{here}/work")
    except OSError as error:
        return os.strerror(error.errno)
    return "mounted"


print("500 layers:", stage.do(many, 500))
print("501 layers:", stage.do(many, 501))

# %% [markdown]
# 500 is a number in the kernel's source.
#
# You may have read that the folders of `overlay2` are called after their layers' digests. They look like it, 64 hexadecimal digits, but
# Docker draws them at random when it unpacks a layer; another file, under `image/overlay2/layerdb`, says which belongs to which.
# labkit does name its folders by a hash. Section 10 checks whether that is the layer's digest.
#
# containerd, which newer installations of Docker use for images too, has the same stack under other names: numbered
# folders, `snapshots/1/fs`, `snapshots/2/fs` and so on, each of them a layer or a container's upper folder.
#
# No names of folders are needed to see a stack, though. The kernel shows it for each process, in `/proc/PID/mountinfo`. For the
# stack that your function mounted (the lower folders are turned round here, the bottom first, as an image lists them):

# %%
from labkit.observe import mountinfo

mount = next(one for one in mountinfo.read(stage.pid) if one.place == "/mnt/two/merged")
shown = mountinfo.layers(mount)
print("file system:", mount.kind)
print("lower:", *shown.lower)
print("upper:", shown.upper)
print("work: ", shown.work)

# %% [markdown]
# In a real container it is the line whose place is `/`. So from the machine you can always find a container's upper folder by
# its process number, and read what it wrote, even if the container has no shell.

# %% [markdown]
# ## Exercise: layer-diff
#
# *18 minutes, core.* An upper folder is what a container changed. A layer of an image is what a build step changed. The difference is
# the form: a layer travels, so it is a tar archive, and devices 0:0 and attributes for root are no good for travelling. The OCI image
# specification says instead:
#
# | in the upper folder | in the layer |
# |---|---|
# | a device 0:0 called `NAME` | an empty file `.wh.NAME` |
# | a folder with the opaque attribute | the folder, and in it an empty file `.wh..wh..opq` |
# | anything else | itself |

# %%
# exercise: layer-diff
import os
import stat
import tarfile


def diff(upper, layer):
    """Write what an upper folder holds as a plain tar archive, a layer, to the path `layer`.

    Names are relative to `upper`; a folder stands before what is in it, names are sorted.
    Each entry has the file's mode, uid, gid and time (whole seconds), and its bytes, or where it points.
    A second name of the same file is a hard link to the first.
    A whiteout NAME becomes an empty file .wh.NAME beside its place; an opaque folder holds an
    empty file .wh..wh..opq.
    The same folder makes the same bytes, today and tomorrow.
    """
    ...


# %%
exercise("layer-diff").check(diff)

# %% [markdown]
# The stack of section 2, as a layer:

# %%
diff = mine("layer-diff")


def as_layer():
    import tarfile

    diff("/mnt/one/upper", "/mnt/one/layer.tar")
    with tarfile.open("/mnt/one/layer.tar") as layer:
        for entry in layer:
            print(f"{'folder' if entry.isdir() else 'file':<8}{entry.size:>3} bytes  {entry.name}")


stage.do(as_layer)

# %% [markdown]
# Compare it with the picture in section 2. Where that has a whiteout, this has a name that begins with `.wh.`.
#
# What of the upper folders that are not whole by themselves, of sections 4 and 6? labkit's own `diff` looks out for them:

# %%
import io

from labkit.image.diff import diff as careful

try:
    stage.do(lambda: careful(Path("/mnt/redirect/upper"), io.BytesIO()))
except LabError as error:
    print(error)

# %% [markdown]
# ## Exercise: layer-commit
#
# *15 minutes, optional.* `docker commit` makes an image of a container. The layer you have; now the documents around it (notebook 02):
# the *manifest* names a *configuration* and the layers. Each is a blob, stored under the hash of its bytes. So nothing is ever
# changed: a new image is a new layer, a new configuration, a new manifest, and a line in `index.json`.
#
# Each layer has two hashes. The manifest has that of the compressed bytes, which travel; the configuration has that of the plain
# tar, the *diff_id*.

# %%
# exercise: layer-commit
import gzip
import hashlib
import json
import os


def commit(layout, base, layer, name):
    """Make the image `name` in the OCI image layout `layout`: the image `base` and one layer on top.

    layer -- path of a plain tar archive; it is stored compressed with gzip, as
             application/vnd.oci.image.layer.v1.tar+gzip
    name  -- goes into index.json as the annotation org.opencontainers.image.ref.name

    `base` stays what it is. The new configuration keeps all that the old one says, and has one
    more diff_id and one more entry in its history.
    """
    ...


# %%
exercise("layer-commit").check(commit)

# %%
commit = mine("layer-commit")

# %% [markdown]
# ## 10 Attack: the deleted secret
#
# *8 minutes, core.* With your three functions, a Dockerfile can be played by hand. Each step is a stack on the layers so far; what it leaves
# in its upper folder becomes the next layer. The steps:
#
#     FROM base
#     COPY key /root/key                  # needed to fetch the sources
#     RUN fetch-with /root/key > /srv/sources
#     RUN rm /root/key                    # clean up
#
# First a store, in the child's memory, with one small image in it:

# %%
from labkit.image import kit, tarball
from labkit.image.layers import layer_folders
from labkit.image.store import Store


def base_image():
    os.environ["LABKIT_DATA"] = "/mnt/labkit"  # where labkit keeps images and unpacked layers
    shutil.rmtree("/mnt/labkit", ignore_errors=True)
    files = [tarball.folder("root", 0o700), tarball.folder("srv"), tarball.file("etc/motd", "welcome\n")]
    kit.layout(Store().folder, "localhost/app:base", [("base", files)], {"Cmd": ["sh"]}, 1_700_000_000)


stage.do(base_image)

# %% [markdown]
# One step is: stack the image's layers, act, unmount, `diff`, `commit`. Two small functions, with yours inside:


# %%
def stacked(image):
    """A new stack on the layers of an image; its folder."""
    here = folders("step")
    lower = [str(folder) for folder in layer_folders(Store().find(image))]
    stack(f"{here}/merged", lower, f"{here}/upper", f"{here}/work")
    return here


def step(base, name, action):
    """One step of a build: the image `name` is `base` and what the action changed."""
    here = stacked(base)
    action(here / "merged")
    mounts.unmount(here / "merged")
    diff(f"{here}/upper", f"{here}/layer.tar")
    commit(str(Store().folder), base, f"{here}/layer.tar", name)


# %% [markdown]
# And the build. The key is random, so nobody can know it beforehand:

# %%
import secrets
import tarfile

key = secrets.token_hex(16)


def build(key):
    step("localhost/app:base", "localhost/app:1", lambda root: (root / "root/key").write_text(key))
    step("localhost/app:1", "localhost/app:2", lambda root: (root / "srv/sources").write_text("int main..."))
    step("localhost/app:2", "localhost/app:3", lambda root: (root / "root/key").unlink())


def container(image):
    """What a container of the image sees."""
    merged = stacked(image) / "merged"
    print(*sorted(str(path.relative_to(merged)) for path in merged.rglob("*")), sep="\n")


stage.do(build, key)
stage.do(container, "localhost/app:3")

# %% [markdown]
# No key to be seen. You publish `app:3`.

# %%
predict("secret", "Somebody who has only the published image: can they read the key?", choices=["yes", "no"], mine=...)


# %%
def attack(name):
    """Look for a key in every layer of an image, each for itself."""
    for number, layer in enumerate(Store().find(name).manifest.layers, 1):
        with tarfile.open(Store().path(layer.digest)) as archive:
            print(f"layer {number}:", *archive.getnames())
            for entry in archive:
                if entry.name.endswith("/key") and entry.isfile():
                    return archive.extractfile(entry).read().decode()
    return None


stolen = stage.do(attack, "localhost/app:3")
print()
measured("secret", "yes" if stolen == key else "no")

# %% [markdown]
# A few lines of Python. An image is its layers, and whoever may pull the image gets all of them. The last layer's whiteout is
# for the kernel, which builds the view; a reader of the archive need not care for it.
#
# **The defence** is that the secret never enters a layer. In the second build the key lies on a file system of its own in
# memory, mounted during the step and gone before `diff` looks:


# %%
def build_well(key):
    def fetch(root):
        place = root / "run/secrets"
        place.mkdir(parents=True)
        mounts.mount("tmpfs", place, "tmpfs")
        (place / "key").write_text(key)
        used = (place / "key").read_text()  # here the sources would be fetched with it
        (root / "srv/sources").write_text("int main..." if used == key else "no access")
        mounts.unmount(place)

    step("localhost/app:base", "localhost/well:3", fetch)


stage.do(build_well, key)
print("the key:", stage.do(attack, "localhost/well:3"))

# %% [markdown]
# All that is left of it is the empty folder on which it was mounted. To be sure, look for the key's text in everything that
# belongs to each image, manifest and configuration too:


# %%
import gzip


def anywhere(name, key):
    image = Store().find(name)
    digests = [image.digest, image.manifest.config.digest, *(layer.digest for layer in image.manifest.layers)]
    blobs = [Store().path(digest).read_bytes() for digest in digests]
    plain = [gzip.decompress(blob) if blob[:2] == b"\x1f\x8b" else blob for blob in blobs]  # gzip begins so
    return any(key.encode() in blob for blob in plain)


print("in any part of app:3: ", stage.do(anywhere, "localhost/app:3", key))
print("in any part of well:3:", stage.do(anywhere, "localhost/well:3", key))

# %% [markdown]
# This is what `RUN --mount=type=secret` does in a Dockerfile. Another way is a build in several stages, of which only the last
# one's layers are published.
#
# With large files it is the same as with secrets. A step puts 2 MiB into the image; the next step deletes them:

# %%
GROWS = ["smaller than before", "not smaller"]
predict("image-size", "After a step that only deletes a file, the image to be pulled is", choices=GROWS, mine=...)


# %%
def junk():
    big = os.urandom(2 << 20)

    def make(root):
        (root / "srv/big").write_bytes(big)

    def remove(root):
        (root / "srv/big").unlink()

    step("localhost/app:base", "localhost/app:with", make)
    step("localhost/app:with", "localhost/app:without", remove)
    step("localhost/app:base", "localhost/app:at-once", lambda root: (make(root), remove(root)))
    sizes = {words: Store().find(f"localhost/app:{words}").size for words in ("base", "with", "without", "at-once")}
    for words, size in sizes.items():
        print(f"{words:<9}{size / 2**20:4.1f} MiB")
    return GROWS[0] if sizes["without"] < sizes["with"] else GROWS[1]


grown = stage.do(junk)
print()
measured("image-size", grown)

# %% [markdown]
# A layer holds what is there when its step *ends*: `at-once` made and removed the file in one step, and nothing of it is left.
# `docker image prune` helps nobody here: it removes whole images that nobody uses, and never makes one smaller.
#
# And the names of folders, as promised in section 9. The layers of `app:3`, and the folders in which labkit has unpacked them:


# %%
def names(name):
    image = Store().find(name)
    table = zip(image.manifest.layers, image.config.diff_ids, layer_folders(image), strict=True)
    for number, (layer, diff_id, folder) in enumerate(table, 1):
        same = {
            "its digest": f"sha256:{folder.name}" == layer.digest,
            "its diff_id": f"sha256:{folder.name}" == diff_id,
        }
        words = [word for word in same if same[word]] or ["neither its digest nor its diff_id"]
        print(f"layer {number}: the folder's name is", *words)


stage.do(names, "localhost/app:3")

# %% [markdown]
# A folder holds a layer *as it is above those below it*, so labkit names it by a hash over the whole stack, the
# *chain ID*. Only for the lowest layer this is the diff_id. The digest, the hash of the compressed bytes, names none of them.

# %% [markdown]
# ## 11 A Dockerfile does the same
#
# *5 minutes, optional.* Section 10 played a Dockerfile by hand. `labkit build` reads one, with Docker's words; notebook 02 is about it. Here the
# question is only what its steps leave behind. The careless build again, on the lab's busybox, since RUN needs a shell:

# %%
DOCKERFILE = """\
FROM localhost:5000/busybox
COPY key /root/key
RUN cp /root/key /var/sources
RUN rm /root/key
"""


def by_dockerfile(key):
    from labkit.runtime import launch

    context = Path("/mnt/context")
    context.mkdir(exist_ok=True)
    (context / "key").write_text(key)
    (context / "Dockerfile").write_text(DOCKERFILE)
    launch.build(context, tag="localhost/built:3", network="none")


stage.do(by_dockerfile, key, limit=60)

# %% [markdown]
# And the same three steps with your functions: stack, act, `diff`, `commit`.


# %%
def by_hand(key):
    step("localhost:5000/busybox:latest", "localhost/hand:1", lambda root: (root / "root/key").write_text(key))
    step("localhost/hand:1", "localhost/hand:2", lambda root: (root / "var/sources").write_text(key))
    step("localhost/hand:2", "localhost/hand:3", lambda root: (root / "root/key").unlink())


def entries(name):
    """What the layers above the base hold: the names in each of them."""
    found = []
    for layer in Store().find(name).manifest.layers[1:]:
        with tarfile.open(Store().path(layer.digest)) as archive:
            found.append(archive.getnames())
    return found


LAYERS = ["the same names", "other names"]
predict("by-dockerfile", "The layers of the Dockerfile and those made by hand hold", choices=LAYERS, mine=...)

# %%
stage.do(by_hand, key, limit=60)
built, hand = stage.do(entries, "localhost/built:3"), stage.do(entries, "localhost/hand:3")
for line, names in zip(DOCKERFILE.splitlines()[1:], built, strict=True):
    print(f"{line:<30}", *names)
print()
measured("by-dockerfile", "the same names" if built == hand else "other names")

# %% [markdown]
# A build is nothing else: for each step a stack, a container or a copy, and the difference. What a real builder adds is the
# *cache*: before a step it asks whether it has made a layer for just this line on just these layers, and if so, takes that.

# %% [markdown]
# ## 12 What Docker does with it
#
# *4 minutes, core.*
#
# | command | what you did here |
# |---|---|
# | `docker pull` | layers unpacked once, each into a folder; `.wh.NAME` becomes a device 0:0 again |
# | `docker run` | an empty upper folder, one overlay mount |
# | a write inside | copy-up of the whole file, at `open` |
# | `docker diff` | the upper folder, read |
# | `docker commit`, each `RUN` and `COPY` of a build | `diff`, then `commit` |
# | `docker rm` | the upper folder deleted |
# | `docker image rm` | the lower folders deleted that no other image uses |
# | `docker history` | the list `history` in the configuration, one entry a step |
#
# Now compare what you believed with what the kernel did. A `=` marks what you had right, an `!` what you had thought otherwise:

# %%
beliefs("03")

# %% [markdown]
# ## Give it back
#
# The stage child ends, and with its mount namespace all the stacks. Predict: what differs from the census at the start? (What
# another notebook has running at this moment would be counted too.)

# %%
stage.close()
left = census.difference(before, census.take())
print("\n".join(left) or "nothing: the kernel holds what it held before")

# %% [markdown]
# **Next:** 04 gives a process a mount namespace of its own, and makes such a stack its root.
