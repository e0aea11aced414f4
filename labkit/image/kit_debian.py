"""Floor 2: a small Debian, and a root for one static program ("distroless").

Owns: which packages make them; and what the packages' own scripts would have made, since
none is run: users, shadow, the links of alternatives, the list of certificates, dpkg's database.

Not in the small Debian: apt, and what apt needs (9 MB).  The lab has no network for it to fetch
from.  dpkg is there, and its database says which package each file came from.

Read: dpkg(1), passwd(5), shadow(5), update-ca-certificates(8), ld.so(8).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from labkit.image import tarball
from labkit.image.kit_images import base_entries
from labkit.image.kit_layout import PATH, layout
from labkit.image.kit_packages import (
    control,
    fetch,
    fetch_all,
    library_closure,
    newest,
    package_entries,
    package_time,
    version,
)
from labkit.image.tarball import Entry

PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "dpkg", "findutils"),
    *("grep", "gzip", "hostname", "init-system-helpers", "libc-bin", "login", "mawk", "mount", "ncurses-base"),
    *("passwd", "procps", "sed", "tar", "util-linux"),
)
# What the scripts of the packages link: update-alternatives(1), and /bin/sh.
LINKS = {"usr/bin/awk": "mawk", "usr/bin/sh": "dash", "usr/bin/which": "which.debianutils"}
# What a package keeps as a model in usr/share, and its script copies.
MODELS = {
    "etc/nsswitch.conf": "libc-bin/nsswitch.conf",
    "etc/profile": "base-files/profile",
    "root/.bashrc": "base-files/dot.bashrc",
    "root/.profile": "base-files/dot.profile",
}
SHELLS = "/bin/sh\n/usr/bin/sh\n/bin/bash\n/usr/bin/bash\n/bin/dash\n/usr/bin/dash\n"

NONROOT = 65532  # as Google's distroless images number it
HOME = "home/nonroot"
STATIC_PASSWD = f"""\
root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
nonroot:x:{NONROOT}:{NONROOT}:nonroot:/{HOME}:/sbin/nologin
"""
STATIC_GROUP = f"root:x:0:\nnobody:x:65534:\ntty:x:5:\nstaff:x:50:\nnonroot:x:{NONROOT}:\n"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


def debian(output: Path, work: Path) -> None:
    """A shell, coreutils, sed, grep, awk, find, tar, ps, mount, useradd and dpkg, as the distribution has them."""
    packages = fetch_all(PACKAGES, work)
    packages += [each for each in library_closure(packages, work) if each not in packages]
    contents = {package: package_entries(package) for package in packages}
    when = max(newest(content) for content in contents.values())
    entries = base_entries()
    for content in contents.values():
        entries.update(content)
    users = {
        "passwd": entries["usr/share/base-passwd/passwd.master"],
        "group": entries["usr/share/base-passwd/group.master"],
    }
    made = [
        *(tarball.symlink(path, target) for path, target in LINKS.items()),
        *(tarball.file(path, entries[f"usr/share/{model}"].data) for path, model in MODELS.items()),
        *(tarball.file(f"etc/{name}", _shadowed(model.data)) for name, model in users.items()),
        _owned(tarball.file("etc/shadow", _locked(users["passwd"].data, "::0:99999:7:::"), 0o640), 0, 42),
        _owned(tarball.file("etc/gshadow", _locked(users["group"].data, "::"), 0o640), 0, 42),
        tarball.file("etc/shells", SHELLS),
    ]
    entries.update({entry.header.name: entry for entry in made})
    entries.update(database(contents, entries))
    tag = version(fetch("base-files", work)).partition(".")[0]
    said = "the packages of a small system from the distribution, unpacked"
    layout(output, tag, [(said, list(entries.values()))], {"Env": [PATH], "Cmd": ["bash"]}, when)


def static(output: Path, work: Path) -> None:
    """What a static program may look for: users, /tmp, time zones, certificates.  No shell, no library."""
    _static(output, work, {})


def static_nonroot(output: Path, work: Path) -> None:
    """The same, with an ordinary user as the one whose programs run."""
    _static(output, work, {"User": str(NONROOT), "WorkingDir": f"/{HOME}"})


def _static(output: Path, work: Path, config: dict[str, Any]) -> None:
    base, zones, authorities = packages = fetch_all(("base-files", "tzdata", "ca-certificates"), work)
    release = package_entries(base)
    entries = {path: entry for path, entry in base_entries().items() if not entry.header.linkname and "bin" not in path}
    entries.update(
        (path, entry)
        for path, entry in package_entries(zones).items()
        if re.match(r"usr/(share(/zoneinfo(?!/(right|posix)).*)?)?$", path)
    )
    bundle = b"".join(
        entry.data for path, entry in sorted(package_entries(authorities).items()) if path.endswith(".crt")
    )
    made = [
        *(tarball.folder(path) for path in ("etc/ssl", "etc/ssl/certs", "home", "var/lib", "var/lib/dpkg")),
        tarball.folder("var/lib/dpkg/status.d"),
        _owned(tarball.folder(HOME, 0o700), NONROOT, NONROOT),
        tarball.folder("var/tmp", 0o1777),
        *(release[path] for path in ("usr/lib/os-release", "etc/os-release", "etc/debian_version")),
        tarball.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        tarball.file("etc/passwd", STATIC_PASSWD),
        tarball.file("etc/group", STATIC_GROUP),
        tarball.file(CERTIFICATES, bundle),
        *(tarball.file(f"var/lib/dpkg/status.d/{control(each, 'Package')}", control(each) + "\n") for each in packages),
    ]
    entries.update({entry.header.name: entry for entry in made})
    layout(
        output,
        version(base).partition(".")[0],
        [("users, time zones and certificates from the distribution; no shell, no library", list(entries.values()))],
        {"Env": [PATH, f"SSL_CERT_FILE=/{CERTIFICATES}"], "WorkingDir": "/", **config},
        max(package_time(package) for package in packages),
    )


def database(contents: dict[Path, dict[str, Entry]], entries: dict[str, Entry]) -> dict[str, Entry]:
    """dpkg's database of these packages: what it knows of them, and which of the files here is whose."""
    status, info = [], {}
    for package, content in sorted(contents.items()):
        text = control(package)
        status.append(text.replace("\n", "\nStatus: install ok installed\n", 1) + "\n")
        name = control(package, "Package")
        if "\nMulti-Arch: same" in text:
            name += ":" + control(package, "Architecture")
        paths = ["/.", *(f"/{path}" for path in content if path in entries)]
        info[f"var/lib/dpkg/info/{name}.list"] = "\n".join(paths) + "\n"
    texts = {"var/lib/dpkg/status": "\n".join(status), "var/lib/dpkg/info/format": "1\n", **info}
    return {path: tarball.file(path, text) for path, text in texts.items()}


def _owned(entry: Entry, user: int, group: int) -> Entry:
    entry.header.uid, entry.header.gid = user, group
    return entry


def _shadowed(model: bytes) -> str:
    """A list of users or groups that says that the passwords are elsewhere."""
    return re.sub(r"(?m)^([^:]+):\*:", r"\1:x:", model.decode())


def _locked(model: bytes, rest: str) -> str:
    """That elsewhere: nobody has a password."""
    return "".join(f"{line.partition(':')[0]}:*:{rest.removeprefix(':')}\n" for line in model.decode().splitlines())
