"""The forwarder: no socket's bad moment ends it, for it serves many."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from network_ground import in_machine, needs_root

Process = subprocess.Popen[bytes]
TREE = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def forwarder(protocol: str, listener: socket.socket, target: int, files: int = 1024) -> Iterator[Process]:
    """A forwarder that may have so many files open, and leads to a port of this machine."""
    lifeline, told = os.pipe()
    words = [f"--nofile={files}", sys.executable, "-m", "labkit.network.forward", str(lifeline)]
    words.append(f"{protocol}:{listener.fileno()}:{target}:127.0.0.1")
    child = subprocess.Popen(["prlimit", *words], pass_fds=[lifeline, listener.fileno()], cwd=TREE)
    try:
        os.write(told, b"1")
        yield child
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
        os.close(lifeline)
        os.close(told)


def worked(child: Process) -> int:
    """Ticks of the processor, 100 a second, that the process has used."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def test_it_outlives_connections_that_nobody_takes() -> None:
    """Before the server inside listens, callers are refused, some in the middle; the one after its start is served."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        target = free.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as listener, forwarder("tcp", listener, target):
        place = listener.getsockname()
        for number in range(20):
            with socket.create_connection(place, timeout=20) as caller:
                try:
                    caller.sendall(b"x" * (number % 2 * 100_000))  # some are in the middle of a talk
                    assert caller.recv(1) == b""
                except ConnectionError:
                    pass
        with (
            socket.create_server(("127.0.0.1", target)) as server,
            socket.create_connection(place, timeout=20) as caller,
        ):
            inside, _ = server.accept()
            with inside:
                caller.sendall(b"word")
                assert inside.recv(10) == b"word"


def test_without_files_for_more_connections_it_waits_and_serves_again() -> None:
    """Of 40 callers some find no file left: it lives, does not run hot, and serves the last when others leave."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=100) as listener,
        socket.create_server(("127.0.0.1", 0), backlog=100) as server,
        forwarder("tcp", listener, server.getsockname()[1], files=24) as child,
    ):
        place = listener.getsockname()
        server.settimeout(20)
        with contextlib.ExitStack() as held:
            for _ in range(40):
                held.enter_context(socket.create_connection(place, timeout=20))
            served = [held.enter_context(server.accept()[0]) for _ in range(5)]
            assert len(served) == 5
            time.sleep(0.5)
            before = worked(child)
            time.sleep(1)
            assert worked(child) - before < 30 and child.poll() is None
            last = socket.create_connection(place, timeout=20)
        with last:
            last.sendall(b"word")
            heard = b""
            while not heard:  # before it, the server hears those who have left
                with server.accept()[0] as inside:
                    inside.settimeout(20)
                    heard = inside.recv(10)
            assert heard == b"word"


def test_without_files_for_more_datagrams_the_oldest_client_gives_way() -> None:
    """With 24 files, each of 40 clients that ask one after another, and keep their sockets, has its answer."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        contextlib.ExitStack() as held,
    ):
        for one in (listener, server):
            one.bind(("127.0.0.1", 0))
        server.settimeout(20)
        with forwarder("udp", listener, server.getsockname()[1], files=24):
            for number in range(40):
                client = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                client.settimeout(20)
                client.sendto(b"%d" % number, listener.getsockname())
                word, way = server.recvfrom(10)
                server.sendto(word, way)
                assert client.recv(10) == b"%d" % number


class TestOnAMachine:
    """With raw sockets: on a machine of its own."""

    pytestmark = needs_root

    def test_a_datagram_with_a_wrong_checksum_is_lost_alone(self, tmp_path: Path) -> None:
        """The kernel announces it and then has nothing to read; the next datagram is answered as before."""
        heard = in_machine(
            tmp_path,
            """
import struct
listener, server, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))
for one in (listener, server):
    one.bind(("127.0.0.1", 0))
port = listener.getsockname()[1]
reading, writing = os.pipe()
child = subprocess.Popen([sys.executable, "-m", "labkit.network.forward", str(reading),
                          f"udp:{listener.fileno()}:{server.getsockname()[1]}:127.0.0.1"],
                         pass_fds=[reading, listener.fileno()])
os.write(writing, b"1")
def ask(word):
    client.sendto(word, ("127.0.0.1", port))
    server.settimeout(20)
    return server.recv(9).decode()
heard = [ask(b"one")]
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
# More than 76 bytes: of a shorter one the kernel reckons the checksum before it tells anybody.
raw.sendto(struct.pack("!HHHH", 9, port, 208, 0xBAD) + bytes(200), ("127.0.0.1", 0))
time.sleep(0.3)
heard.append(ask(b"two") if child.poll() is None else "it has ended")
child.kill()
say(heard)
""",
        )
        assert heard == ["one", "two"]
