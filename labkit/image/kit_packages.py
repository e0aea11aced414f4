"""Floor 2: packages of the distribution, fetched by apt and read as archives; none is installed.

Owns: how a package becomes the entries of a layer.  Root is not needed, and the machine's own
list of packages is neither read nor changed.

Read: deb(5), deb-control(5), apt-get(8) on download.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from labkit.errors import LabError
from labkit.image.tarball import Entry

MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")  # folders that are links into /usr
UNWANTED = re.compile(r"usr/(share/(doc|man|locale|info|lintian|bash-completion|gcc)|lib/[^/]+/gconv)(/|$)")


def fetch(name: str, work: Path) -> Path:
    """Download a package into `work`; apt's own files are not touched.  Raises LabError."""
    return fetch_all([name], work)[0]


def fetch_all(names: Iterable[str], work: Path) -> list[Path]:
    """Download packages into `work`, those that are there already left as they are.

    Raises LabError with apt's words.  One call for many: apt reads its lists once.
    """
    names = list(names)
    if missing := [name for name in names if not _found(name, work)]:
        user = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        done = subprocess.run(
            ["apt-get", "-q", "-q", *user, "download", *missing], cwd=work, capture_output=True, text=True
        )
        if done.returncode:
            packages = f"package{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
            raise LabError(f"cannot download the {packages}", why=done.stderr.strip(), next="apt-get update")
    return [_found(name, work)[0] for name in names]


def _found(name: str, work: Path) -> list[Path]:
    return list(work.glob(f"{name}_*.deb"))


def control(package: Path, *names: str) -> str:
    """The package's control file; with a name, that field alone (empty when it is not there)."""
    done = subprocess.run(["dpkg-deb", "-f", str(package), *names], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def version(package: Path) -> str:
    """The program's own version, without the distribution's epoch and revision."""
    match = re.match(r"(?:\d+:)?([0-9.]+)", control(package, "Version"))
    return match[1].rstrip(".") if match else "0"


def package_time(package: Path) -> int:
    """When the package was made, seconds since 1970: the newest file in it."""
    return newest(package_entries(package))


def newest(entries: dict[str, Entry]) -> int:
    """The time of the newest of these files, seconds since 1970."""
    return int(max(entry.header.mtime for entry in entries.values()))


def needed(package: Path) -> list[str]:
    """The packages that this one depends on; of alternatives the first."""
    fields = [control(package, "Pre-Depends"), control(package, "Depends")]
    wanted = [each.strip() for field in fields for each in field.split(",") if each.strip()]
    return [re.split(r"[ (:|]", each)[0] for each in wanted]


def library_closure(packages: Iterable[Path], work: Path) -> list[Path]:
    """The library packages that `packages` need, and those that these need, by name."""
    found: dict[str, Path] = {}
    todo = list(packages)
    while todo:
        wanted = {name for package in todo for name in needed(package) if re.match(r"lib|zlib", name)}
        names = sorted(wanted - {*found, *(package.name.partition("_")[0] for package in todo)})
        todo = fetch_all(names, work)
        found.update(zip(names, todo, strict=True))
    return [found[name] for name in sorted(found)]


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
