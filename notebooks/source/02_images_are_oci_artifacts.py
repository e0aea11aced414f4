# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (the lab)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Images are OCI artifacts
#
# `docker pull nginx` brings something onto your disk. What is it? A file, a folder, a program? And how does Docker know that
# it is what you asked for, and that nobody changed it on its way?
#
# An image is a few JSON documents and some compressed tar archives, each named by the hash of its bytes. In this notebook you
# take one apart with nothing but Python's standard library, write one by hand in five files, and let a Dockerfile write one.
#
# | part | minutes | |
# |---|---|---|
# | 1 Look without pulling | 7 | core |
# | *exercise* pick-platform | 10 | core |
# | 2 By hand, from the tag to the last byte | 8 | core |
# | *exercise* verify-image | 12 | core |
# | 3 Which bytes two images share | 6 | core |
# | 4 What the container sees of the configuration | 7 | core |
# | 5 A tag moves, a digest does not | 5 | core |
# | 6 From layers to a root | 4 | optional |
# | *exercise* whiteouts | 15 | optional |
# | 7 An image in five files | 7 | core |
# | 8 A Dockerfile writes the documents | 9 | core |
# | *exercise* cache-order | 10 | core |
# | 9 What stays in an image | 6 | core |
# | *exercise* find-secret | 12 | optional |
# | 10 Attack: a layer that escapes | 3 | optional |
# | *exercise* escape | 10 | optional |
# | 11 What Docker does with it | 3 | core |
#
# The core is the ninety-minute route. Run the optional cells all the same; they take seconds. An exercise that you skip is
# filled in with labkit's answer, and says so.

# %% [markdown]
# ## 1 Look without pulling
#
# *7 minutes, core.* The lab has a registry at `localhost:5000`. So that you can push what you like, this notebook starts one more,
# at `localhost:5002`; it keeps everything in memory, and ends with the notebook. Images that are pulled go into a store of the
# notebook's own, too.

# %%
import os
import subprocess

from labkit.lessons import Child, beliefs, exercise, measured, mine, predict, scratch
from labkit.observe import census
from labkit.observe import container as see

before = census.take()
disk = scratch("notebook-02")  # a folder on the machine's disk, for as long as the notebook runs
os.environ["LABKIT_DATA"] = str(disk / "labkit")  # where labkit keeps images and unpacked layers
registry = Child("registry")
serving = registry.spawn("sh", "-c", "exec crane registry serve --address 127.0.0.1:5002 > /dev/null 2>&1")
see.wait_for_port(serving, 5002)

# %% [markdown]
# `crane` is a small program that talks to registries, and nothing else. With it, make an nginx as the large registries have it: for
# two kinds of processors, under one name. (Both are the lab's own nginx. One of them says of itself that it is for another
# processor. We only look at it.)


