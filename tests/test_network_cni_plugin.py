"""`labkit-cni` as runtimes call it: a process, variables and JSON; its results beside the real bridge plugin's."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from cni_ground import on_machine, with_plugins

on_kernel = on_machine

# The program as an entry point makes it, and calls of it and of the distribution's plugin.
PLUGIN = """
program = state / "bin" / "labkit-cni"
program.write_text(f"#!{sys.executable}\\nfrom labkit.network.cni_plugin import main\\nraise SystemExit(main())\\n")
program.chmod(0o755)

def named(name):
    sh("ip", "netns", "add", name)
    return f"/run/netns/{name}"

def call(command, container="web", netns="", ifname="eth0", plugin="labkit-cni", version="1.0.0", **conf):
    conf = {"cniVersion": version, "name": "lan", "type": plugin, **conf}
    done = subprocess.run([str(cni_config.program(plugin, os.environ["CNI_PATH"]))], input=json.dumps(conf), text=True,
                          capture_output=True, env={**os.environ, "CNI_COMMAND": command, "CNI_IFNAME": ifname,
                                                    "CNI_CONTAINERID": container, "CNI_NETNS": netns})
    assert done.stderr == "", done.stderr
    return [done.returncode, json.loads(done.stdout) if done.stdout.strip() else None]

def inside_of(name, *words):
    return subprocess.run(["ip", "netns", "exec", name, *words], capture_output=True, text=True)

