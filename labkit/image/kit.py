"""Floor 2: the lab's own images, made from the distribution's packages: no internet needed later.

    python -m labkit.image.kit build FOLDER     image layouts FOLDER/busybox, FOLDER/nginx
    python -m labkit.image.kit push FOLDER REGISTRY

Owns: which packages make which image and layer.  Packages are fetched by apt and read
as archives, never installed; root is not needed.

Read: deb(5), apt-get(8) on download; the OCI image specification, image-layout.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.image import crane, model, tarball
from labkit.image.tarball import Entry

MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")  # folders that are links into /usr
UNWANTED = re.compile(r"usr/(share/(doc|man|locale|info|lintian|bash-completion|gcc)|lib/[^/]+/gconv)(/|$)")
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/sbin/nologin
nobody:x:65534:65534:nobody:/:/sbin/nologin
"""
GROUP = "root:x:0:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n"

NGINX_CONF = """\
worker_processes 1;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    access_log /dev/stdout;
    server {
        listen 80;
        listen [::]:80;
        root /usr/share/nginx/html;
    }
}
"""
PAGE = """\
<!doctype html>
<meta charset="utf-8">
<title>nginx in a container made by hand</title>
<h1>It works, and you know why</h1>
<p>nginx {version} from Debian's package serves this page out of a container whose
namespaces, cgroup, layers and network were made by labkit.</p>
"""


def build(output: Path, names: list[str]) -> None:
    """Make the layouts. Raises LabError with apt's words when a package cannot be had."""
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            IMAGES[name](output / name, Path(work))
            print(f"{name}: {sum(f.stat().st_size for f in (output / name).rglob('*') if f.is_file()) / 1e6:.1f} MB")


