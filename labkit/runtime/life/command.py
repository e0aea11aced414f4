"""Floor 3: `labkit-runtime`: runc's command line.

Owns: what each verb asks for and prints, and how an error is told: on standard error for people, and as a line of
JSON in --log for the engine that called.  Each verb imports only what it needs.  The words are in `words`.

Read: runc(8) and its pages, whose flags these are.
"""

from __future__ import annotations

import os
import sys

from labkit import __version__, leanjson
from labkit.errors import BadInput, LabError
from labkit.lean import TYPE_CHECKING, contents
from labkit.runtime.life import store, words

if TYPE_CHECKING:
    from collections.abc import Callable

    from labkit.runtime.life.maker import Options
    from labkit.runtime.life.words import Given


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    os.umask(0o022)  # what is made for the container is seen inside, by any user, whatever the caller's is
    given = words.understand(sys.argv[1:] if argv is None else argv)
    try:
        return int(VERBS[given.verb](given, store.Store(given.root)) or 0)
    except LabError as error:
        tell(error, given)
        return error.status
    except OSError as error:
        tell(LabError(f"{error.strerror or error}", why=" ".join(getattr(error, "__notes__", ())) or str(error)), given)
        return 1
    except Exception as error:
        tell(_unforeseen(error), given)
        return 1


def _unforeseen(error: Exception) -> LabError:
    """In words, and where: an engine keeps the last line of what a runtime prints, and a traceback has many."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f"{os.path.basename(at.tb_frame.f_code.co_filename)}:{at.tb_lineno}" if at else "an unknown place"
    return LabError(f"{type(error).__name__}: {error}", why=f"met at {where}, where nobody had reckoned with it")


def tell(error: LabError, given: Given) -> None:
    """The error for a person, and for --log in the form that engines read."""
    print(f"labkit-runtime {given.verb}: {error}", file=sys.stderr)
    if not given.log:
        return
    if given.log_format == "json":
        line = leanjson.dumps({"level": "error", "msg": str(error), "time": store.now()})
    else:
        line = f'time="{store.now()}" level=error msg={leanjson.dumps(str(error))}'
    try:
        with open(given.log, "a") as file:
            file.write(line + "\n")
    except OSError as failed:  # the error itself has been told
        print(f"labkit-runtime {given.verb}: cannot write --log {given.log}: {failed.strerror}", file=sys.stderr)


def _options(given: Given) -> Options:
    from labkit.runtime.become.ready import handed_over
    from labkit.runtime.life.maker import Options

    handed = handed_over(os.environ, os.getpid(), given.preserve_fds)
    return Options(
        getattr(given, "bundle", "."),
        given.pid_file,
        given.console_socket,
        getattr(given, "no_pivot", False),
        handed,
        keyring=not getattr(given, "no_new_keyring", False),
        rootless=given.rootless == "true" or (given.rootless == "auto" and is_rootless()),
        driver="systemd" if given.systemd_cgroup else given.cgroup_manager,
        program=sys.orig_argv[1:],
    )


def is_rootless() -> bool:
    """Whether this process is not the machine's root: another user, or root in a user namespace."""
    if os.geteuid():
        return True
    return contents("/proc/self/uid_map").split() != [b"0", b"0", b"%d" % (2**32 - 1)]


def _create(given: Given, place: store.Store) -> None:
    from labkit.runtime.life import maker

    maker.create(place, given.id, _options(given))


def _run(given: Given, place: store.Store) -> int:
    from labkit.runtime.life import verbs

    options = _options(given)
    if given.step or given.step_fd >= 0:
        from labkit.runtime.life import stepping

        gate = stepping.ForPrograms(given.step_fd) if given.step_fd >= 0 else stepping.ForPeople()
        options = options._replace(gate=gate)
    return verbs.run(place, given.id, options, detach=given.detach, keep=given.keep)


def _start(given: Given, place: store.Store) -> None:
    from labkit.runtime.life import verbs

    verbs.start(place, given.id)


def _state(given: Given, place: store.Store) -> None:
    found = place.load(given.id)
    shown = store.public(found)
    import json

    print(json.dumps({**shown, "rootfs": _rootfs(place, found), "created": found.get("created", ""), "owner": ""},
                     indent=2))  # fmt: skip


def _rootfs(place: store.Store, state: store.State) -> str:
    try:
        config = place.config(state["id"])
    except (OSError, ValueError):
        return ""
    return os.path.join(state["bundle"], str(config["root"]["path"]))


def _list(given: Given, place: store.Store) -> None:
    states = place.all()
    if given.quiet:
        print("".join(one["id"] + "\n" for one in states), end="")
        return
    rows = [
        {**store.public(one), "rootfs": _rootfs(place, one), "created": one.get("created", ""), "owner": _owner(one)}
        for one in states
    ]
    if given.format == "json":
        print(leanjson.dumps(rows))
        return
    table = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
    table += [[str(row[key]) for key in ("id", "pid", "status", "bundle", "created", "owner")] for row in rows]
    widths = [max(10, *(len(line[column]) for line in table)) + 2 for column in range(6)]
    for line in table:
        print("".join(map(str.ljust, line, widths)).rstrip())


