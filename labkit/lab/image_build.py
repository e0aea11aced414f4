"""Top floor: the guest's disk image, built from the distribution's packages alone.

Owns: what goes into the image, the name it has in the cache (a hash of everything that
goes in), and the two steps that make it: a root tree by mmdebstrap, and an ext4 file
system around it by mke2fs.  Neither needs a loop device, a mount or more than an
ordinary user with subordinate ids.

Read: mmdebstrap(1), mke2fs(8) on -d, subuid(5).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from labkit.errors import LabError

SUITE = "trixie"
DISK = "8G"
KEPT = 2  # images of a kind in the cache
KERNELS = {"amd64": "linux-image-amd64", "arm64": "linux-image-arm64"}

# What a machine needs to boot and to be reached; the rest is vagrant/packages.txt.
BOOT = (
    *("systemd-sysv", "systemd-resolved", "dbus", "udev", "kmod", "initramfs-tools", "zstd"),
    *("openssh-server", "libpam-systemd", "netbase"),
)
# Everything that virtio machines of QEMU boot from; the initial disk stays small and quick.
INITRAMFS_MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "virtio_rng",
    "ext4",
    "9pnet_virtio",
    "9p",
)
INITRAMFS_CONF = "MODULES=list\\nCOMPRESS=zstd\\n"

LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")

Say = Callable[[str], None]


class Image(NamedTuple):
    """A finished image: a raw ext4 disk, and the kernel that boots it directly."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The file system, sparse; backing file of every machine, written by none."""
        return self.folder / "root.img"

    @property
    def kernel(self) -> Path:
        """The distribution's kernel."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Its initial RAM disk."""
        return self.folder / "initrd.img"

    def size(self) -> int:
        """Bytes on this host's disk, all three together."""
        return sum(_sizes(self).values())


def cache() -> Path:
    """Where images are kept: $LABKIT_CACHE, or labkit in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LABKIT_CACHE") or Path(base) / "labkit")


def inputs(tree: Path, variant: str) -> list[Path]:
    """The files of the project that go into the image."""
    without = {"README.md"} if variant == "test" else {"README.md", "packages-test.txt"}
    found = [path for path in (tree / "vagrant").iterdir() if path.is_file() and path.name not in without]
    found += (tree / "vagrant" / "settings").iterdir()
    found += (tree / "labkit" / "image").glob("*.py")
    return sorted([*found, tree / "labkit" / "lab" / "image_build.py"])


def certificates() -> Path | None:
    """The folder of certificates that this machine trusts beside the distribution's; None if empty."""
    folder = Path(os.environ.get("LAB_CA", "/usr/local/share/ca-certificates"))
    return folder if folder.is_dir() and any(folder.glob("*.crt")) else None


def fingerprint(tree: Path, arch: str, variant: str) -> str:
    """The name of the image in the cache: it changes when an input does, and only then."""
    digest = hashlib.sha256(f"{SUITE} {arch} {variant} {DISK}".encode())
    authorities = certificates()
    for path in [*inputs(tree, variant), *(sorted(authorities.glob("*.crt")) if authorities else [])]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def cached(tree: Path, *, arch: str, variant: str) -> bool:
    """Whether the image of this tree is there already."""
    return (_folder(tree, arch, variant) / "meta.json").exists()


def _folder(tree: Path, arch: str, variant: str) -> Path:
    return cache() / f"{arch}-{variant}-{fingerprint(tree, arch, variant)}"


def build(tree: Path, *, arch: str = "amd64", variant: str = "learner", say: Say = print) -> Image:
    """The image of this tree: from the cache, or built now (minutes).  Raises LabError.

    variant -- learner, or test: the same with the peers of vagrant/packages-test.txt.
    """
    folder = _folder(tree, arch, variant)
    cache().mkdir(parents=True, exist_ok=True)
    # A second builder of the same image waits here and finds it.
    with (cache() / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "meta.json").exists():
            _build(tree, folder, arch, variant, say)
    os.utime(folder)
    _sweep(folder, f"{arch}-{variant}-")
    return Image(folder)


