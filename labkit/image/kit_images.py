"""Floor 2: the small images of the kit: busybox, and nginx with its libraries.

Owns: which packages make which of their layers, and the files that every root has.

Read: busybox(1), nginx(8); the OCI image specification, config.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from labkit.image import tarball
from labkit.image.kit_layout import PATH, layout, write
from labkit.image.kit_packages import MERGED, fetch, library_closure, package_entries, package_time, version
from labkit.image.tarball import Entry, Layer

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


def busybox(output: Path, work: Path) -> None:
    """A shell and the usual tools in one program, no library: one layer."""
    said, layer = busybox_layer(work)
    package = fetch("busybox-static", work)
    write(output, version(package), [(said, layer)], {"Env": [PATH], "Cmd": ["sh"]}, package_time(package))


def busybox_layer(work: Path) -> tuple[str, Layer]:
    """The one layer of busybox, and what the history says of it: other images stand on it."""
    package = fetch("busybox-static", work)
    entries = {**base_entries(), **package_entries(package)}
    program = next(entry for path, entry in entries.items() if path.endswith("bin/busybox"))
    del entries[program.header.name]
    entries["usr/bin/busybox"] = tarball.file("usr/bin/busybox", program.data, 0o755)
    for applet in applets(program.data, work):
        entries.setdefault(f"usr/bin/{applet}", tarball.symlink(f"usr/bin/{applet}", "busybox"))
    said = "busybox-static from the distribution, and a link for each of its tools"
    return said, tarball.layer(list(entries.values()), package_time(package))


def nginx(output: Path, work: Path) -> None:
    """The real nginx in three layers: libraries, nginx, and how it is set up."""
    program, common = fetch("nginx", work), fetch("nginx-common", work)
    libraries: dict[str, Entry] = {}
    for package in library_closure([program], work):
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
            "Env": [PATH],
            "Cmd": ["nginx", "-g", "daemon off;"],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        },
        package_time(program),
    )


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
