"""did not end within"""

# exercise: publish
import socket
import subprocess
import threading


def pass_on(source, target):
    """Give `target` all that `source` says, and tell it when that was all."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def talk(caller, address, inner):
    with caller, socket.create_connection((address, inner)) as container:
        there = threading.Thread(target=pass_on, args=(caller, container))
        there.start()
        pass_on(container, caller)
        there.join()


def publish(port, address, inner):
    """Called on the machine: its TCP port `port` leads to port `inner` of a container, whose address is `address`."""
    rules = f"""
    table ip published {{
        chain prerouting {{
            type nat hook prerouting priority dstnat
            fib daddr type local tcp dport {port} counter dnat to {address}:{inner} comment "published"
        }}
    }}
    """
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        caller, _ = listener.accept()
        threading.Thread(target=talk, args=(caller, address, inner)).start()
