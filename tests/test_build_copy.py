"""Do COPY, ADD and WORKDIR put into an image what Docker puts there, and nothing outside of it?"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from build_ground import BASE, Content, Ground
from image.making import archive, entry, folder, symlink
from runtime_ground import in_a_machine

pytest_plugins = ["runtime_machine", "build_machine"]
pytestmark = in_a_machine
SCRATCH = "FROM scratch\n"


def test_the_content_of_a_folder_lands_in_another(ground: Ground, tmp_path: Path) -> None:
    """Modes, links and hard links as they are, owners root; an empty folder too."""
    files: dict[str, Content] = {"d/a": ("a", 0o640), "d/e": None, "d/l": ("-> a", 0), "d/s/t": "t"}
    ground.build(SCRATCH, files)
    os.link(ground.folder / "d/a", ground.folder / "d/b")
    (ground.folder / "d/e").chmod(0o2710)
    os.chown(ground.folder / "d/a", 33, 33)
    os.setxattr(ground.folder / "d/s/t", "user.kept", b"x")
    ground.built(SCRATCH + "COPY d /to")
    found = ground.files(tmp_path / "root")
    assert {name: looks[:3] for name, looks in found.items()} == {
        "to": ("0o40755", 0, 0),
        "to/a": ("0o100640", 0, 0),
        "to/b": ("0o100640", 0, 0),
        "to/e": ("0o42710", 0, 0),
        "to/l": ("0o120777", 0, 0),
        "to/s": ("0o40755", 0, 0),
        "to/s/t": ("0o100644", 0, 0),
    }
    assert found["to/a"][4] == found["to/b"][4] and found["to/s/t"][5] == [("user.kept", b"x")]


def test_a_stage_keeps_its_owners(ground: Ground, tmp_path: Path) -> None:
    """COPY --from leaves owner, mode and attributes as they are, unless --chown says otherwise."""
    dockerfile = BASE + "RUN echo x > /x && chown 5:6 /x && chmod 4711 /x\n" + SCRATCH
    ground.built(dockerfile + "COPY --from=0 /x /kept\nCOPY --from=0 --chown=7:8 /x /given\n", {})
    found = ground.files(tmp_path / "root")
    assert (found["kept"][:3], found["given"][:3]) == (("0o104711", 5, 6), ("0o104711", 7, 8))


def test_an_image_can_be_copied_from(ground: Ground, tmp_path: Path) -> None:
    """COPY --from=IMAGE, which is no stage."""
    ground.built(SCRATCH + f"COPY --from={BASE.split()[1]} /bin/busybox /b\n", {})
    assert set(ground.files(tmp_path / "root")) == {"b"}


def test_nothing_leads_out_of_the_image(ground: Ground, tmp_path: Path) -> None:
    """A destination through links that lead outside of the root lands inside of it; the machine is not touched."""
    target = tmp_path / "outside"
    target.mkdir()
    links = f"RUN ln -s {target} /abs && ln -s ../../../../../..{target} /up && mkdir -p {target}\n"
    ground.built(BASE + links + "COPY f /abs/one\nCOPY f /up/two\nCOPY f ../../../three\n", {"f": "f"})
    found = ground.files(tmp_path / "root")
    inside = str(target).lstrip("/")
    assert {f"{inside}/one", f"{inside}/two", "three"} <= set(found) and not list(target.iterdir())


def test_nothing_leads_out_of_the_context(ground: Ground, tmp_path: Path) -> None:
    """Neither .. nor a link of the context's reaches a file of the machine."""
    (tmp_path / "secret").write_text("s")
    for name, source in (("up", "../secret"), ("abs", str(tmp_path / "secret")), ("way", "way/secret")):
        done = ground.build(BASE + f"COPY {source} /x\n", {"way": (f"-> {tmp_path}", 0)})
        assert done.returncode == 1, name
        assert f"Dockerfile:2: there is no '{source}' to copy" in done.stderr
    # A link within a folder is copied as the link that it is.
    ground.built(SCRATCH + "COPY d /d\n", {"d/l": (f"-> {tmp_path}/secret", 0)})
    assert ground.files(tmp_path / "root")["d/l"][3] == f"{tmp_path}/secret"