# %%
def crane(*words):
    """What crane prints; its complaint as an exception."""
    done = subprocess.run(["crane", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout.strip()


for platform in ("linux/amd64", "linux/arm64/v8"):
    tag = platform.split("/")[1]
    crane("mutate", "localhost:5000/nginx", "--set-platform", platform, "--tag", f"localhost:5002/nginx:{tag}")
both = ["-m", "localhost:5002/nginx:amd64", "-m", "localhost:5002/nginx:arm64"]
crane("index", "append", *both, "-t", "localhost:5002/nginx:1.27")
print("tags:", *crane("ls", "localhost:5002/nginx").split())

# %% [markdown]
# You may have seen the following line in an article; there it asks Docker Hub:
#
#     crane manifest nginx:1.27 | jq '.layers[] | {mediaType, size}'
#
# `crane manifest` prints the document that the registry has under that name, and `jq` takes from it what its expression says:
# the media type and the size of each layer.

# %%
SHOWN = ["the layers for this machine", "the layers for every platform", "an error"]
predict("jq-layers", "nginx:1.27 is there for two platforms. What does the line show?", choices=SHOWN, mine=...)

# %%
FILTER = ".layers[] | {mediaType, size}"


def shell(line):
    """Run a line in a shell; what it did."""
    return subprocess.run(line, shell=True, capture_output=True, text=True)


done = shell(f"crane manifest localhost:5002/nginx:1.27 | jq -c '{FILTER}'")
print("layers:", done.stdout.count("mediaType"))
print("jq says:", done.stderr.strip().rpartition(": ")[2])
measured("jq-layers", "an error" if done.returncode else SHOWN[done.stdout.count("mediaType") > 3])

# %% [markdown]
# There is no list `layers` in the document (to jq it is `null`), because it is not a manifest. It is an **index**: a list of
# manifests, one for each platform.

# %%
print(shell("crane manifest localhost:5002/nginx:1.27 | jq '{mediaType, for: [.manifests[].platform]}'").stdout)

# %% [markdown]
# So ask for the manifest of one platform. Then the line does what it promises:

# %%
import json

from labkit.draw.svg import size

done = shell(f"crane manifest --platform linux/amd64 localhost:5002/nginx:1.27 | jq -c '{FILTER}'")
for number, line in enumerate(done.stdout.splitlines(), 1):
    layer = json.loads(line)
    print(f"layer {number}: {layer['mediaType']}, {size(layer['size'])}")
read = crane("manifest", "--platform", "linux/amd64", "localhost:5002/nginx:1.27")
print("the manifest itself has less than 2000 bytes:", len(read) < 2000)

# %% [markdown]
# Nothing was pulled: the manifest is a short text, and says how large the layers are that it names.
#
# **What Docker does:** `docker pull` asks for the same document, looks whether it is an index, and picks the manifest for the
# processor that it runs on. `docker pull --platform` picks another one. If there is none: `no matching manifest for linux/...`.
#
# ### Exercise: pick-platform
#
# *10 minutes, core.* This choice is yours now. It looks like one line; the third part of a platform, the variant, makes it ten.

# %%
# exercise: pick-platform
import json


def pick(index, platform):
    """The digest of the manifest that an image index has for a platform; None where it has none.

    index    -- the bytes of the index, JSON
    platform -- SYSTEM/ARCHITECTURE or SYSTEM/ARCHITECTURE/VARIANT, such as linux/arm/v6

    An arm64 without a variant is arm64/v8, an arm without one is arm/v7: in the index, and in
    `platform` too.
    """
    ...


# %%
exercise("pick-platform").check(pick)

# %% [markdown]
# ## 2 By hand, from the tag to the last byte
#
# *8 minutes, core.* A registry is a web server. `/v2/NAME/manifests/TAG` gives an index or a manifest, `/v2/NAME/blobs/DIGEST` gives
# everything else. No program is needed to read it, `crane` neither:

# %%
import hashlib
from urllib.request import Request, urlopen

ACCEPT = ["application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"]


def get(path, body=None, method="GET", kind="application/octet-stream"):
    """What our registry answers at /v2/PATH: bytes."""
    headers = {"Accept": ", ".join(ACCEPT), "Content-Type": kind}
    with urlopen(Request(f"http://localhost:5002/v2/{path}", body, headers, method=method)) as answer:
        return answer.read()


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


index = get("nginx/manifests/1.27")
print("hash of the index:", sha256(index)[:19])
for entry in json.loads(index)["manifests"]:
    print("it names:         ", entry["digest"][:19], "for", entry["platform"]["os"], entry["platform"]["architecture"])

# %% [markdown]
# The tag is a word that somebody chose. From here on every name is a **digest**: `sha256:` and the hash of the bytes that it
# names. (Only the first twelve digits are shown.) With your function, go down from the index to the manifest, and from there to the
# configuration and the layers. At each step the hash is computed again from what has come:

# %%
pick = mine("pick-platform")


def fetch(place, words, digest):
    """Get a document or a blob, and compare its bytes with its name."""
    data = get(f"nginx/{place}/{digest}")
    print(f"{words:<14}{digest[:19]}   hash of the bytes is its name: {sha256(data) == digest}")
    return data


chosen = pick(index, "linux/amd64")
manifest = json.loads(fetch("manifests", "manifest", chosen))
config = json.loads(fetch("blobs", "configuration", manifest["config"]["digest"]))
layers = [fetch("blobs", f"layer {number}", one["digest"]) for number, one in enumerate(manifest["layers"], 1)]

# %% [markdown]
# The whole way in one picture, from the word to the bytes. The other manifest was never asked for:

# %%
from labkit.draw import documents

names = [documents.Node("configuration", manifest["config"]["digest"], True)]
names += [
    documents.Node(f"layer {number}", one["digest"], sha256(data) == one["digest"])
    for number, (one, data) in enumerate(zip(manifest["layers"], layers, strict=True), 1)
]
kinds = {one["digest"]: f"manifest, {one['platform']['architecture']}" for one in json.loads(index)["manifests"]}
listed = [documents.Node(kinds.pop(chosen), chosen, True)]
listed += [documents.Node(kind, digest) for digest, kind in kinds.items()]
documents.descent("nginx:1.27", documents.Node("index", sha256(index), True), listed, names)

# %% [markdown]
# Who has the one digest at the top has all others: it stands for the manifest's bytes, in which the other digests stand, which stand
# for *their* bytes.
#
# And what is in a layer? The media type said `tar+gzip`: a tar archive, compressed. Unpack it and hash it once more, the plain
# bytes this time. These hashes are in the configuration; they are called **diff IDs**.

# %%
import gzip
import io
import tarfile

plain = [gzip.decompress(data) for data in layers]
for number, data in enumerate(plain, 1):
    said = config["rootfs"]["diff_ids"][number - 1]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
    where = ", ".join(sorted({name.split("/")[0] for name in names}))
    print(f"layer {number}: {len(names)} files below {where}")
    print(f"         diff ID {said[:19]}   hash of the plain bytes is that: {sha256(data) == said}")

# %% [markdown]
# So a layer has two names: one for how it travels, in the manifest, and one for what it is, in the configuration. It may be
# compressed anew, harder or with another program; the first name changes, the second does not.
#
# The configuration says the rest: how the image was made, and how it is to be started.

# %%
print("keys:    ", *sorted(config))
print("start:   ", *config["config"]["Cmd"])
print("history: ", len(config["history"]), "steps for", len(config["rootfs"]["diff_ids"]), "layers")

# %% [markdown]
# **Breakage.** One bit of one layer is changed on its way, as a bad memory module would do it:

# %%
FLIPPED = ["nothing: one bit more or less", "it is refused, and nothing of it is kept", "it is kept, with a warning"]
predict("one-bit", "labkit's store takes in a layer of which one bit is wrong. What happens?", FLIPPED, mine=...)

# %%
from labkit.errors import LabError
from labkit.image.store import Store

smallest = min(range(len(layers)), key=lambda number: len(layers[number]))
promised = manifest["layers"][smallest]
damaged = bytearray(layers[smallest])
damaged[len(damaged) // 2] ^= 1
try:
    Store().put(io.BytesIO(damaged), promised["digest"], promised["size"], "the damaged layer")
    answer = FLIPPED[0]
except LabError as error:
    print(error)
    answer = FLIPPED[1] if not Store().path(promised["digest"]).exists() else FLIPPED[2]
print()
measured("one-bit", answer)

# %% [markdown]
# The registry is as strict. Who uploads a blob says its digest, and the registry compares:

# %%
from urllib.error import HTTPError


def upload(data, digest):
    """Push one blob in two steps, as crane and docker do: ask for a place, put the bytes there."""
    with urlopen(Request("http://localhost:5002/v2/nginx/blobs/uploads/", b"", method="POST")) as answer:
        place = answer.headers["Location"].removeprefix("http://localhost:5002").removeprefix("/v2/")
    try:
        get(f"{place}?digest={digest}", bytes(data), "PUT")
        return "taken"
    except HTTPError as error:
        return f"refused: {json.loads(error.read())['errors'][0]['code']}"


print("the layer as it was:", upload(layers[smallest], promised["digest"]))
print("one bit of it wrong:", upload(damaged, promised["digest"]))

# %% [markdown]
# ### Exercise: verify-image
#
# *12 minutes, core.* On disk an image has a form too, the *OCI image layout*: each blob is a file `blobs/sha256/DIGITS`. Write the
# function that finds out what in it is not true. It gets one digest from somebody whom you trust, and must not trust anything else.

# %%
# exercise: verify-image
import gzip
import hashlib
import json
import os


def broken(layout, digest):
    """Which promises of an image do its bytes not keep? A list of digests, empty when all is well.

    layout -- path of an OCI image layout: the blob sha256:abc... is the file blobs/sha256/abc...
    digest -- of the manifest, as somebody told you; nothing else is known to be true

    Of the manifest, the configuration and each layer: the digest, if the blob is missing, hashes to
    something else, or has another size than the one that names it says. Of each layer (gzip) whose
    blob is right: its diff_id, if the plain bytes hash to something else.
    Nothing is believed that stands in a broken blob.
    """
    ...


# %%
exercise("verify-image").check(broken)

# %% [markdown]
# With it, look through a whole image, as `crane pull` puts it on the disk; then damage it in one place:

# %%
broken = mine("verify-image")
crane("pull", "--format=oci", "--platform=linux/amd64", "localhost:5002/nginx:1.27", str(disk / "layout"))
print("as it came: ", broken(disk / "layout", chosen) or "nothing is broken")
blob = disk / "layout/blobs/sha256" / promised["digest"].removeprefix("sha256:")
blob.write_bytes(damaged)
found = broken(disk / "layout", chosen)
print("damaged:    ", *(digest[:19] for digest in found))
print("it is layer:", [one["digest"] for one in manifest["layers"]].index(found[0]) + 1)

# %% [markdown]
# ## 3 Which bytes two images share
#
# *6 minutes, core.* A blob is stored under its hash. So the same bytes are the same blob, whichever image they came with, and lie in the
# store once. First a question about two images of the lab:

# %%
PROGRAM = "The images busybox and nginx both contain the program busybox, the same bytes. How much do they share?"
predict("share", PROGRAM, choices=["nothing", "the program", "everything below the program"], mine=...)


# %%
def parts(name):
    """(manifest's digest, manifest) of an image in a registry."""
    data = subprocess.run(["crane", "manifest", name], check=True, capture_output=True).stdout
    return sha256(data), json.loads(data)


def program(image):
    """The hash of usr/bin/busybox in the first layer of an image."""
    digest = parts(image)[1]["layers"][0]["digest"]
    blob = subprocess.run(["crane", "blob", f"{image}@{digest}"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        return sha256(archive.extractfile("usr/bin/busybox").read())


two = {name: parts(f"localhost:5000/{name}")[1] for name in ("busybox", "nginx")}
common = set.intersection(*({one["digest"] for one in found["layers"]} for found in two.values()))
print("the same program: ", program("localhost:5000/busybox") == program("localhost:5000/nginx"))
print("layers in common: ", len(common))
measured("share", "nothing" if not common else "everything below the program")

# %% [markdown]
# What is shared is a *layer*, whole, or nothing. The program is a file in a layer with other files, and the other layer has other
# ones. That is why people agree on a base image: only what stands on the same layers shares them. Two shops on busybox:


# %%
def archive(files, when=1_700_000_000):
    """A plain tar archive of these files, a layer; all are executable and made at the time `when`."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(data), 0o755, when
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def add(image, name, files, *options):
    """Push the image `name`: `image` and one layer more."""
    (disk / "layer.tar").write_bytes(archive(files))
    crane("mutate", image, "--append", str(disk / "layer.tar"), "--tag", name, *options)


crane("copy", "localhost:5000/busybox", "localhost:5002/busybox")
add("localhost:5002/busybox", "localhost:5002/shop:1", {"srv/goods": os.urandom(300_000)})
add("localhost:5002/busybox", "localhost:5002/shop:2", {"srv/goods": os.urandom(400_000)})

# %%
from labkit.draw import blobs


def held(name):
    digest, manifest = parts(f"localhost:5002/{name}")
    documents = [blobs.Blob("manifest", digest), blobs.Blob("configuration", manifest["config"]["digest"])]
    layers = [blobs.Blob("layer", one["digest"], one["size"]) for one in manifest["layers"]]
    return blobs.Held(name, (*documents, *layers))


blobs.shared([held("busybox"), held("shop:1"), held("shop:2")])

# %% [markdown]
# **The same file twice.** You may have read that identical build steps are shared. What a step leaves is put into a tar archive.
# Here is one file, put into two archives. In the second one its time is one second later:

# %%
AGAIN = ["the same blob", "two blobs"]
predict("same-file", "Two archives of one file, its times one second apart. As layers they are", AGAIN, mine=...)

# %%
page = {"srv/page": b"the same page\n"}
same = sha256(archive(page)) == sha256(archive(page))
later = sha256(archive(page, 1_700_000_000)) == sha256(archive(page, 1_700_000_001))
print("same file, same time:", same)
print("one second later:    ", later)
measured("same-file", AGAIN[0] if later else AGAIN[1])

# %% [markdown]
# The archive holds the time of each file. Identical *bytes* are shared, and a step has identical bytes only if somebody
# sees to it: by a cache, which does not run the step again, or by setting all times to one value. Tools that do this are called
# reproducible. Section 8 looks whether a build is.
#
# **What Docker does:** its classic store unpacks each layer once, however many images have it. `docker system df -v` tells for each
# image how much of it is shared.

# %% [markdown]
# ## 4 What the container sees of the configuration
#
# *7 minutes, core.* An image with settings of each kind. They are those of a Dockerfile: ENV, WORKDIR, USER, EXPOSE, ENTRYPOINT,
# CMD, LABEL. And an annotation, which no Dockerfile line writes: it is for registries and other tools, and stands in the manifest.

# %%
settings = ["--env", "GREETING=hello", "--workdir", "/tmp", "--user", "33:33", "--exposed-ports", "8080/tcp"]
settings += ["--entrypoint", "sleep", "--cmd", "1000", "--label", "org.example.team=blue"]
settings += ["--annotation", "org.example.note=look here"]
crane("mutate", "localhost:5002/busybox", "--tag", "localhost:5002/settings:1", *settings)
asked = json.loads(crane("config", "localhost:5002/settings:1"))["config"]
for key in ("Env", "WorkingDir", "User", "ExposedPorts", "Entrypoint", "Cmd", "Labels"):
    print(f"{key:<13}{asked.get(key)}")
print("annotations in the configuration:", "look here" in crane("config", "localhost:5002/settings:1"))
print("annotations in the manifest:     ", "look here" in crane("manifest", "localhost:5002/settings:1"))

# %%
predict("expose", "A container of it runs. Which port is open in it?", choices=["port 8080", "none"], mine=...)

# %%
ARGV = ["2000 alone", "sleep 2000", "sleep 1000 2000"]
predict("argv", "You start it with one more word: `docker run IMAGE 2000`. What is executed?", choices=ARGV, mine=...)

# %% [markdown]
# Start it with the word, and read from outside, in `/proc`, what the kernel holds of it:

# %%
import time
from pathlib import Path

from labkit.runtime import launch


def kernel_has(pid):
    """What the kernel holds of a process: its user, folder, arguments, variables."""
    proc = Path("/proc", str(pid))
    while not proc.joinpath("cmdline").read_bytes().startswith(b"sleep"):  # a moment until execve
        time.sleep(0.05)
    lines = proc.joinpath("status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    variables = proc.joinpath("environ").read_bytes().decode().split("\0")
    return {
        "user and group": f"{fields['Uid'].split()[0]}:{fields['Gid'].split()[0]}",
        "folder": os.readlink(proc / "cwd"),
        "arguments": proc.joinpath("cmdline").read_bytes().decode().replace("\0", " ").strip(),
        "GREETING": next(line.partition("=")[2] for line in variables if line.startswith("GREETING=")),
        "listening sockets": len(proc.joinpath("net/tcp").read_text().splitlines()) - 1,
    }


launch.labkit("pull", "localhost:5002/settings:1")
# no_init: the command itself is process 1, as with docker run
options = {"replace": True, "network": "none", "no_init": True}
with launch.run("localhost:5002/settings:1", "2000", name="settings", **options) as box:
    holds = kernel_has(box.pid)
for what, value in holds.items():
    print(f"{what:<20}{value}")
print()
measured("expose", "none" if holds["listening sockets"] == 0 else "port 8080")
print()
measured("argv", holds["arguments"])

# %% [markdown]
# Five settings became arguments of system calls: `setuid`, `setgid`, `chdir`, `execve`. Two did not become anything.
# ENTRYPOINT and CMD are one list of words in the end; words of the command line replace CMD and leave ENTRYPOINT alone.
#
# EXPOSE opens nothing. It is a note, read by `docker run -P`, which publishes all ports noted so. Labels are notes too.
# What really listens, the program decides.

# %% [markdown]
# ## 5 A tag moves, a digest does not
#
# *5 minutes, core.* You deploy `shop:stable`. Your colleague has pushed to that tag last night.

# %%
crane("copy", "localhost:5002/shop:1", "localhost:5002/shop:stable")
yesterday = crane("digest", "localhost:5002/shop:stable")
crane("copy", "localhost:5002/shop:2", "localhost:5002/shop:stable")
today = crane("digest", "localhost:5002/shop:stable")
print("the tag means the same as yesterday:", today == yesterday)

# %%
predict(
    "moved",
    "The tag shop:stable has been pushed to again. You pull it by the digest of yesterday. What comes?",
    choices=["the image of yesterday", "the new one", "an error: it is gone"],
    mine=...,
)

# %%
pulled = sha256(get(f"shop/manifests/{yesterday}"))
measured("moved", "the image of yesterday" if pulled == yesterday else "the new one")

# %% [markdown]
# A tag is a word in the registry's own list. It says what somebody wants it to say, today. A digest means one sequence of bytes.
#
# Is it the digest, then, that makes an image immutable? **Attack:** our registry is a simple one. It lets us put another manifest in
# the place where the old one was, under the old digest:

# %%
data = get(f"shop/manifests/{today}")
get(f"shop/manifests/{yesterday}", data, "PUT", ACCEPT[1])
came = get(f"shop/manifests/{yesterday}")
print("asked for:  ", yesterday[:19])
print("what came:  ", sha256(came)[:19])
print("that is:    ", "the new image" if sha256(came) == today else "the old image")

# %% [markdown]
# The registry lies now. A client that asks by digest gets other bytes, and no law of nature has been broken. What do the
# programs say that pull it? First crane, and then labkit's own check of what came:

# %%
from labkit.image import store

try:
    crane("pull", f"localhost:5002/shop@{yesterday}", str(disk / "stolen.tar"))
    print("crane: pulled")
except RuntimeError as error:
    print("crane refuses:", "does not match" in str(error))
try:
    store.check(yesterday, sha256(came), "the manifest of shop")
    print("labkit: all is well")
except LabError as error:
    print(error)

# %% [markdown]
# A digest protects nothing by itself. It lets whoever receives the bytes *see* whether they are the right ones, and every
# decent program looks. So: deploy by digest (`image@sha256:...`), and the registry, the network and your colleague together
# cannot change what runs.

# %% [markdown]
# ## 6 From layers to a root
#
# *4 minutes, optional.* A layer is an archive of what is new. How does it say that something is gone? An archive can only contain.
# So the specification gives two kinds of names a meaning:
#
# | name in the layer | it says |
# |---|---|
# | `.wh.NAME` | NAME, from a layer below, is gone (a *whiteout*) |
# | `.wh..wh..opq` | in this folder, all that comes from below is gone (an *opaque mark*) |
#
# An image with both. The last layer is a clean-up:

# %%
add(
    "localhost:5002/busybox", "localhost:5002/clean:1", {"srv/cache/a": b"1", "srv/cache/b": b"2", "srv/key": b"secret"}
)
add(
    "localhost:5002/clean:1",
    "localhost:5002/clean:2",
    {"srv/.wh.key": b"", "srv/cache/.wh..wh..opq": b"", "srv/cache/c": b"3"},
)


def unpacked(name):
    """The plain layers of an image, in files, the bottom first."""
    files = []
    for number, one in enumerate(parts(f"localhost:5002/{name}")[1]["layers"]):
        files.append(disk / f"layer-{number}.tar")
        files[-1].write_bytes(gzip.decompress(get(f"{name.partition(':')[0]}/blobs/{one['digest']}")))
    return files


for number, file in enumerate(unpacked("clean:2")[1:], 2):
    with tarfile.open(file) as tar:
        print(f"layer {number}:", *tar.getnames())

# %% [markdown]
# ### Exercise: whiteouts
#
# *15 minutes, optional.* Apply one layer to the folder that holds the layers below. Notebook 03 does it with overlayfs, which needs no copy;
# here it is one folder, as `docker export` or a tool without root would make it.

# %%
# exercise: whiteouts
import os
import shutil
import tarfile


def apply(layer, root):
    """Apply a layer to the folder `root`, which holds the layers below it.

    layer -- path of a plain tar archive with files, folders and symbolic links
    root  -- path of a folder

    An entry .wh.NAME removes NAME; an entry .wh..wh..opq removes from its folder what came from
    below, and nothing that this layer brings. Neither of them is a file in `root` afterwards.
    """
    ...


# %%
exercise("whiteouts").check(apply)

# %% [markdown]
# All layers of the image, one after the other, with your function; and beside it what labkit's own unpacker makes of them:

# %%
from labkit.image import unpack

apply = mine("whiteouts")
files = unpacked("clean:2")
for name in ("yours", "labkits"):
    shutil.rmtree(disk / name, ignore_errors=True)
    (disk / name).mkdir()
for file in files:
    apply(str(file), str(disk / "yours"))
    unpack.apply(file, "", sha256(file.read_bytes()), disk / "labkits", overlay=False)


def tree(root):
    """Every path below a folder, with its mode, and where it points or what it holds."""
    found = {}
    for path in root.rglob("*"):
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[path.relative_to(root)] = (path.lstat().st_mode, what)
    return found


print("in srv:        ", *sorted(str(path) for path in tree(disk / "yours") if path.parts[0] == "srv"))
print("the same trees:", tree(disk / "yours") == tree(disk / "labkits"))

# %% [markdown]
# ## 7 An image in five files
#
# *7 minutes, core.* Now the other way round: an image out of nothing. The smallest one that does something has one layer, and needs
# five files: the layer, the configuration, the manifest, an index, and a file that says "this folder is an image layout".
#
# Its content: one program (busybox, out of the lab's image), and one script. First the three blobs. Each is written under its hash, and
# what points to it has to know the hash: so the order is layer, configuration, manifest.

# %%
layout = disk / "by-hand"
(layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)


def blob(data, kind):
    """Write a blob under its hash; the pointer to it, as the documents want it."""
    (layout / "blobs/sha256" / sha256(data).removeprefix("sha256:")).write_bytes(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": sha256(data), "size": len(data)}


with tarfile.open(unpacked("busybox:latest")[0]) as tar:
    busybox = tar.extractfile("usr/bin/busybox").read()
script = b"""#!/busybox sh
echo "process $$, and the only one"
[ -e /bin/sh ] || echo "there is no other shell here"
"""
content = archive({"busybox": busybox, "hello": script})

layer = blob(gzip.compress(content, mtime=0), "layer.v1.tar+gzip")
own = json.loads(crane("config", "localhost:5000/busybox"))["architecture"]  # of this machine
settings = {"architecture": own, "os": "linux", "config": {"Entrypoint": ["/hello"]}}
settings["rootfs"] = {"type": "layers", "diff_ids": [sha256(content)]}
config = blob(json.dumps(settings).encode(), "config.v1+json")
document = {"schemaVersion": 2, "mediaType": ACCEPT[1], "config": config, "layers": [layer]}
manifest = blob(json.dumps(document).encode(), "manifest.v1+json")

# %% [markdown]
# And the two files around them:

# %%
(layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
(layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": ACCEPT[0], "manifests": [manifest]}))
for path in sorted(layout.rglob("*")):
    if path.is_file():
        print(str(path.relative_to(layout))[:25])

# %% [markdown]
# Is it an image? `crane push` sends it to the registry, `crane validate` reads it back and computes every hash anew.

# %%
crane("push", str(layout), "localhost:5002/by-hand:1")
print(crane("validate", "--remote", "localhost:5002/by-hand:1"))
print("broken, says your function:", broken(layout, manifest["digest"]))

# %% [markdown]
# Does it run? First with labkit:

# %%
launch.labkit("pull", "localhost:5002/by-hand:1")
print(launch.labkit("run", "--rm", "--no-init", "--network", "none", "localhost:5002/by-hand:1").stdout, end="")

# %% [markdown]
# labkit may be as wrong as we are. So give it to somebody else: `crane export` makes one tree of the layers, and **runc**, the
# program that starts containers for Docker, runs a command on it. It needs a file `config.json`; notebook 10 is about that one.

# %%
bundle = disk / "bundle"
shutil.rmtree(bundle, ignore_errors=True)
(bundle / "rootfs").mkdir(parents=True)
crane("export", "localhost:5002/by-hand:1", str(disk / "root.tar"))
with tarfile.open(disk / "root.tar") as tar:
    tar.extractall(bundle / "rootfs", filter="fully_trusted")
subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
spec = json.loads((bundle / "config.json").read_text())
spec["process"] |= {
    "terminal": False,
    "args": json.loads(crane("config", "localhost:5002/by-hand:1"))["config"]["Entrypoint"],
}
spec["linux"]["cgroupsPath"] = "/lesson-02"
(bundle / "config.json").write_text(json.dumps(spec))
top = Path("/sys/fs/cgroup/cgroup.subtree_control")
handed = set(top.read_text().split())
subprocess.run(["runc", "delete", "--force", "lesson-02"], stderr=subprocess.DEVNULL)  # of an earlier run
print(subprocess.run(["runc", "run", "--bundle", bundle, "lesson-02"], capture_output=True, text=True).stdout, end="")
for name in set(top.read_text().split()) - handed:  # runc has the groups on its way hand on every controller
    top.write_text(f"-{name}")

# %% [markdown]
# crane fetched the five files both times. But two unpackers, labkit's and crane's, and two runtimes, labkit-runtime and runc,
# which share no line of code, have made the same of them. That is what a specification is for, and why it says *OCI artifact*
# and not "Docker image".
#
# The script ran as process 1, on a root of two files. No distribution, no library: an image is as small as you make it.

# %% [markdown]
# ## 8 A Dockerfile writes the documents
#
# *9 minutes, core.* Nobody writes five files by hand. A Dockerfile says what shall be done; `labkit build` does it, with Docker's
# words and options, and writes layers, configuration and manifest. A shop again, with a list of libraries that are installed, and goods:

# %%
shop = disk / "shop"
shop.mkdir(exist_ok=True)
INSTALL = "head -c 300000 /dev/urandom > library\n"
FILES = {"libraries.lock": "colours 1.0\n", "goods": "apples\npears\n", "install": INSTALL}
for name, text in FILES.items():
    (shop / name).write_text(text)
FIRST = """\
FROM localhost:5000/busybox
WORKDIR /srv
COPY . .
RUN sh install
EXPOSE 8080
CMD ["cat", "goods"]
"""

# %%
MADE = ["2 layers", "4 layers", "6 layers", "7 layers"]
asked = "Six instructions, the first one brings a base of one layer. How many layers does the image have?"
predict("layers-made", asked, choices=MADE, mine=...)

# %% [markdown]
# Build it, and watch. The picture follows the build's own reports:

# %%
from labkit.draw import steps
from labkit.lessons import live


def build(tag, text, *options, plan=None):
    """Build the folder `shop` with this Dockerfile as shop:TAG; the steps as they are in the end, also in `plan`."""
    (shop / "Dockerfile").write_text(text)
    told = [] if plan is None else plan
    told[:] = [steps.Step(line, "waits") for line in text.splitlines() if not line.startswith("FROM")]
    words = ["build", "--progress", "rawjson", "--network", "none", "--metadata-file", str(disk / "built.json")]
    words += ["--tag", f"localhost:5002/shop:{tag}", *options, str(shop)]
    with subprocess.Popen([*launch.LABKIT, *words], stderr=subprocess.PIPE, text=True) as going:
        for line in going.stderr:
            report = json.loads(line) if line.startswith("{") else {"text": line}
            for number, one in enumerate(told):
                if report.get("title", "").endswith(f"] {one.text}"):
                    told[number] = one._replace(state="runs")
                elif report.get("step") and report["step"]["instruction"] == one.text:
                    state = "cached" if report["step"]["cached"] else "done"
                    told[number] = one._replace(state=state, size=report["step"]["size"])
    if going.returncode:
        raise RuntimeError(f"the build ended with status {going.returncode}")
    told[:] = [one._replace(state="setting") if one.state == "waits" else one for one in told]
    return told


first = []
with live.watch(lambda: steps.build(list(first)), rate=4):
    build("a", FIRST, "--no-cache", plan=first)

# %%
steps.build(first)

# %%
image = Store().find("localhost:5002/shop:a")
measured("layers-made", f"{len(image.manifest.layers)} layers")
print()
for entry in image.config.history:
    print("no layer" if entry.get("empty_layer") else "a layer ", entry["created_by"].partition(" #")[0][:70])

# %% [markdown]
# Not every instruction makes a layer. FROM brings those of the base image; COPY and RUN make one each, and WORKDIR, where it makes the
# folder; EXPOSE and CMD only write into the configuration. The list `history` has an entry for every one: it is what
# `docker history` prints.
#
# What is in the layers, and where does each file come from? The picture of notebook 03, for the layers above the base:

# %%
from labkit.draw import overlay
from labkit.image.layers import layer_folders
from labkit.observe import stack as on_disk


def origins(name):
    """The layers above the base, named after the instructions that made them."""
    image = Store().find(name)
    made = [entry["created_by"] for entry in image.config.history if not entry.get("empty_layer")]
    words = [text.partition(" #")[0].removeprefix("RUN /bin/sh -c ") for text in made]
    return overlay.origins(on_disk.read(layer_folders(image)[1:], None, words[1:]))


origins("localhost:5002/shop:a")

# %% [markdown]
# ### The same steps twice
#
# In section 3, one second more made another layer of the same file. And in a build? Give the goods a new time, and let every
# step be done again:

# %%
time.sleep(1)
(shop / "goods").touch()  # the same bytes, at least one second later
again = build("again", FIRST, "--no-cache")
old, new = (Store().find(f"localhost:5002/shop:{tag}").manifest.layers[1:] for tag in ("a", "again"))
for one, was, now in zip([one for one in again if one.state == "done"], old, new, strict=True):
    print(f"{one.text:<15} done, and the digest is the same: {was.digest == now.digest}")

# %% [markdown]
# WORKDIR and COPY made the same bytes again. labkit sees to it: a file that COPY brings gets the time at which the base image was
# created, whatever its own time is, and nothing that a step makes is younger than that. RUN made other bytes, since our `install`
# takes them from `/dev/urandom`. Times can be set afterwards; what a command gets from chance, or from the network, cannot.
#
# ### The cache
#
# A step that was done before, on the same files, need not be done again: its layer is there. The rule is short: **a step is
# taken from the cache if its line, and what it copies, and everything before it, are as they were.** Now somebody adds plums to the
# goods:

# %%
REDO = ["COPY", "COPY and RUN", "all of them"]
predict("edit", "One line of `goods` has changed. Which steps are done again?", choices=REDO, mine=...)

# %%
print("nothing changed:", sum(one.state == "done" for one in build("a", FIRST)), "steps done")
(shop / "goods").write_text(FILES["goods"] + "plums\n")
second = build("a", FIRST)
measured("edit", " and ".join(one.text.split()[0] for one in second if one.state == "done"))
steps.build(second)

# %% [markdown]
# The goods have nothing to do with the libraries, and yet they are installed anew: the COPY that brings the goods stands before. So take
# apart what is copied. What changes rarely goes first:

# %%
SORTED = FIRST.replace("COPY . .\nRUN sh install\n", "COPY install libraries.lock ./\nRUN sh install\nCOPY . .\n")
build("b", SORTED)
(shop / "goods").write_text(FILES["goods"] + "plums\ncherries\n")
third = build("b", SORTED)
steps.build(third)

# %% [markdown]
# ### Exercise: cache-order
#
# *10 minutes, core.* Which order is the best one? Write it as a function: it gets the lines, what each needs, how often what it copies is edited,
# and how long it takes.

# %%
# exercise: cache-order
import itertools


def order(lines):
    """The lines of a Dockerfile behind FROM, in the order that costs the fewest seconds a week.

    lines -- {line: (needs, edits, seconds)}, at most seven:
             needs   -- the lines that must stand before it
             edits   -- how often a week something that it copies, or the line itself, is changed
             seconds -- how long it takes when it is not taken from the cache

    Each edit runs the line again and all lines behind it; those before it come from the cache.
    Returns a list of all the lines.
    """
    ...


# %%
exercise("cache-order").check(order)

# %% [markdown]
# Our shop, once more, with your function. The goods change every day, the libraries once a month:

# %%
order = mine("cache-order")
lines = {
    "COPY goods pack ./": ([], 7, 1),
    "RUN sh pack": (["COPY goods pack ./"], 0, 2),
    "RUN sh install": (["COPY install libraries.lock ./"], 0, 60),
    "COPY install libraries.lock ./": ([], 0.25, 1),
}
print("FROM localhost:5000/busybox", "WORKDIR /srv", *order(lines), sep="\n")

# %% [markdown]
# ## 9 What stays in an image
#
# *6 minutes, core.* A build needs a key, to fetch something. It is copied in, used, and removed:

# %%
import secrets

key = f"lab-key-{secrets.token_hex(12)}"
(shop / "key").write_text(key)
CARELESS = """\
FROM localhost:5000/busybox
WORKDIR /srv
COPY key ./
RUN wc key > used
RUN rm key
"""
build("careless", CARELESS)
origins("localhost:5002/shop:careless")

# %%
predict("key-left", "Who pulls the image: can they read the key?", choices=["yes", "no"], mine=...)

# %% [markdown]
# ### Exercise: find-secret
#
# *12 minutes, optional.* Write the search yourself. It has to look everywhere: a key can lie in more places than one thinks.

# %%
# exercise: find-secret
import gzip
import json
import os
import re

KEY = rb"lab-key-[0-9a-f]{24}"


def keys(layout, digest):
    """Every key that can be read out of an image: a set of words such as lab-key-00112233445566778899aabb.

    layout -- path of an OCI image layout: the blob sha256:abc... is the file blobs/sha256/abc...
    digest -- of the image's manifest; its layers are plain tar archives, or compressed with gzip
    """
    ...


# %%
exercise("find-secret").check(keys)

# %%
keys = mine("find-secret")


def found(tag):
    """Is the key in the image?"""
    return "yes" if key in keys(str(Store().folder), Store().find(f"localhost:5002/shop:{tag}").digest) else "no"


measured("key-left", found("careless"))

# %% [markdown]
# The layer of `COPY key` is whole, and whoever pulls the image gets it. The step that removes the key adds a whiteout, as in section 6.
#
# **The defence** is a build in two stages. The first one may be as careless as it likes. The second begins anew, and takes from the
# first only what is asked for by name; the first one's layers are no part of the image.

# %%
STAGES = """\
FROM localhost:5000/busybox AS work
WORKDIR /srv
COPY key ./
RUN head -c 2000000 /dev/urandom > objects; wc -c < key > fetched

FROM localhost:5000/busybox
COPY --from=work /srv/fetched /srv/fetched
"""
ONE = STAGES.partition("\n\n")[0] + "\nRUN rm key objects\n"
build("one-stage", ONE)
build("two-stages", STAGES)
for tag in ("one-stage", "two-stages"):
    image = Store().find(f"localhost:5002/shop:{tag}")
    print(f"{tag:<12}{len(image.manifest.layers)} layers, {size(image.size)}; the key is in it: {found(tag)}")

# %% [markdown]
# The same file `fetched` is in both images. What only the build needed, the objects and the key, is in one of them for ever.
#
# With a compiler the difference is larger. The lab has an image with Go's compiler, and one with nothing but what a finished
# program may look for. What would each of them bring along?

# %%
for name in ("golang", "static"):
    print(f"{name:<8}", size(sum(one["size"] for one in parts(f"localhost:5000/{name}")[1]["layers"])))

# %% [markdown]
# If you have some minutes, build the two Dockerfiles in the folder `files/go-hello` in a terminal, `labkit build -t hello .` and
# `labkit build -t hello:single -f Dockerfile.single .`, and compare them with `labkit images`. The build in two stages is the one that
# you find in every article about small images.

# %% [markdown]
# ## 10 Attack: a layer that escapes
#
# *3 minutes, optional.* Whoever pulls an image unpacks an archive that a stranger has made, mostly as root. The archive says where each
# file goes. What if it says `/etc/passwd` of the machine?
#
# Every unpacker refuses names with `..` in them. Is that enough?
#
# ### Exercise: escape
#
# *10 minutes, optional.* Build the layer. The check unpacks it with a program that trusts names, and then with labkit's.

# %%
# exercise: escape
import io
import tarfile


def escape(layer, outside, name, text):
    """Write a layer, a plain tar archive, to the path `layer`: unpacked carelessly, it makes OUTSIDE/NAME.

    outside -- absolute path of a folder that exists, and is not in the unpacker's root
    name    -- the file to be made there
    text    -- what shall be in it

    The unpacker refuses each entry whose name begins with a slash or has a part `..`, and each hard
    link. It makes all others in their order, in its root, with plain open(), mkdir() and symlink().
    """
    ...


# %%
exercise("escape").check(escape)

# %% [markdown]
# What becomes of the layer in labkit's hands? And of others that name a place outside:

# %%
escape = mine("escape")
outside = disk / "outside"
shutil.rmtree(outside, ignore_errors=True)
outside.mkdir()


def links(*entries):
    """A layer of (name, type, where it points)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, kind, target in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            tar.addfile(entry)
    return made.getvalue()


escape(str(disk / "escape.tar"), str(outside), "note", "I was here")
layers = {
    "a file through a link": (disk / "escape.tar").read_bytes(),
    "a name with ..": links((f"../../..{outside}/note", tarfile.REGTYPE, "")),
    "an absolute name": links((f"{outside}/note", tarfile.REGTYPE, "")),
    "a hard link outward": links(("hosts", tarfile.LNKTYPE, "../../../../../../etc/hosts")),
}
for words, data in layers.items():
    root = disk / "jail"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    (disk / "escape.tar").write_bytes(data)
    try:
        unpack.apply(disk / "escape.tar", "", sha256(data), root, overlay=False)
        inside = sum(path.name == "note" for path in root.rglob("*"))
        said = "lands in the root" if inside else "does nothing"
    except LabError as error:
        said = f"refused: {str(error).splitlines()[0].replace(str(disk), '')}"
    print(f"{words:<22} outside: {'something' if list(outside.iterdir()) else 'nothing'}  {said}")

# %% [markdown]
# The first one is refused: seen from inside the root, the link leads to a folder that is not there. The next two land where they
# would land in a container. No list of forbidden words does this. labkit opens every path with `openat2(2)` and the flag `RESOLVE_IN_ROOT`: the kernel
# itself resolves each link and each `..` as if the root were the whole world, as in a container.

# %% [markdown]
# ## 11 What Docker does with it
#
# *3 minutes, core.*
#
# | command | what you did here |
# |---|---|
# | `docker pull NAME:TAG` | the tag resolved to a digest, an index to the manifest of this platform, then every blob fetched and hashed |
# | `docker pull NAME@sha256:...` | the same, and the first hash is given by you |
# | `docker images --digests`, `docker image inspect` | manifest and configuration, read |
# | `docker run` | the configuration, turned into arguments of system calls |
# | `docker build` | a layer for each step that changes files, an entry of `history` for each instruction |
# | `docker history` | that list |
# | `docker push` | blobs that the registry does not have yet, then the manifest |
# | `docker tag` | one more word for a digest |
#
# Now compare what you believed with what was measured. A `=` marks what you had right, an `!` what you had thought otherwise:

# %%
beliefs("02")

# %% [markdown]
# ## Give it back
#
# The registry ends, and with it all images that you pushed; the store's folder goes too. Predict: what differs from the census at
# the start? (What another notebook has running at this moment would be counted too.)

# %%
registry.close()
shutil.rmtree(disk)
left = census.difference(before, census.take())
print("\n".join(left) or "nothing: the kernel holds what it held before")

# %% [markdown]
# **Next:** 03 stacks the layers with overlayfs, and makes a layer of what a container has changed.
