"""Floor 2: an image with the distribution's Go compiler, and with the standard library compiled.

Owns: which parts of the packages a `go build` without C needs, and the warm build cache.

Go compiles the standard library at the first build and keeps it in a cache: minutes under
emulation.  Here that is done once, natively, with the image's tree as the root, so that Go finds
every path as it will be.  The cache is named by the hashes of what went into it; but three things
in it would differ from build to build, or spoil it, and are set:

    the time in each action's entry     is the package's, so that the layer has one digest
    the files' times                    lie ahead.  Go touches a file that it has not used for an
                                        hour: in a container that would copy it up, byte for byte;
                                        and it removes what nothing used for five days
    trim.txt                            is left out: it holds the time of the last removal

Read: `go help cache`, `go help environment`; cmd/go/internal/cache in Go's sources; overlayfs.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from labkit.errors import LabError
from labkit.image import tarball
from labkit.image.kit_images import busybox_layer
from labkit.image.kit_layout import PATH, write
from labkit.image.kit_packages import fetch, fetch_all, library_closure, needed, newest, package_entries
from labkit.image.tarball import Entry, Layer

# What `go build` calls when there is no C; the last two are in what -x prints.
TOOLS = ("asm", "compile", "link", "buildid", "pack")
# Tests, the compiler's own sources, objects for the race detector (it needs C), gofmt: half of the
# bytes, and no program of the lessons imports them.
UNUSED = re.compile(
    r"usr/(lib|share)/go-[^/]+/(api|doc|lib|misc|test|src/cmd|src/testdata)(/|$)"
    r"|.*(/testdata(/|$)|_test\.go$|\.syso$|/gofmt$)"
)
# Files for other systems and processors than the lab's, which Go tells by their names: a third of the files.
SYSTEMS = (
    *("aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "netbsd", "openbsd", "plan9"),
    *("solaris", "wasip1", "windows"),
)
PROCESSORS = (
    *("386", "arm", "loong64", "mips", "mips64", "mips64le", "mips64x", "mipsle", "mipsx", "ppc64", "ppc64le"),
    *("ppc64x", "riscv64", "s390x", "wasm"),
)
FOREIGN = re.compile(rf".*/src/.*_(({'|'.join(SYSTEMS)})(_[a-z0-9]+)?|{'|'.join(PROCESSORS)})\.(go|s|h)$")
CACHE = "root/.cache/go-build"
# What the programs of the lessons import; what these import comes with them.
WARM = ("embed", "encoding/json", "flag", "html/template", "log/slog", "net/http", "os/exec", "os/signal")
AHEAD = 2**31 - 1  # the last second that every file system can write, in 2038
ENVIRONMENT = {
    "GOPATH": "/go",
    "GOCACHE": f"/{CACHE}",
    "CGO_ENABLED": "0",  # there is no C compiler here, and a static program needs no library
    "GOTOOLCHAIN": "local",  # never another version from the network
    "GOPROXY": "off",  # a module that is not here is refused at once, by name
    # There is no git to ask.  With -trimpath, and without, are two sets of compiled packages: one is enough.
    "GOFLAGS": "-buildvcs=false -trimpath",
}


def golang(output: Path, work: Path) -> None:
    """The go command, the standard library's sources, and its build cache; busybox below."""
    links = fetch("golang-go", work)
    compiler = fetch(next(name for name in needed(links) if re.match(r"golang-[0-9.]+-go$", name)), work)
    (sources,) = fetch_all([name for name in needed(compiler) if re.match(r"golang-[0-9.]+-src$", name)], work)
    name = compiler.name.removesuffix(".deb").partition("_")[0].removesuffix("-go")  # golang-1.24
    base = busybox_layer(work)
    packages = (*library_closure([compiler], work), sources, compiler, links)
    go = {path: entry for each in packages for path, entry in package_entries(each).items()}
    when = newest(go)
    entries = [entry for path, entry in go.items() if _used(path)]
    entries += [*(tarball.folder(path) for path in ("go", "go/bin", "go/src")), *_quiet()]
    toolchain = tarball.layer(entries, when)
    warm = tarball.layer(warm_cache([base[1], toolchain], name.replace("golang", "go"), work / "go-root", when), when)
    write(
        output,
        name.removeprefix("golang-"),
        [
            base,
            (f"{name} from the distribution: go build, and the standard library", toolchain),
            ("the standard library as go build has compiled it: GOCACHE", warm),
        ],
        {"Env": [PATH, *(f"{key}={value}" for key, value in ENVIRONMENT.items())], "Cmd": ["sh"], "WorkingDir": "/go"},
        when,
    )


def _used(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return not UNUSED.match(path) and not FOREIGN.match(path) and ("/pkg/tool/" not in folder or name in TOOLS)


def _quiet() -> list[Entry]:
    """No counters of use: the go command would begin a folder of them at its first run."""
    parts = ("root/.config", "root/.config/go", "root/.config/go/telemetry")
    return [*(tarball.folder(path) for path in parts), tarball.file(f"{parts[-1]}/mode", "off")]


def warm_cache(layers: list[Layer], version: str, root: Path, when: int) -> list[Entry]:
    """The entries of a cache in which WARM is compiled, by the go command of these layers.

    Needs to change the root: as root, or in a user namespace.  Raises LabError with go's words.
    version -- the folder of Go in /usr/lib: go-1.24
    """
    root.mkdir()
    for layer in layers:
        subprocess.run(["tar", "-C", str(root), "--no-same-owner", "-xzf", "-"], input=layer.data, check=True)
    (root / "dev" / "null").touch()  # go gives it to its children as their input; empty is what counts
    known = [name for name in WARM if (root / "usr/lib" / version / "src" / name).is_dir()]  # log/slog is younger
    names = {**ENVIRONMENT, "GOROOT": f"/usr/lib/{version}", "HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    namespace = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
    done = subprocess.run(
        [*namespace, "chroot", str(root), "/usr/bin/go", "build", *known],
        capture_output=True,
        text=True,
        env=names,
    )
    if done.returncode:
        raise LabError(
            "cannot compile Go's standard library for the image",
            why=done.stderr.strip()[-2000:],
            next="build the images as root",
        )
    found = [path for path in (root / CACHE).rglob("*") if path.name != "trim.txt"]
    return [*_parents(CACHE), *(_cached(path, root, when) for path in found)]


def _parents(path: str) -> list[Entry]:
    parts = path.split("/")
    return [tarball.folder("/".join(parts[: end + 1])) for end in range(1, len(parts))]


def _cached(path: Path, root: Path, when: int) -> Entry:
    """One file of the cache, with a time that neither differs nor passes."""
    name = str(path.relative_to(root))
    if path.is_dir():
        return tarball.folder(name)
    data = path.read_bytes()
    if name.endswith("-a"):  # v1 ACTION OUTPUT SIZE TIME, the last in 20 columns of nanoseconds
        data = re.sub(rb"^(v1 [0-9a-f]+ [0-9a-f]+ +\d+) +\d+\n$", lambda m: b"%s %20d\n" % (m[1], when * 10**9), data)
    entry = tarball.file(name, data)
    entry.header.mtime = AHEAD
    return entry
