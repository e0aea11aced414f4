"""Top floor: a Vagrant box for libvirt and QEMU with everything baked in (`make box`).

Owns: what a box has that the image of `make lab` has not: a boot loader, the user
`vagrant` with Vagrant's well-known insecure key (which Vagrant replaces at the first
start), and the three files that make a box.  The image itself is image_build's; it is
changed with debugfs, so that an ordinary user can build the box without a mount.

Read: https://developer.hashicorp.com/vagrant/docs/boxes/format, debugfs(8),
grub-mkimage(1), sfdisk(8).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path

from labkit.errors import LabError
from labkit.lab import image_build

NAME = "labkit/lab"
MIB = 1 << 20
USER = 1000  # id of vagrant, as in every public box

TOOLS = {
    "debugfs": "e2fsprogs",
    "sfdisk": "fdisk",
    "qemu-img": "qemu-utils",
    "grub-mkimage": "grub-common",
}
GRUB = Path("/usr/lib/grub/i386-pc")  # package grub-pc-bin
KEYS = (  # where packages of Vagrant keep its public key
    "/usr/share/rubygems-integration/all/gems/vagrant-*/keys/vagrant.pub",
    "/opt/vagrant/embedded/gems/gems/vagrant-*/keys/vagrant.pub",
    "/opt/vagrant/embedded/gems/*/gems/vagrant-*/keys/vagrant.pub",
)

GRUB_CFG = """\
set root=(hd0,msdos1)
linux /vmlinuz root=LABEL=root ro console=ttyS0 net.ifnames=0 quiet
initrd /initrd.img
boot
"""

# Lines to add to the accounts' files: passwd(5), group(5), shadow(5).
ACCOUNT = {
    "/etc/passwd": f"vagrant:x:{USER}:{USER}::/home/vagrant:/bin/bash\n",
    "/etc/group": f"vagrant:x:{USER}:\n",
    "/etc/shadow": "vagrant:*:20000:0:99999:7:::\n",
    "/etc/gshadow": "vagrant:!::\n",
}


def build(tree: Path, folder: Path, *, version: str = "") -> Path:
    """Make the box and its catalogue in `folder`; return the catalogue (labkit-lab.json).

    Raises LabError where a tool is missing; nothing half-made is left.
    """
    _need_tools()
    key = _insecure_key()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:4.0f} s  {text}", flush=True)

    image = image_build.build(tree)
    # Vagrant compares versions number by number; an unversioned box would leave its old disk behind.
    version = version or time.strftime("%Y%m%d.%H%M%S.0", time.gmtime())
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        say(f"image {image.folder.name}")
        root = draft / "root.img"
        # --sparse: 8 GiB of which one is used.
        subprocess.run(["cp", "--reflink=auto", "--sparse=always", image.disk, root], check=True)
        _add_user(root, key, draft)
        say("user vagrant")
        _disk(root, draft)
        say("boot loader and disk")
        box = folder / f"labkit-lab-{version}-libvirt-amd64.box"
        _pack(tree, draft, box)
        say(f"{box.name}: {box.stat().st_size / 1e6:.0f} MB")
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    catalogue = folder / "labkit-lab.json"
    provider = {"name": "libvirt", "url": box.name}
    catalogue.write_text(
        json.dumps({"name": NAME, "versions": [{"version": version, "providers": [provider]}]}, indent=1) + "\n"
    )
    return catalogue


def _need_tools() -> None:
    missing = [package for tool, package in TOOLS.items() if _which(tool) is None]
    missing += [] if (GRUB / "boot.img").exists() else ["grub-pc-bin"]
    if missing:
        raise LabError(
            "cannot build the box",
            why=f"missing here: {', '.join(missing)}",
            next=f"apt-get install {' '.join(missing)}",
        )


def _which(tool: str) -> str | None:
    # An ordinary user's PATH often lacks the administrator's folders.
    return shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")


def _tool(name: str) -> str:
    return _which(name) or name


def _insecure_key() -> Path:
    for pattern in KEYS:
        for path in Path("/").glob(pattern.lstrip("/")):
            return path
    raise LabError(
        "cannot build the box",
        why="Vagrant's insecure public key is part of Vagrant, and Vagrant is not installed here",
        next="apt-get install vagrant",
    )


def _add_user(root: Path, key: Path, draft: Path) -> None:
    """Account, sudo without a password and the key, written into the file system with debugfs."""
    commands: list[str] = []

    def put(path: str, content: bytes, mode: int, owner: int) -> None:
        local = draft / f"put{len(commands)}"
        local.write_bytes(content)
        commands.extend([f"rm {path}", f"write {local} {path}", *_owned(path, 0o100000 | mode, owner)])

    for path, line in ACCOUNT.items():
        content = subprocess.run(
            [_tool("debugfs"), "-R", f"cat {path}", root], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ).stdout
        put(path, content + line.encode(), 0o640 if "shadow" in path else 0o644, 0)
        if "shadow" in path:
            commands.append(f"sif {path} gid 42")  # shadow, the same in every Debian
    put("/etc/sudoers.d/vagrant", b"vagrant ALL=(ALL) NOPASSWD:ALL\n", 0o440, 0)
    for path in ("/home/vagrant", "/home/vagrant/.ssh"):
        commands.extend([f"mkdir {path}", *_owned(path, 0o040700, USER)])
    put("/home/vagrant/.ssh/authorized_keys", key.read_bytes(), 0o600, USER)
    script = draft / "debugfs.cmd"
    script.write_text("\n".join(commands) + "\n")
    subprocess.run([_tool("debugfs"), "-w", "-f", script, root], check=True, capture_output=True)
    # debugfs goes on after an error: look whether the last file is there.
    seen = subprocess.run(
        [_tool("debugfs"), "-R", "stat /home/vagrant/.ssh/authorized_keys", root], capture_output=True, text=True
    ).stdout
    if f"User:  {USER}" not in seen:
        raise LabError("cannot add the user vagrant to the box", why=f"debugfs answered: {seen.strip()[:300]}")


def _owned(path: str, mode: int, owner: int) -> Iterable[str]:
    return (f"sif {path} mode 0{mode:o}", f"sif {path} uid {owner}", f"sif {path} gid {owner}")


def _disk(root: Path, draft: Path) -> None:
    """A disk with one partition and GRUB in the gap before it; box.img, compressed."""
    disk = draft / "disk.raw"
    size = root.stat().st_size + MIB
    with disk.open("wb") as file:
        file.truncate(size)
    subprocess.run([_tool("sfdisk"), "-q", disk], input="2048,,L,*\n", text=True, check=True, stdout=subprocess.DEVNULL)
    (draft / "grub.cfg").write_text(GRUB_CFG)
    modules = ["biosdisk", "part_msdos", "ext2", "linux", "normal", "boot"]
    core = draft / "core.img"
    subprocess.run(
        [_tool("grub-mkimage"), "-O", "i386-pc", "-c", draft / "grub.cfg", "-p", "/", "-o", core, *modules], check=True
    )
    with disk.open("r+b") as file:
        file.write((GRUB / "boot.img").read_bytes()[:440])  # the rest of the sector is the partition table
        file.seek(512)
        file.write(core.read_bytes())
    conv = ["conv=notrunc,sparse", "status=none"]
    subprocess.run(["dd", f"if={root}", f"of={disk}", "bs=1M", "seek=1", *conv], check=True)
    root.unlink()
    compressed = ["-c", "-m", "4", "-W", "-O", "qcow2", "-o", "compression_type=zstd"]
    box = draft / "box.img"
    subprocess.run([_tool("qemu-img"), "convert", *compressed, "-f", "raw", disk, box], check=True)
    disk.unlink()


def _pack(tree: Path, draft: Path, box: Path) -> None:
    gigabytes = -(-(8 * 1024 * MIB + MIB) // (1024 * MIB))
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": gigabytes, "architecture": "amd64"}
    (draft / "metadata.json").write_text(json.dumps(metadata) + "\n")
    shutil.copy(tree / "vagrant" / "box" / "Vagrantfile", draft / "Vagrantfile")
    part = box.with_suffix(".part")
    with tarfile.open(part, "w") as archive:  # the disk is compressed already
        for name in ("metadata.json", "Vagrantfile", "box.img"):
            archive.add(draft / name, arcname=name)
    part.rename(box)


def main(argv: list[str]) -> int:
    """`make box`: build into the folder named, or .lab/box; print how to use it."""
    tree = Path(__file__).resolve().parents[2]
    folder = Path(argv[0]) if argv else tree / ".lab" / "box"
    try:
        catalogue = build(tree, folder)
    except LabError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"\nUse it:  cd {folder} && vagrant box add {catalogue.name}")
    print(f"then:    LAB_BOX={NAME} vagrant up      (README: providers)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