def _owner(state: store.State) -> str:
    import pwd

    uid = state.get("owner", 0)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _kill(given: Given, place: store.Store) -> None:
    from labkit.runtime.life import verbs

    verbs.kill(place, given.id, given.signal, everyone=given.all)


def _delete(given: Given, place: store.Store) -> None:
    from labkit.runtime.life import verbs

    verbs.delete(place, given.id, force=given.force)


def _pause(given: Given, place: store.Store) -> None:
    from labkit.runtime.life import verbs

    verbs.pause(place, given.id)


def _resume(given: Given, place: store.Store) -> None:
    from labkit.runtime.life import verbs

    verbs.resume(place, given.id)


def _ps(given: Given, place: store.Store) -> None:
    from labkit.runtime.life import verbs

    pids = verbs.members(place.load(given.id))
    if given.format == "json":
        print(leanjson.dumps(pids))
        return
    import subprocess

    words = ["ps", *(given.options or ["-ef"])]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"{' '.join(words)} failed", why=done.stderr.strip() or f"its status is {done.returncode}",
                       next="what follows the id is ps(1)'s own", status=1)  # fmt: skip
    heading, *lines = done.stdout.splitlines() or [""]
    if "PID" not in heading.split():
        raise BadInput(f"{' '.join(words)} prints no column PID", why="by it the container's processes are known",
                       next=f"labkit-runtime ps {given.id} -o pid,comm", status=1)  # fmt: skip
    column = heading.split().index("PID")
    print(heading)
    for line in filter(str.strip, lines):
        number = "".join(line.split()[column : column + 1])
        if not number.isdecimal():
            raise BadInput(f"{' '.join(words)}: no PID can be read from {line!r}", why="a word before it has a space",
                           next="PID as the first column", status=1)  # fmt: skip
        if int(number) in pids:
            print(line)


def _spec(given: Given, place: store.Store) -> None:
    import json

    from labkit.runtime.document import template

    file = os.path.join(given.bundle, store.CONFIG)
    if os.path.exists(file):
        raise BadInput(f"{file} is there already", why="it may be somebody's work", status=1, next="remove it first")
    with open(file, "w") as opened:
        opened.write(json.dumps(template.spec(rootless=given.for_user), indent="\t") + "\n")


def _features(given: Given, place: store.Store) -> None:
    import json

    from labkit.runtime.document import features
    from labkit.runtime.files import options

    print(json.dumps(features.features(options.KNOWN, __version__), indent=2))


def _update(given: Given, place: store.Store) -> None:
    from labkit.runtime.life import update

    update.update(place, given.id, update.asked(given))


def _events(given: Given, place: store.Store) -> None:
    from labkit.runtime.life import events

    for line in events.lines(place, given.id, events.interval(given.interval), once=given.stats):
        print(line, flush=True)


def _exec(given: Given, place: store.Store) -> int:
    from labkit.runtime.become import sealed
    from labkit.runtime.document import read
    from labkit.runtime.life import verbs

    # First, while there is nothing to lose: the container's programs run already, and must not get at this one's.
    sealed.seal(sys.orig_argv[1:])
    place.load(given.id)
    if given.process:
        wanted = read.process(given.process)
    else:
        wanted = place.config(given.id)["process"]
        wanted.update(args=given.command, terminal=given.tty)
        wanted["env"] = [*wanted.get("env", ()), *given.env]
        if given.cwd:
            wanted["cwd"] = given.cwd
        if given.user:
            wanted.setdefault("user", {}).update(_user(given.user))
        if given.additional_gids:
            listed = wanted.setdefault("user", {}).setdefault("additionalGids", [])
            listed += given.additional_gids
        for field, value in (("selinuxLabel", given.process_label), ("apparmorProfile", given.apparmor)):
            if value:
                wanted[field] = value
        if given.no_new_privs:
            wanted["noNewPrivileges"] = True
        for kind in ("bounding", "effective", "permitted") if given.cap else ():
            listed = wanted.setdefault("capabilities", {}).setdefault(kind, [])
            listed += [name for name in given.cap if name not in listed]
    return verbs.execute(place, given.id, wanted, _options(given), detach=given.detach, paused=given.ignore_paused)


def _user(text: str) -> dict[str, int]:
    """What UID[:GID] says of the user; what it does not say stays as the container has it, as with runc.

    Raises BadInput: names are the engine's to look up.
    """
    uid, colon, gid = text.partition(":")
    if not uid.isdecimal() or (colon and not gid.isdecimal()):
        raise BadInput(f"--user {text!r} is not UID[:GID]", why="a runtime takes numbers", next="--user 1000:1000",
                       status=1)  # fmt: skip
    return {"uid": int(uid), "gid": int(gid)} if colon else {"uid": int(uid)}


VERBS: dict[str, Callable[[Given, store.Store], int | None]] = {
    "create": _create,
    "run": _run,
    "start": _start,
    "state": _state,
    "list": _list,
    "kill": _kill,
    "delete": _delete,
    "pause": _pause,
    "resume": _resume,
    "update": _update,
    "events": _events,
    "ps": _ps,
    "spec": _spec,
    "features": _features,
    "exec": _exec,
}


if __name__ == "__main__":
    sys.exit(main())