def test_a_source_is_what_docker_takes_for_one(ground: Ground, tmp_path: Path) -> None:
    """Patterns in names and folders, a link at the top, names with spaces in JSON, an escaped pattern."""
    files: dict[str, Content] = {"a1": "1", "a2": "2", "x/f.c": "", "y/f.c": "y", "a b": "sp", "[z]": "z",
                                 "l": ("-> a1", 0)}  # fmt: skip
    text = 'COPY a? /p/\nCOPY */f.c /q/\nCOPY l /followed\nCOPY ["a b", "/json name"]\nCOPY [[]z] /br\n'
    ground.built(SCRATCH + text, files)
    found = ground.files(tmp_path / "root")
    assert set(found) == {"p", "p/a1", "p/a2", "q", "q/f.c", "followed", "json name", "br"}
    assert (tmp_path / "root/followed").read_text() == "1" and not (tmp_path / "root/followed").is_symlink()


def test_what_is_left_out_stays_out(ground: Ground, tmp_path: Path) -> None:
    """.dockerignore, DOCKERFILE.dockerignore instead of it, and --exclude."""
    files: dict[str, Content] = {"a.o": "", "b.c": "", "d/e.o": "", "d/f.c": "", "d/k.o": "",
                                 ".dockerignore": "**/*.o\n!d/k.o\nDockerfile*\n.dockerignore\n"}  # fmt: skip
    ground.built(SCRATCH + "COPY . /\n", files)
    assert set(ground.files(tmp_path / "one")) == {"b.c", "d", "d/f.c", "d/k.o"}
    ground.built(SCRATCH + "COPY --exclude=f.c --exclude=*.o d /\n")
    assert ground.files(tmp_path / "two") == {}
    (ground.folder / "Dockerfile.dockerignore").write_text("*\n!a.o\n")
    ground.built(SCRATCH + "COPY . /\n")
    assert set(ground.files(tmp_path / "three")) == {"a.o"}
    done = ground.build(SCRATCH + "COPY b.c /\n")
    assert done.returncode == 1 and ".dockerignore leaves it out" in done.stderr


def test_files_out_of_the_dockerfile(ground: Ground, tmp_path: Path) -> None:
    """COPY <<NAME: variables replaced, or not for a quoted name; several into a folder; owner and mode."""
    text = "ARG V=v\nCOPY --chmod=750 --chown=3:4 <<A <<-'B' f /d/\n$V ${V:-x} \\$V \"q\"\nA\n\t\t$V\nB\n"
    text += "COPY <<C /c\n\nC\n"
    ground.built(SCRATCH + text, {"f": "f"})
    found = ground.files(tmp_path / "root")
    assert (tmp_path / "root/d/A").read_text() == 'v v $V "q"\n' and (tmp_path / "root/d/B").read_text() == "$V\n"
    assert (tmp_path / "root/c").read_text() == "\n" and found["d/A"][:3] == ("0o100750", 3, 4)
    assert found["c"][:3] == ("0o100644", 0, 0) and "d/f" in found


