"""Floor 3: the program: found, guarded, and become.

Owns: what execvp(3) would find, the statuses 127 and 126, the guard around the way to it, and the
state that execve would otherwise pass on (ignored signals, open descriptors).

The way to the program goes through no magic link.  /proc/self/exe is one: until execve it leads to this
runtime's interpreter, a file of the host's that a container must never get hold of (CVE-2019-5736).  The
interpreter that a script names in its #! line is looked at too.  A container that already runs could
still swap the script between the look and execve: there the runtime itself is started from a file that
nobody can write (labkit.runtime.become.sealed).

Read: execve(2), openat2(2) on RESOLVE_NO_MAGICLINKS, symlink(7) on magic links.
"""

from __future__ import annotations

import errno
import os
import stat

from labkit.errors import NotFound, Refused
from labkit.kernel import constants as C
from labkit.kernel.syscalls import call, openat2
from labkit.lean import TYPE_CHECKING, Record, signal
from labkit.runtime.become.ready import Ready

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import NoReturn

AT_FDCWD = -100
DEEPEST = 5  # scripts whose interpreter is a script: the kernel follows four (fs/exec.c)
LAST_FD = 0xFFFFFFFF  # the highest that close_range(2) can be asked for
LONGEST_LIST = 1 << 20  # bytes of the list of users that are read
OWN_OF_LIBC = (32, 33)  # the C library keeps these to itself (nptl(7)), and lets nobody change them through it
SIGACTION = 32  # bytes of the kernel's struct sigaction; all zero is the default
SIGNAL_SET = 8  # bytes of its sigset_t
LINE = 256  # bytes of a #! line that the kernel reads (BINPRM_BUF_SIZE)


def program(ready: Ready) -> str:
    """Where the program is, as runc looks for it. Raises NotFound (127) or Refused (126)."""
    name = ready.process["args"][0]
    search = ready.environment.get("PATH", "")
    found = [path for path in candidates(name, search) if os.path.exists(path)]
    for path in found:
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            guard(path)
            return path
    # runc's words come first: dockerd reads them, and makes its exit status of them.
    if found:
        kind = "it is a folder" if os.path.isdir(found[0]) else "it is not an executable file"
        why = f'exec: "{found[0]}": permission denied: {kind}'
        raise Refused(f"cannot execute {found[0]} in the container", why=why, status=126,
                      next="name its interpreter too, such as sh FILE")  # fmt: skip
    where = f'exec: "{name}": executable file not found in $PATH: '
    where += f"none of its folders has it: {search}" if search else "process.env has no PATH"
    if "/" in name:
        where = f'exec: "{name}": stat {name}: no such file or directory'
    raise NotFound(f"there is no program {name!r} in the container", why=where, status=127,
                   next="check the spelling; a program's whole path needs no PATH")  # fmt: skip


def candidates(name: str, search: str) -> list[str]:
    """The paths to try, in order."""
    if "/" in name:
        return [name]
    return [f"{folder or '.'}/{name}" for folder in search.split(":")] if search else []


def guard(path: str) -> None:
    """Raise Refused (126) when the way to the program, or to its interpreter, goes through a magic link."""
    for step in interpreters(path):
        try:
            os.close(openat2(AT_FDCWD, step, C.O_PATH, resolve=C.RESOLVE_NO_MAGICLINKS))
        except OSError as error:
            if error.errno != errno.ELOOP:
                continue  # execve says it better
            raise Refused(
                f"cannot execute {path} in the container",
                why=f"{step} leads through a magic link of /proc, and those lead out of the container: "
                "/proc/self/exe is this runtime itself (CVE-2019-5736)",
                next="the program's own path",
                status=126,
            ) from error


def interpreters(path: str) -> Iterator[str]:
    """The path, and what the #! lines name, one after the other."""
    for _ in range(DEEPEST):
        yield path
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return
                first = os.read(fd, LINE)
            finally:
                os.close(fd)
        except OSError:
            return  # a program need not be readable
        words = first[2:].split(b"\n", 1)[0].split() if first.startswith(b"#!") else []
        if not words:
            return
        path = os.fsdecode(words[0])


