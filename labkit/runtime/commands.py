"""Floor 3: the verbs of the `labkit` command that deal with containers.

Owns: their options, spelt as docker spells them, and what they print.  What they do is
in labkit.runtime.run, execute and upkeep.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from labkit.runtime import flags, spec, state
from labkit.runtime.parser import Parser
from labkit.storage import volumes


class NotOnVersion2(argparse.Action):
    """An option that Docker has and cgroup v2 has not."""

    def __call__(self, *_: object) -> None:
        """Raise Refused."""
        flags.refuse(self.option_strings[0])


def run(argv: list[str]) -> int:
    """labkit run [OPTIONS] IMAGE [COMMAND ...]"""
    parser = Parser(
        prog="labkit run", description="start a container from an image", add_help=False, allow_abbrev=False
    )
    limits = parser.add_argument_group("limits (cgroup v2)")
    for flag in flags.FLAGS:
        names = ["-m", flag.option] if flag.option == "--memory" else [flag.option]
        action = "append" if flag.repeated else "store"
        limits.add_argument(*names, dest=flag.name, metavar=flag.metavar, action=action, help=flag.help)
    for option in flags.REFUSED:
        limits.add_argument(option, nargs=0, help=argparse.SUPPRESS, action=NotOnVersion2)
    parser.add_argument("--name")
    parser.add_argument("-h", "--hostname", default="")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("-v", "--volume", action="append", default=[], metavar="SOURCE:TARGET[:ro]")
    parser.add_argument(
        "--network", default="bridge", help="a network, bridge (default), none, host, container:NAME, cni:NAME"
    )
    parser.add_argument("--network-alias", action="append", default=[], metavar="NAME", help="a further name on it")
    parser.add_argument("--ip", default="", metavar="ADDRESS", help="this IPv4 address of the network")
    parser.add_argument("--ip6", default="", metavar="ADDRESS", help="this IPv6 address of the network")
    parser.add_argument("-p", "--publish", action="append", default=[], metavar="[IP:]PORT[-PORT]:PORT[-PORT][/udp]")
    parser.add_argument("--rm", action="store_true", help="remove the container when it ends")
    parser.add_argument("-d", "--detach", action="store_true", help="run in the background, print the id")
    parser.add_argument("-i", "--interactive", action="store_true", help="as docker's; stdin is always passed through")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal of its own")
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]")
    parser.add_argument("-w", "--workdir")
    parser.add_argument("--entrypoint")
    parser.add_argument("--cap-add", action="append", default=[], metavar="CAP")
    parser.add_argument("--cap-drop", action="append", default=[], metavar="CAP")
    parser.add_argument("--security-opt", action="append", default=[], choices=["no-new-privileges"])
    parser.add_argument(
        "--init",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="an init as process 1, which reaps (default); --no-init: the command itself, as docker does",
    )
    parser.add_argument("--help", action="help")
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    given = _parse(parser, argv)
    options = spec.Options(
        command=given.command,
        hostname=given.hostname,
        limits={flag.name: value for flag in flags.FLAGS if (value := getattr(given, flag.name)) is not None},
        env=tuple(given.env),
        volumes=tuple(volumes.parse(text) for text in given.volume),
        network=given.network,
        user=given.user,
        workdir=given.workdir,
        entrypoint=given.entrypoint,
        cap_add=tuple(given.cap_add),
        cap_drop=tuple(given.cap_drop),
        no_new_privileges="no-new-privileges" in given.security_opt,
        tty=given.tty,
    )
    from labkit.runtime import run as runner

    return runner.run(
        runner.Request(
            image=given.image,
            options=options,
            name=given.name,
            publish=tuple(given.publish),
            aliases=tuple(given.network_alias),
            address=given.ip,
            address6=given.ip6,
            remove=given.rm,
            detach=given.detach,
            init=given.init,
        )
    )


def exec(argv: list[str]) -> int:
    """labkit exec [OPTIONS] NAME COMMAND ..."""
    parser = Parser(prog="labkit exec", description="run a command inside a container")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("-u", "--user", default="")
    parser.add_argument("-w", "--workdir", default="")
    parser.add_argument("-i", "--interactive", action="store_true")
    parser.add_argument("-t", "--tty", action="store_true")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    given = _parse(parser, argv)
    if not given.command:
        parser.error("a COMMAND is needed")
    from labkit.runtime import container, execute

    container.require_root()
    found = state.find(given.name)
    return execute.run(found, given.command, env=given.env, user=given.user, workdir=given.workdir, tty=given.tty)


def ps(argv: list[str]) -> int:
    """labkit ps [--all] [--json]"""
    parser = Parser(prog="labkit ps", description="list containers")
    parser.add_argument("-a", "--all", action="store_true", help="also those that have ended")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.add_argument("--json", action="store_true", help="everything that is known, as JSON")
    given = parser.parse_args(argv)
    states = [one for one in state.load_all() if given.all or one["status"] == "running"]
    if given.json:
        print(json.dumps(states, indent=1))
        return 0
    if given.quiet:
        print(*(one["id"][:12] for one in states), sep="\n", end="\n" if states else "")
        return 0
    rows = [("CONTAINER ID", "NAME", "IMAGE", "COMMAND", "PID", "STATUS", "PORTS")]
    rows += [
        (
            one["id"][:12],
            one["name"],
            one["image"],
            _short(" ".join(one["command"]), 30),
            str(one["pid"]) if one["status"] == "running" else "-",
            _status(one),
            ", ".join(one["ports"]) or "-",
        )
        for one in states
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _status(one: dict[str, Any]) -> str:
    if one["status"] != "stopped":
        return str(one["status"])
    if "exitCode" not in one:
        return "lost (its monitor was killed: labkit reset)"
    return f"ended ({one['exitCode']}{', out of memory' if one.get('oomKilled') else ''})"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def logs(argv: list[str]) -> int:
    """labkit logs NAME"""
    parser = Parser(prog="labkit logs", description="what a detached container printed")
    parser.add_argument("name", metavar="NAME")
    found = state.find(parser.parse_args(argv).name)
    file = state.folder(found["id"]) / "log"
    sys.stdout.write(file.read_text(errors="replace") if file.exists() else "")
    return 0


def stop(argv: list[str]) -> int:
    """labkit stop [--time SECONDS] NAME ..."""
    parser = Parser(prog="labkit stop", description="end containers: their stop signal, then SIGKILL")
    parser.add_argument("-t", "--time", type=float, default=10.0, metavar="SECONDS", help="patience before SIGKILL")
    parser.add_argument("names", nargs="+", metavar="NAME")
    given = parser.parse_args(argv)
    from labkit.runtime import container, upkeep

    container.require_root()
    for name in given.names:
        upkeep.stop(state.find(name), patience=given.time)
        print(name)
    return 0


def rm(argv: list[str]) -> int:
    """labkit rm [--force] NAME ..."""
    parser = Parser(prog="labkit rm", description="remove ended containers")
    parser.add_argument("-f", "--force", action="store_true", help="running ones too: kill them first")
    parser.add_argument("names", nargs="+", metavar="NAME")
    given = parser.parse_args(argv)
    from labkit.runtime import container, upkeep

    container.require_root()
    for name in given.names:
        upkeep.remove(state.find(name), force=given.force)
        print(name)
    return 0


def reset(argv: list[str]) -> int:
    """labkit reset"""
    parser = Parser(
        prog="labkit reset",
        description="give back everything that labkit ever acquired; images and named volumes stay",
    )
    parser.parse_args(argv)
    from labkit.runtime import container, upkeep

    container.require_root()
    given_back = upkeep.reset(print)
    print(f"labkit reset: {len(given_back)} things given back" if given_back else "labkit reset: nothing to give back")
    return 0


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Options end at IMAGE or NAME, what follows is the command's, its own -- included."""
    given = parser.parse_args(argv)
    if given.command and given.command[0] == "--":
        given.command = given.command[1:]
    return given