sh("mount", "-t", "tmpfs", "tmpfs", "/run")  # this machine's own: `ip netns` keeps its names there
"""


def with_program(folder: Path, program: str) -> Any:
    return with_plugins(folder, PLUGIN + textwrap.dedent(program))


def asked(command: str, text: str = "", **variables: str) -> tuple[int, Any]:
    """The plugin as a process, without a kernel's work; (exit status, its JSON)."""
    code = "from labkit.network.cni_plugin import main; raise SystemExit(main())"
    environment = {"CNI_COMMAND": command, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **variables}
    done = subprocess.run([sys.executable, "-c", code], input=text, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


GOOD = {"CNI_CONTAINERID": "web", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0"}
CONFIGURATION = '{"cniVersion": "1.0.0", "name": "lan", "type": "labkit-cni"}'


def test_version_says_what_is_spoken() -> None:
    """VERSION repeats the asked version, and lists 0.3.0 to 1.1.0."""
    status, said = asked("VERSION", '{"cniVersion": "1.0.0"}')
    assert (status, said["cniVersion"]) == (0, "1.0.0")
    assert said["supportedVersions"] == ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.mark.parametrize(
    ("command", "text", "variables", "code"),
    [
        ("JUMP", CONFIGURATION, GOOD, 4),
        ("", CONFIGURATION, GOOD, 4),
        ("ADD", CONFIGURATION, {**GOOD, "CNI_CONTAINERID": ""}, 4),
        ("ADD", CONFIGURATION, {**GOOD, "CNI_CONTAINERID": "../x"}, 4),
        ("ADD", CONFIGURATION, {**GOOD, "CNI_NETNS": ""}, 4),
        ("ADD", CONFIGURATION, {**GOOD, "CNI_IFNAME": "a-name-of-20-letters"}, 4),
        ("ADD", CONFIGURATION, {**GOOD, "CNI_IFNAME": ".."}, 4),
        ("DEL", CONFIGURATION, {**GOOD, "CNI_IFNAME": "a/b"}, 4),
        ("ADD", "{", GOOD, 6),
        ("ADD", "[]", GOOD, 6),
        ("ADD", '{"cniVersion": "9.9", "name": "lan"}', GOOD, 1),
        ("ADD", '{"name": "lan"}', GOOD, 1),
        ("CHECK", '{"cniVersion": "0.3.1", "name": "lan"}', GOOD, 1),
        ("GC", '{"cniVersion": "1.0.0", "name": "lan"}', GOOD, 1),
        ("ADD", '{"cniVersion": "1.0.0"}', GOOD, 7),
        ("ADD", '{"cniVersion": "1.0.0", "name": "a/b"}', GOOD, 7),
        ("ADD", '{"cniVersion": "1.0.0", "name": "lan", "network": 5}', GOOD, 7),
        ("ADD", CONFIGURATION[:-1] + ', "runtimeConfig": {"portMappings": [{"hostPort": "x"}]}}', GOOD, 7),
        ("ADD", CONFIGURATION, GOOD, 3),
    ],
)
def test_bad_calls_get_the_specifications_codes(
    tmp_path: Path, command: str, text: str, variables: dict[str, str], code: int
) -> None:
    """A bad variable 4, what is no JSON 6, a version 1, a configuration 7, a namespace that is not there 3."""
    status, said = asked(command, text, **variables, LABKIT_RUN=str(tmp_path))
    assert (status, said["code"]) == (1, code) and said["msg"] and said["cniVersion"]
    assert not list(tmp_path.rglob("*.json*"))


class TestOnAMachine:
    """With namespaces, each test on a machine of its own."""

    pytestmark = on_kernel

    def test_add_check_del(self, tmp_path: Path) -> None:
        """The gateway answers, CHECK is silent, DEL leaves the machine as it was, and a second DEL is fine."""
        added, ping, checked, gone, again, same = with_program(
            tmp_path,
            """
            path = named("one")
            before = census()
            status, added = call("ADD", netns=path)
            ping = inside_of("one", "ping", "-c1", "-W3", added["ips"][0]["gateway"]).returncode
            checked = call("CHECK", netns=path, prevResult=added)
            gone, again = call("DEL", netns=path, prevResult=added), call("DEL", netns=path)
            say([added, ping, checked, gone, again, census() == before and not list(all_ledgers())])
            """,
        )
        assert ping == 0 and checked == gone == again == [0, None] and same
        assert added["cniVersion"] == "1.0.0" and added["routes"] == [
            {"dst": "0.0.0.0/0", "gw": added["ips"][0]["gateway"]}]  # fmt: skip

    @pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
    def test_the_result_has_the_real_plugins_form(self, tmp_path: Path, version: str) -> None:
        """The same keys at the same depth as the distribution's bridge plugin answers, with what the kernel says."""
        ours, theirs, seen = with_program(
            tmp_path,
            f"""
            real = bridge_plugin(version={version!r}, plugin="bridge")
            real.pop("type")
            theirs = call("ADD", netns=named("real"), **real)[1]
            ours = call("ADD", netns=named("kit"), version={version!r})[1]
            seen = json.loads(inside_of("kit", "ip", "-j", "addr", "show", "dev", "eth0").stdout)[0]
            call("DEL", netns="/run/netns/real", **real)
            call("DEL", netns="/run/netns/kit")
            say([ours, theirs, seen])
            """,
        )

        def form(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: form(each) for name, each in value.items()}
            return [form(each) for each in value] if isinstance(value, list) else type(value).__name__

        mine, real = form(ours), form(theirs)
        # Its host-local gives routes without a gateway, which the plugin fills in on the way.
        mine.pop("routes"), real.pop("routes")
        assert mine == real
        own = ours["interfaces"][ours["ips"][0]["interface"]]
        assert own == {"name": "eth0", "mac": seen["address"], "sandbox": "/run/netns/kit"}
        address = next(one for one in seen["addr_info"] if one["family"] == "inet")
        assert ours["ips"][0]["address"] == f"{address['local']}/{address['prefixlen']}"

    def test_check_names_what_is_broken(self, tmp_path: Path) -> None:
        """The way out, the address, the cable, the result that the runtime kept, and a container that is not there."""
        said = with_program(
            tmp_path,
            """
            path = named("one")
            added = call("ADD", netns=path)[1]
            def why(container="web", **conf):
                status, said = call("CHECK", container, netns=path, **{"prevResult": added, **conf})
                return [status, said["code"], said["msg"]]
            said = [why(prevResult={**added, "ips": []}), why("other")]
            inside_of("one", "ip", "route", "del", "default")
            said.append(why())
            inside_of("one", "ip", "addr", "flush", "dev", "eth0")
            said.append(why())
            sh("ip", "link", "set", added["interfaces"][1]["name"], "nomaster")
            said.append(why())
            inside_of("one", "ip", "link", "del", "eth0")
            said.append(why())
            call("DEL", netns=path)
            say(said)
            """,
        )
        assert [status for status, _, _ in said] == [1] * 6
        assert [code for _, code, _ in said] == [100, 3, 100, 100, 100, 100]
        for (_, _, message), words in zip(
            said,
            ["prevResult", "other has no eth0", "default route", "lost its address", "no cable", "no cable"],
            strict=True,
        ):
            assert words in message

    def test_the_machines_own_namespace_is_refused(self, tmp_path: Path) -> None:
        """A runtime that hands over the namespace it runs in would get a container's address for the machine."""
        said, same = with_program(
            tmp_path,
            """
            before = census()
            said = call("ADD", netns=f"/proc/{os.getpid()}/ns/net")[1]
            say([said, census() == before and not list(all_ledgers())])
            """,
        )
        assert said["code"] == 4 and "own network namespace" in said["msg"] and same

    def test_del_needs_no_namespace(self, tmp_path: Path) -> None:
        """As containerd calls it: the path is empty, the namespace gone or still there."""
        first, second, same = with_program(
            tmp_path,
            """
            before = census()
            call("ADD", "one", netns=named("one"))
            call("ADD", "two", netns=named("two"))
            sh("ip", "netns", "del", "one")
            first, second = call("DEL", "one"), call("DEL", "two")
            sh("ip", "netns", "del", "two")
            say([first, second, census() == before and not list(all_ledgers())])
            """,
        )
        assert first == second == [0, None] and same

    def test_an_interface_has_the_name_that_was_asked_for(self, tmp_path: Path) -> None:
        """Two interfaces of one container, under names of the runtime's choice; a third ADD of the same is refused."""
        names, refused, same = with_program(
            tmp_path,
            """
            before = census()
            sh("ip", "netns", "add", "one")
            named_before = call("ADD", netns="/run/netns/one", ifname="lan0")[1]
            inside_of("one", "ip", "route", "del", "default")
            call("ADD", netns="/run/netns/one", ifname="lan1")
            names = [link["ifname"] for link in json.loads(inside_of("one", "ip", "-j", "link").stdout)]
            refused = call("ADD", netns="/run/netns/one", ifname="lan0")[1]["msg"]
            alive = inside_of("one", "ip", "link", "show", "lan0").returncode
            call("DEL", ifname="lan0"), call("DEL", ifname="lan1")
            sh("ip", "netns", "del", "one")
            say([names, [refused, alive], census() == before])
            """,
        )
        assert set(names) >= {"lo", "lan0", "lan1"} and same
        assert refused == ["web has its lan0 already", 0]

    def test_ports_are_published_by_capability(self, tmp_path: Path) -> None:
        """runtimeConfig.portMappings, as a runtime hands it over: a neighbour of the machine is served until DEL."""
        seen, free = with_program(
            tmp_path,
            """
            there = outside()
            path = named("one")
            wish = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
            status, added = call("ADD", netns=path, runtimeConfig=wish)
            code = "s = socket.create_server(('', 80)); print('ready', flush=True); c, a = s.accept(); c.sendall(b'hi')"
            server = subprocess.Popen(["ip", "netns", "exec", "one", sys.executable, "-c", "import socket; " + code],
                                      stdout=subprocess.PIPE, text=True)
            server.stdout.readline()
            seen = seen_from(there, "10.99.0.1", 8080)
            call("DEL", netns=path)
            say([seen, sh("ss", "-Hlnt", "sport = 8080")])
            """,
        )
        assert (seen, free) == ("hi", "")

    def test_gc_ends_what_nobody_names(self, tmp_path: Path) -> None:
        """Of this configuration's containers the unnamed one goes; another configuration's stays; STATUS is content."""
        status, left, missing = with_program(
            tmp_path,
            """
            for name in ("one", "two", "three"):
                call("ADD", name, netns=named(name), **({"name": "other"} if name == "three" else {}))
            valid = [{"containerID": "one", "ifname": "eth0"}]
            status = [call("GC", version="1.1.0", **{"cni.dev/valid-attachments": valid}),
                      call("STATUS", version="1.1.0")]
            left = sorted(one.name for one in plan.load("labkit0").containers.values())
            call("DEL", "one"), call("DEL", "three")
            missing = call("STATUS", version="1.1.0", network="no-such")[1]["code"]
            say([status, left, missing])
            """,
        )
        assert status == [[0, None], [0, None]] and left == ["one", "three"] and missing == 50

    @pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
    def test_a_network_without_a_bridge_is_refused_in_words(self, tmp_path: Path, driver: str) -> None:
        """ADD and STATUS name the driver and who serves it; nobody is attached, and nothing is in the namespace."""
        added, status, left = with_program(
            tmp_path,
            f"driver = {driver!r}"
            + """
from labkit.network import networks
sh("ip", "link", "add", "par0", "type", "veth", "peer", "name", "par1")
wish = networks.Wish("wire", driver, ("10.66.0.0/24",), options={"parent": "par0"})
path = named("one")
networks.create(wish)
added = call("ADD", netns=path, network="wire")[1]
status = call("STATUS", version="1.1.0", network="wire")[1]
devices = [link["ifname"] for link in json.loads(inside_of("one", "ip", "-j", "link").stdout)]
say([added, status, [devices, len(plan.load("wire").containers), [ledger.owner for ledger in all_ledgers()]]])
""",
        )
        assert (added["code"], status["code"]) == (7, 50)
        assert added["msg"] == status["msg"] == f"labkit-cni serves bridge networks, and wire is a {driver} network"
        assert "eth0" not in left[0] and left[1:] == [0, []]

    def test_our_own_driver_drives_it(self, tmp_path: Path) -> None:
        """`labkit run --network cni:...` with the kit's plugin and the distribution's tuning behind it in one chain."""
        addresses, mtu, same = with_program(
            tmp_path,
            """
            write(plugins=[{"type": "labkit-cni"}, {"type": "tuning", "mtu": 1400}])
            before = census()
            pid, ledger = new_namespace(), Ledger(C1)
            place = cni.attach(C1, pid, ledger, "lan")
            assert cni.check(C1)
            found, mtu = addresses(pid), inner(pid, "link", "show", "dev", "eth0")[0]["mtu"]
            ledger.release_all()
            say([[list(place.addresses), found], mtu, census() == before])
            """,
        )
        assert addresses[0] == addresses[1] and mtu == 1400 and same

    def test_a_killed_add_is_given_back_by_reset(self, tmp_path: Path) -> None:
        """SIGKILL after the cable is laid: `labkit reset` finds it; the machine is as it was."""
        killed, same = with_program(
            tmp_path,
            """
            path = named("one")
            before = census()
            code = '''
            import os, signal
            from labkit.network import inside
            from labkit.network.cni_plugin import main
            inside.configure = lambda endpoint: os.kill(os.getpid(), signal.SIGKILL)
            main()
            '''
            done = subprocess.run([sys.executable, "-c", code], text=True, input=json.dumps(
                {"cniVersion": "1.0.0", "name": "lan", "type": "labkit-cni"}), env={**os.environ, "CNI_COMMAND": "ADD",
                "CNI_IFNAME": "eth0", "CNI_CONTAINERID": "web", "CNI_NETNS": path})
            reset()
            say([done.returncode, census() == before and not list(all_ledgers())])
            """,
        )
        assert killed == -9 and same