def _build(tree: Path, folder: Path, arch: str, variant: str, say: Say) -> None:
    draft = folder.with_suffix(f".{os.getpid()}")
    draft.mkdir()
    try:
        began = time.monotonic()
        _root_tree(tree, draft, arch, variant, say)
        _disk(draft, say)
        meta = {"arch": arch, "variant": variant, "seconds": round(time.monotonic() - began), **_sizes(Image(draft))}
        (draft / "meta.json").write_text(json.dumps(meta, indent=1))
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sweep(newest: Path, kind: str) -> None:
    """Keep the last KEPT images of a kind (a branch and its parent alternate), and those that a lab's disk lies on."""
    for draft in cache().glob(f"{kind}*.[0-9]*"):
        if not Path("/proc", draft.suffix[1:]).exists():  # its builder was killed
            shutil.rmtree(draft, ignore_errors=True)
    images = [path for path in cache().glob(f"{kind}*") if path.is_dir() and not path.suffix]
    for old in sorted(images, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        if old != newest and not any(old.glob("*.in-use")):
            shutil.rmtree(old, ignore_errors=True)


def _sizes(image: Image) -> dict[str, int]:
    return {path.name: path.stat().st_blocks * 512 for path in (image.disk, image.kernel, image.initrd)}


def _root_tree(tree: Path, draft: Path, arch: str, variant: str, say: Say) -> None:
    names = [*BOOT, KERNELS[arch], *_packages(tree / "vagrant" / "packages.txt")]
    if variant == "test":
        names += _packages(tree / "vagrant" / "packages-test.txt")
    modules = "".join(f"{name}\\n" for name in INITRAMFS_MODULES)
    # copy-in reads as this user; a hook of an ordinary user's runs as a subordinate one, who
    # may not even enter the home in which the checkout lies.
    bring = ['--customize-hook=mkdir -p "$1/tmp/lab/ca"']
    for source in (tree / "vagrant", tree / "labkit"):
        bring.append(f"--customize-hook=copy-in {shlex.quote(str(source))} /tmp/lab")
    for authority in sorted(authorities.glob("*.crt")) if (authorities := certificates()) else []:
        bring.append(f"--customize-hook=copy-in {shlex.quote(str(authority))} /tmp/lab/ca")
    command = ["mmdebstrap", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}", "--variant=minbase"]
    command += [f"--architectures={arch}", f"--include={','.join(names)}", '--aptopt=APT::Install-Recommends "false"']
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    command += [
        '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"; '
        f'printf "{INITRAMFS_CONF}" > "$1/etc/initramfs-tools/conf.d/lab"; '
        f'printf "{modules}" > "$1/etc/initramfs-tools/modules"',
        *bring,
        '--customize-hook=sh "$1/tmp/lab/vagrant/bake.sh" "$1"',
        f"--customize-hook=download /vmlinuz {shlex.quote(f'{draft}/vmlinuz')}",
        f"--customize-hook=download /initrd.img {shlex.quote(f'{draft}/initrd.img')}",
        *(SUITE, str(draft / "root.tar")),
    ]
    sources = apt_sources()
    if sources:
        command.append("-")
    began = time.monotonic()
    log = draft.with_suffix(".log")
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(sources)
        child.stdin.close()
        for line in child.stdout:
            output.write(line)
            output.flush()
            if (word := _milestone(line)) is not None:
                say(f"{time.monotonic() - began:4.0f} s  {word}")
    if child.returncode:
        tail = "\n        ".join(log.read_text().splitlines()[-15:])
        raise LabError("cannot build the guest's root tree", why=f"mmdebstrap said:\n        {tail}", next=f"see {log}")
    log.unlink()


def _milestone(line: str) -> str | None:
    """A line of mmdebstrap's or of provision.sh's that a waiting person wants to see."""
    if line.startswith("I: ") and ("extracting" in line or "installing" in line or "download" in line):
        return line[3:].strip()
    if len(line) > 10 and line[2] == ":" and line[5] == ":" and line[8:10] == "  ":
        return f"provision: {line[10:].strip()}"
    return None


def _disk(draft: Path, say: Say) -> None:
    """An ext4 file system around the tree; fakeroot keeps the owners for an ordinary user too."""
    began = time.monotonic()
    script = (
        'mkdir tree && tar -C tree --numeric-owner --exclude="./dev/*" -xf root.tar && '
        f"mke2fs -q -t ext4 -L root -O ^orphan_file,^metadata_csum_seed -E root_owner=0:0,lazy_itable_init=1,"
        f"lazy_journal_init=1,nodiscard -d tree root.img {DISK} || "
        f"mke2fs -q -F -t ext4 -L root -d tree root.img {DISK}"
    )
    done = subprocess.run(["fakeroot", "sh", "-c", script], cwd=draft, capture_output=True, text=True)
    if done.returncode:
        raise LabError("cannot make the guest's disk", why=done.stderr.strip()[-500:])
    shutil.rmtree(draft / "tree", ignore_errors=True)
    (draft / "root.tar").unlink()
    say(f"{time.monotonic() - began:4.0f} s  file system of {DISK}")


def _packages(file: Path) -> list[str]:
    return [line for line in file.read_text().split("\n") if line and not line.startswith("#")]


def apt_sources() -> str:
    """sources.list of the guest, at the archive that this machine itself uses.

    Empty on a machine that is no Debian: then mmdebstrap knows where Debian's archive is.
    """
    found: dict[str, str] = {}
    form = "$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    try:
        targets = subprocess.run(["apt-get", "indextargets", "--format", form], capture_output=True, text=True).stdout
        release = dict(line.partition("=")[::2] for line in Path("/etc/os-release").read_text().splitlines())
    except OSError:
        targets, release = "", {}
    codename = release.get("VERSION_CODENAME", "").strip('"')
    if release.get("ID") == "debian":
        for line in targets.splitlines():
            kind, uri, suite, component = line.split("|")
            if kind == "Packages" and component == "main":
                found.setdefault(suite.removeprefix(codename), uri)
    return "".join(
        f"deb {found[suite]} {SUITE}{suite} main\n" for suite in ("", "-updates", "-security") if suite in found
    )