def busybox(output: Path, work: Path) -> None:
    """A shell and the usual tools in one program, no library: one layer."""
    package = fetch("busybox-static", work)
    entries = {**base_entries(), **package_entries(package)}
    program = next(entry for path, entry in entries.items() if path.endswith("bin/busybox"))
    del entries[program.header.name]
    entries["usr/bin/busybox"] = tarball.file("usr/bin/busybox", program.data, 0o755)
    for applet in applets(program.data, work):
        entries.setdefault(f"usr/bin/{applet}", tarball.symlink(f"usr/bin/{applet}", "busybox"))
    when = package_time(package)
    layout(
        output,
        version(package),
        [("busybox-static from the distribution, and a link for each of its tools", list(entries.values()))],
        {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        when,
    )


def nginx(output: Path, work: Path) -> None:
    """The real nginx in three layers: libraries, nginx, and how it is set up."""
    program, common = fetch("nginx", work), fetch("nginx-common", work)
    libraries: dict[str, Entry] = {}
    for package in library_closure(program, work):
        libraries.update(package_entries(package))
    shell = fetch("busybox-static", work)
    shell_data = next(e.data for path, e in package_entries(shell).items() if path.endswith("bin/busybox"))
    libraries["usr/bin/busybox"] = tarball.file("usr/bin/busybox", shell_data, 0o755)
    for applet in ("sh", "cat", "ls", "ps", "id", "hostname", "ip", "wget", "grep", "sleep", "head", "dd", "mount"):
        libraries[f"usr/bin/{applet}"] = tarball.symlink(f"usr/bin/{applet}", "busybox")
    server = {**package_entries(common), **package_entries(program)}
    settings = [
        tarball.file("etc/nginx/nginx.conf", NGINX_CONF),
        tarball.file("usr/share/nginx/html/index.html", PAGE.format(version=version(program))),
        tarball.symlink("var/log/nginx/access.log", "/dev/stdout"),
        tarball.symlink("var/log/nginx/error.log", "/dev/stderr"),
        # The package's own site would listen too; a layer can only hide it.
        tarball.file("etc/nginx/.wh.sites-enabled", ""),
    ]
    layout(
        output,
        version(program),
        [
            ("libraries that nginx needs, and busybox as a shell", [*{**base_entries(), **libraries}.values()]),
            ("nginx and nginx-common from the distribution", [*server.values()]),
            ("nginx.conf, a page, logs to the standard streams", settings),
        ],
        {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["nginx", "-g", "daemon off;"],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        },
        package_time(program),
    )


IMAGES = {"busybox": busybox, "nginx": nginx}

# --- packages ----------------------------------------------------------------------------


def fetch(name: str, work: Path) -> Path:
    """Download a package into `work`; apt's own files are not touched."""
    if not (found := list(work.glob(f"{name}_*.deb"))):
        user = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        done = subprocess.run(
            ["apt-get", "-q", "-q", *user, "download", name], cwd=work, capture_output=True, text=True
        )
        if done.returncode:
            raise LabError(f"cannot download the package {name}", why=done.stderr.strip(), next="apt-get update")
        found = list(work.glob(f"{name}_*.deb"))
    return found[0]


def field(package: Path, name: str) -> str:
    """One field of the package's control file."""
    done = subprocess.run(["dpkg-deb", "-f", str(package), name], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def version(package: Path) -> str:
    """The program's own version, without the distribution's epoch and revision."""
    match = re.match(r"(?:\d+:)?([0-9.]+)", field(package, "Version"))
    return match[1].rstrip(".") if match else "0"


def package_time(package: Path) -> int:
    """When the package was made, seconds since 1970: the newest file in it."""
    return int(max(entry.header.mtime for entry in package_entries(package).values()))


def library_closure(package: Path, work: Path) -> list[Path]:
    """The library packages that `package` needs, and those that these need."""
    found: dict[str, Path] = {}
    todo = [package]
    while todo:
        depends = field(todo.pop(), "Depends")
        for alternatives in filter(None, depends.split(",")):
            name = re.split(r"[ (:|]", alternatives.strip())[0]
            if re.match(r"lib|zlib", name) and name not in found:
                found[name] = fetch(name, work)
                todo.append(found[name])
    return list(found.values())


def package_entries(package: Path) -> dict[str, Entry]:
    """The files of a package at their places in a merged /usr, documentation left out."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=True).stdout
    entries = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for header in archive:
            path = merged(header.name)
            if not path or UNWANTED.match(path) or path in MERGED:
                continue
            header.name = path
            if header.islnk():
                header.linkname = merged(header.linkname)
            data = archive.extractfile(header) if header.isreg() else None
            entries[path] = Entry(header, data.read() if data else b"")
    return entries


def merged(path: str) -> str:
    """./lib/x is usr/lib/x; the root itself is empty."""
    path = path.removeprefix("./").strip("/")
    first = path.partition("/")[0]
    return f"usr/{path}" if first in MERGED and path != first else path.removeprefix(".")


def base_entries() -> dict[str, Entry]:
    """What every root has: the links into /usr, the users, the empty folders."""
    entries = [tarball.folder("usr"), *(tarball.folder(f"usr/{name}") for name in MERGED)]
    entries += [tarball.symlink(name, f"usr/{name}") for name in MERGED]
    entries += [tarball.folder(name) for name in ("dev", "etc", "proc", "run", "sys", "var", "var/log")]
    entries += [tarball.folder("root", 0o700), tarball.folder("tmp", 0o1777)]
    entries += [tarball.file("etc/passwd", PASSWD), tarball.file("etc/group", GROUP)]
    return {entry.header.name: entry for entry in entries}


def applets(program: bytes, work: Path) -> list[str]:
    """The tools that this busybox has, told by itself."""
    copy = work / "busybox"
    copy.write_bytes(program)
    copy.chmod(0o755)
    names = subprocess.run([str(copy), "--list"], capture_output=True, text=True, check=True).stdout.split()
    return [name for name in names if name != "busybox"]


# --- layout ------------------------------------------------------------------------------


def layout(output: Path, tag: str, layers: list[tuple[str, list[Entry]]], config: dict[str, Any], when: int) -> None:
    """Write an OCI image layout of one image. The same packages give the same digests."""
    created = datetime.datetime.fromtimestamp(when, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    packed = [(said, tarball.layer(entries, when)) for said, entries in layers]
    document = {
        "architecture": model.host_platform().partition("/")[2],
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for _, layer in packed]},
        "history": [{"created": created, "created_by": f"labkit.image.kit: {said}"} for said, _ in packed],
    }
    config_blob = json.dumps(document, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": model.MANIFESTS[0],
        "config": describe(model.CONFIGS[0], config_blob),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar+gzip", layer.data) for _, layer in packed],
    }
    manifest_blob = json.dumps(manifest, sort_keys=True).encode()
    blobs = output / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for blob in (config_blob, manifest_blob, *(layer.data for _, layer in packed)):
        (blobs / tarball.sha256(blob).removeprefix("sha256:")).write_bytes(blob)
    entry = describe(model.MANIFESTS[0], manifest_blob)
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": model.INDEXES[0], "manifests": [entry]}
    (output / "index.json").write_text(json.dumps(index, indent=1))
    (output / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}\n')


def describe(media_type: str, data: bytes) -> dict[str, Any]:
    """The descriptor of a blob."""
    return {"mediaType": media_type, "digest": tarball.sha256(data), "size": len(data)}


def push(folder: Path, registry: str) -> None:
    """Push every layout below `folder` as REGISTRY/NAME:VERSION and :latest. Raises LabError."""
    for name in sorted(path.parent.name for path in folder.glob("*/index.json")):
        index = json.loads((folder / name / "index.json").read_text())
        tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        for each in (tag, "latest"):
            crane.push(folder / name, f"{registry}/{name}:{each}")


def main(argv: list[str]) -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m labkit.image.kit")
    verbs = parser.add_subparsers(dest="verb", required=True)
    builder = verbs.add_parser("build")
    builder.add_argument("folder", type=Path)
    builder.add_argument("names", nargs="*", default=list(IMAGES))
    pusher = verbs.add_parser("push")
    pusher.add_argument("folder", type=Path)
    pusher.add_argument("registry")
    given = parser.parse_args(argv)
    if given.verb == "build":
        build(given.folder, given.names)
    else:
        push(given.folder, given.registry)
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except LabError as problem:
        raise SystemExit(f"labkit.image.kit: {problem}") from None