def home(ready: Ready, passwd: str = "/etc/passwd") -> str:
    """HOME for the program: as given, else (or where it is empty) by the container's own list of users, else /."""
    if given := ready.environment.get("HOME"):
        return given
    uid = str(ready.process.get("user", {}).get("uid", 0)).encode()
    try:
        fd = os.open(passwd, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # an image may hold a FIFO of that name
        try:
            # No larger than it must be: RLIMIT_AS and RLIMIT_DATA hold already.
            listed = os.read(fd, min(os.fstat(fd).st_size, LONGEST_LIST))
        finally:
            os.close(fd)
    except OSError:
        return "/"
    rows = (line.split(b":") for line in listed.split(b"\n"))
    found = next((row[5] for row in rows if len(row) > 5 and row[2] == uid), b"/")
    return found.decode(errors="surrogateescape") or "/"


def close_all(kept: int = 0, spared: Iterable[int] = ()) -> None:
    """Close every descriptor above 2 but for the first `kept` (`ready.handed_over`), which the program gets.

    spared -- what the way to execve still needs (the line to the maker, the FIFO): closed by execve.  Closed is
    better than marked: what is open until execve can be named as /proc/self/fd/N until then (CVE-2024-21626).
    Raises Refused where one of the `kept` is not open.
    """
    for fd in range(3, 3 + kept):
        try:
            os.set_inheritable(fd, True)
        except OSError as error:
            raise Refused(f"descriptor {fd} is to be handed to the program, and is not open", status=1,
                          why=f"{kept} were announced, by --preserve-fds or LISTEN_FDS") from error  # fmt: skip
    low = 3 + kept
    for fd in sorted({one for one in spared if one >= low}):
        if fd > low:
            call("close_range", low, fd - 1, 0)
        os.set_inheritable(fd, False)
        low = fd + 1
    call("close_range", low, LAST_FD, 0)


class Prepared(Record):
    """What execve is given."""

    arguments: list[bytes]
    environment: dict[bytes, bytes]


def prepare(ready: Ready, more: Mapping[str, str] | None = None) -> Prepared:
    """All that `execute` does before execve, to be done before the last filter is on: a strict one stops it.

    more -- variables beside those of config.json (`ready.handed_over`).
    """
    variables = {**ready.environment, "HOME": home(ready), **(more or {})}
    default_signals()
    # UTF-8 as JSON is, whatever the caller's locale.
    return Prepared(
        [one.encode() for one in ready.process["args"]],
        {name.encode(): value.encode(errors="surrogateescape") for name, value in variables.items()},
    )


def default_signals() -> None:
    """Let nothing be ignored or blocked: what Python, a shell's & or the caller ignores, execve would pass on."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) != signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    for hidden in OWN_OF_LIBC:
        call("rt_sigaction", hidden, bytes(SIGACTION), None, SIGNAL_SET)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def execute(ready: Ready, path: str, prepared: Prepared | None = None) -> NoReturn:
    """Become the program; `prepared` here when it was not before. Raises Refused (126)."""
    arguments, environment = prepared or prepare(ready)
    try:
        os.execve(path, arguments, environment)
    except OSError as error:
        why, next_ = f"{error.strerror} (errno {error.errno})", "another program of the image"
        if isinstance(error, FileNotFoundError):
            why = "the program is there, but the interpreter or the loader that it names is not"
            next_ = "an image that has it, or a program that is linked statically"
        elif error.errno == errno.ENOEXEC:
            why = "it is neither a program for this processor nor a script with a #! line"
            next_ = "name its interpreter too, or an image for this processor"
        elif error.errno == errno.EPERM and ready.filter is not None:
            # Looked for and found executable a moment ago, with the same rights, and before the filter was on.
            why += ": it may be executed, but the filter of linux.seccomp, on by now, stops execve itself"
            next_ = "allow execve in linux.seccomp: the container's own start is the first to need it"
        raise Refused(f"cannot execute {path} in the container", why=why, next=next_, status=126) from error