@pytest.mark.parametrize("how", ["tar", "gz", "bz2", "xz", "zstd"])
def test_add_unpacks_an_archive(how: str, ground: Ground, tmp_path: Path) -> None:
    """By its bytes, not its name; with the owners and modes of the archive."""
    plain = archive(folder("d", mode=0o711, uid=4), entry("d/f", data=b"f", mode=0o600, uid=1, gid=2),
                    symlink("abs", "/etc"))  # fmt: skip
    pack = {"tar": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zstd": _zstd}
    ground.built(SCRATCH + "ADD data /to\nCOPY data /copied\n", {"data": pack[how](plain)})
    found = ground.files(tmp_path / "root")
    assert set(found) == {"to", "to/d", "to/d/f", "to/abs", "copied"}
    assert (found["to/d"][:3], found["to/d/f"][:3]) == (("0o40711", 4, 0), ("0o100600", 1, 2))


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


def test_add_copies_what_is_no_archive(ground: Ground, tmp_path: Path) -> None:
    """A file that is only packed, one that only looks like an archive, and a folder."""
    files: dict[str, Content] = {"packed.gz": gzip.compress(b"x"), "false.tar": b"\x1f\x8bnothing", "plain": "p",
                                 "d/f": "f", "empty": ""}  # fmt: skip
    ground.built(SCRATCH + "ADD packed.gz false.tar plain empty /to/\nADD d /d\n", files)
    names = {"to", "to/packed.gz", "to/false.tar", "to/plain", "to/empty", "d", "d/f"}
    assert set(ground.files(tmp_path / "root")) == names


def test_an_archive_does_not_leave_its_folder(ground: Ground, tmp_path: Path) -> None:
    """Dot-dot in it stays beneath the destination; a link that leads out of it is refused, with the line."""
    ground.built(SCRATCH + "ADD a.tar /to/\n", {"a.tar": archive(entry("../../up", data=b"u"))})
    assert set(ground.files(tmp_path / "root")) == {"to", "to/up"}
    evil = archive(symlink("l", str(tmp_path)), entry("l/outside", data=b"x"))
    done = ground.build(SCRATCH + "ADD a.tar /to/\n", {"a.tar": evil})
    assert done.returncode == 1 and "Dockerfile:2: " in done.stderr and "no folder" in done.stderr
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("line", ["COPY d /d", "ADD a.tar /d", "RUN touch /.wh.x"])
def test_a_name_that_marks_a_deletion_is_refused(line: str, ground: Ground) -> None:
    """No layer can hold such a file: whoever unpacks it would delete another."""
    files: dict[str, Content] = {"d/.wh.x": "", "a.tar": archive(entry(".wh.x", data=b"w"))}
    done = ground.build(BASE + line + "\n", files)
    assert done.returncode == 1 and "a layer cannot hold a file called" in done.stderr and "Dockerfile:2" in done.stderr


@pytest.mark.parametrize("source", ["https://example.org/x", "http://x/y.git", "git@example.org:x.git", "ftp://x/y"])
def test_nothing_is_fetched(source: str, ground: Ground) -> None:
    """ADD of a URL or of a repository is refused by name, with what to do."""
    done = ground.build(BASE + f"ADD {source} /x\n", {})
    assert done.returncode == 1 and f"Dockerfile:2: ADD of {source} is not done here" in done.stderr
    assert "fetch it before the build" in done.stderr


def test_workdir_makes_its_folder_for_the_user(ground: Ground, tmp_path: Path) -> None:
    """As BuildKit does; one that is there already makes no layer, and what RUN and COPY see is it."""
    done = ground.built(
        BASE + "WORKDIR /tmp\nUSER 7:8\nWORKDIR /a/b\nUSER root\nRUN pwd > here\nCOPY f .\n", {"f": "f"}
    )
    layers = {step["instruction"]: step["layer"] for step in done["steps"]}
    assert layers["WORKDIR /tmp"] is None and layers["WORKDIR /a/b"]
    found = ground.files(tmp_path / "root")
    assert found["a/b"][:3] == ("0o40755", 7, 8) and (tmp_path / "root/a/b/here").read_text() == "/a/b\n"
    assert "a/b/f" in found


def test_special_files_are_copied_and_sockets_are_not(ground: Ground, tmp_path: Path) -> None:
    """A pipe and a device are files of an image; a socket cannot be one."""
    ground.build(SCRATCH, {"d/f": ""})
    os.mkfifo(ground.folder / "d/pipe")
    os.mknod(ground.folder / "d/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    program = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    subprocess.run(["python3", "-c", program, str(ground.folder / "d/sock")], check=True)
    ground.built(SCRATCH + "COPY d /\n")
    found = ground.files(tmp_path / "root")
    assert set(found) == {"f", "pipe", "null"} and found["null"][3] == os.makedev(1, 3)


def test_a_layer_holds_only_what_the_step_changed(ground: Ground) -> None:
    """The archive of COPY: the file, and the folders on its way; nothing of mounts, and no younger time."""
    done = ground.built(BASE + "RUN echo x > /etc/new && rm /etc/group\nCOPY f /etc/f\n", {"f": "f"})
    names = {}
    for step in done["steps"]:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(ground.store.path(step["layer"]).read_bytes()))) as tar:
            names[step["instruction"].split()[0]] = sorted(tar.getnames())
            assert len({each.mtime for each in tar}) == 1
    assert names == {"RUN": ["etc", "etc/.wh.group", "etc/new"], "COPY": ["etc", "etc/f"]}
